"""A tiny LSTM: an embedding ENC, and an AL that takes tuples and so replaces `forward` and `backward`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ALPackage.base import *  # noqa: F403
from ALPackage.base import AE, AL, ENC, nn, torch

from .model import Model


class EmbeddingENC(ENC):
    """Takes token numbers, which a loader may have made floats, and pools over the positions for the bridge."""

    def forward(self, enc_input: Tensor, ae_output: Tensor) -> tuple[Tensor, Tensor]:
        enc_x = self.f(enc_input.long())
        enc_y = self.b(enc_x.mean(1))
        return self.cri(enc_y, ae_output), enc_x


class ClassAE(AE):
    def forward(self, ae_input: Tensor) -> tuple[Tensor, Tensor]:
        enc_y = self.g(ae_input)
        return nn.functional.cross_entropy(self.h(enc_y), ae_input.argmax(1)), enc_y


class EmbeddingAL(AL):
    def inference(self, x: Tensor, path: str) -> Any:
        return super().inference(x.long() if path == "f" else x.mean(1) if path == "b" else x, path)


class LSTMAL(AL):
    """Takes (sequence, states) from the LSTM below, or the sequence of an embedding."""

    def forward(self, enc_input: Any, ae_input: Tensor) -> tuple[Any, Tensor]:
        x, states = enc_input if isinstance(enc_input, tuple) else (enc_input, None)
        self.ae_loss_, enc_y = self.ae(ae_input)
        out, (h, c) = self.enc.f(x, states)
        self.enc_loss_ = self.enc.cri(self.enc.b(h[-1]), enc_y.clone().detach())
        return (out.detach(), (h.detach(), c.detach())), enc_y.detach()

    def backward(self) -> None:
        self.ae_loss_.backward()
        self.enc_loss_.backward()

    def loss(self) -> tuple[Tensor, Tensor]:
        return self.enc_loss_.detach(), self.ae_loss_.detach()

    @torch.no_grad()
    def inference(self, x: Any, path: str) -> Any:
        if path == "f":
            return self.enc.f(*x) if isinstance(x, tuple) else self.enc.f(x)
        return super().inference(x[1][0][-1] if path == "b" else x, path)


class LSTM(Model):
    """An embedding and two LSTM layers for tokens (B, T)."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__(
            [
                EmbeddingAL(
                    EmbeddingENC(nn.Embedding(11, 6), nn.Linear(6, 5)),
                    ClassAE(nn.Sequential(nn.Linear(classes, 5), nn.Tanh()), nn.Linear(5, classes)),
                ),
                LSTMAL(ENC(nn.LSTM(6, 6, batch_first=True), nn.Linear(6, 5)), AE(nn.Linear(5, 5), nn.Linear(5, 5))),
                LSTMAL(ENC(nn.LSTM(6, 6, batch_first=True), nn.Linear(6, 4)), AE(nn.Linear(5, 4), nn.Linear(4, 5))),
            ]
        )
