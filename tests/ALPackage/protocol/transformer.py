"""A tiny Transformer: layers that hand on (sequence, padding mask)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ALPackage.base import *  # noqa: F403
from ALPackage.base import AE, AL, ENC, nn, torch

from .model import Model


class TransformerENC(ENC):
    """Masks the padding in attention and in the mean for the bridge."""

    def forward(self, enc_input: Any, ae_output: Tensor) -> tuple[Tensor, Any]:
        x, mask = enc_input
        enc_x = self.f(x, src_key_padding_mask=mask)
        real = (~mask).unsqueeze(-1)
        enc_y = self.b((enc_x * real).sum(1) / real.sum(1))
        return self.cri(enc_y, ae_output), (enc_x, mask)


class EmbeddingENC(ENC):
    """Makes the mask: token 0 is padding."""

    def forward(self, enc_input: Tensor, ae_output: Tensor) -> tuple[Tensor, Any]:
        enc_x = self.f(enc_input.long())
        enc_y = self.b(enc_x.mean(1))
        return self.cri(enc_y, ae_output), (enc_x, enc_input == 0)


class TransformerAL(AL):
    """Keeps its losses itself and weighs one of them."""

    def forward(self, enc_input: Any, ae_input: Tensor) -> tuple[Any, Tensor]:
        self.own_ae_loss, enc_y = self.ae(ae_input)
        self.own_enc_loss, (enc_x, mask) = self.enc(enc_input, enc_y.clone().detach())
        return (enc_x.detach(), mask), enc_y.detach()

    def backward(self) -> None:
        (2 * self.own_ae_loss).backward()
        self.own_enc_loss.backward()

    def loss(self) -> tuple[Tensor, Tensor]:
        return self.own_enc_loss.detach(), self.own_ae_loss.detach()


def encoder() -> nn.Module:
    return nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True)


class Transformer(Model):
    """An embedding and two encoder layers for tokens (B, T), of which 0 is padding."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__(
            [
                TransformerAL(
                    EmbeddingENC(nn.Embedding(11, 6), nn.Linear(6, 5)), AE(nn.Linear(classes, 5), nn.Linear(5, classes))
                ),
                TransformerAL(TransformerENC(encoder(), nn.Linear(6, 5)), AE(nn.Linear(5, 5), nn.Linear(5, 5))),
                TransformerAL(TransformerENC(encoder(), nn.Linear(6, 4)), AE(nn.Linear(5, 4), nn.Linear(4, 5))),
            ]
        )

    @torch.no_grad()
    def inference(self, x: Tensor) -> Tensor:
        """Predict in this model's own way: the mask goes along outside of the layers."""
        mask = x == 0
        out = self.layers[0].inference(x.long(), "f")
        for layer in self.layers[1:]:
            out = layer.enc.f(out, src_key_padding_mask=mask)
        real = (~mask).unsqueeze(-1)
        code = self.layers[-1].inference((out * real).sum(1) / real.sum(1), "b")
        for layer in reversed(self.layers):
            code = layer.inference(code, "h")
        return code
