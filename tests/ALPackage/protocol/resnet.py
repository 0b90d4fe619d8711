"""A tiny ResNet: an ENC and an AE with a `forward` of their own, and an AL with its own `update` and `loss`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ALPackage.base import *  # noqa: F403
from ALPackage.base import AE, AL, ENC, nn, torch

from .model import Model


class BasicBlock(nn.Module):
    def __init__(self, inp: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(inp, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out))
        self.shortcut = nn.Conv2d(inp, out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) + self.shortcut(x))


class ResENC(ENC):
    def forward(self, enc_input: Tensor, ae_output: Tensor) -> tuple[Tensor, Tensor]:
        enc_x = self.f(enc_input)
        enc_y = self.b(enc_x.flatten(2).mean(2))
        return self.cri(enc_y, ae_output), enc_x


class ClassAE(AE):
    """Trains against the class number."""

    def forward(self, ae_input: Tensor) -> tuple[Tensor, Tensor]:
        enc_y = self.g(ae_input)
        loss = nn.functional.cross_entropy(self.h(enc_y), ae_input.argmax(1))
        return loss, enc_y


class ResAL(AL):
    """Steps both sides by hand, reports the losses in percent and pools in inference."""

    def update(self) -> None:
        self.ae_opt.step()
        self.ae_opt.zero_grad()
        self.enc_opt.step()
        self.enc_opt.zero_grad()

    def loss(self) -> tuple[Tensor, Tensor]:
        enc_loss, ae_loss = super().loss()
        return 100 * enc_loss, 100 * ae_loss

    def inference(self, x: Tensor, path: str) -> Any:
        return super().inference(x.flatten(2).mean(2) if path == "b" else x, path)


class ResNet(Model):
    """Two blocks for images (B, 3, 8, 8)."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__(
            [
                ResAL(
                    ResENC(BasicBlock(3, 4, 1), nn.Linear(4, 6), nn.L1Loss()),
                    ClassAE(nn.Sequential(nn.Linear(classes, 6), nn.Tanh()), nn.Linear(6, classes)),
                    lr={"enc": 1e-3, "ae": 2e-3},
                ),
                ResAL(
                    ResENC(BasicBlock(4, 6, 2), nn.Linear(6, 5), nn.L1Loss()),
                    AE(nn.Linear(6, 5), nn.Linear(5, 6)),
                    lr={"enc": 1e-3, "ae": 2e-3},
                ),
            ]
        )
