"""Losses and gradients of the objectives, against numbers that their authors' code has given.

Each file of golden/ names the repository, the commit, the file and the call. The code was run once, on the tensors that
`wave` makes.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ALPackage.objectives.decoders import decoder_of
from ALPackage.objectives.deinfo import information
from ALPackage.objectives.infopro import InfoProLayer
from ALPackage.objectives.part import Part
from ALPackage.objectives.predsim import PredictionAndSimilarity

LABELS = torch.tensor([0, 2, 1, 0, 2])


def wave(*shape: int, rate: float) -> Tensor:
    """Return sin(rate n**2) for n = 1, 2, .. in this shape."""
    places = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
    return torch.sin(rate * places**2).float().reshape(shape)


def golden(name: str) -> Any:
    return json.loads((Path(__file__).parent / "golden" / f"{name}.json").read_text())


def fill(*modules: nn.Module) -> None:
    """Give the modules, which have a weight each, the weights that the authors' code had."""
    with torch.no_grad():
        for number, module in enumerate(modules):
            assert isinstance(module.weight, Tensor)
            module.weight.copy_(0.5 * wave(*module.weight.shape, rate=0.7 + 0.1 * number))
            if isinstance(module.bias, Tensor):
                module.bias.zero_()


def expect(found: Tensor | None, wanted: list[float]) -> None:
    assert found is not None
    torch.testing.assert_close(found.flatten(), torch.tensor(wanted), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", ["maps", "vectors"])
def test_predsim(case: str) -> None:
    if case == "maps":
        f: nn.Sequential = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        x = wave(5, 2, 5, 5, rate=0.37)
    else:
        f = nn.Sequential(nn.Linear(6, 7), nn.BatchNorm1d(7), nn.ReLU())
        x = wave(5, 6, rate=0.37)
    part = Part("one", f, nn.Linear, x, f(x).detach())  # type: ignore[arg-type]
    layer = PredictionAndSimilarity(inputs=40).layers([part], 3)["one"]
    classifier, similarity = layer.heads["classifier"], layer.heads["similarity"]
    assert not classifier[-1].weight.any(), "it starts at zero"  # type: ignore[index]
    fill(f[0], classifier[-1], similarity[0])  # type: ignore[index]
    wanted = golden("predsim")[case]
    layer(x, LABELS)
    assert {name: loss.item() for name, loss in layer.losses().items()} == {
        "sim": pytest.approx(wanted["sim"], rel=1e-5),
        "pred": pytest.approx(wanted["pred"], rel=1e-5),
    }
    layer.backward()
    expect(f[0].weight.grad, wanted["gradients"]["encoder"])  # type: ignore[arg-type]
    expect(classifier[-1].weight.grad, wanted["gradients"]["classifier"])  # type: ignore[index]
    expect(similarity[0].weight.grad, wanted["gradients"]["similarity"])  # type: ignore[index]


def test_deinfo() -> None:
    projection = wave(5, 4, rate=0.37).requires_grad_()
    wanted = golden("deinfo")
    loss = torch.stack(list(information(projection, LABELS, 3).values())).sum()
    assert loss.item() == pytest.approx(wanted["loss"], rel=1e-5)
    loss.backward()
    expect(projection.grad, wanted["gradient"])


def test_infopro() -> None:
    features, image = wave(5, 16, 3, 3, rate=0.37).requires_grad_(), wave(5, 3, 6, 6, rate=0.53)
    classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3))
    decoder: Any = decoder_of(Part("one", nn.Identity(), nn.Linear, image, features.detach()), image, 8)  # type: ignore[arg-type]
    layer = InfoProLayer(
        nn.Identity(), classifier, decoder=decoder, reconstruction=5.0, classification=0.75, optimizer=torch.optim.SGD
    )
    fill(decoder[1], decoder[4], classifier[2])
    wanted = golden("infopro")
    losses = layer.local_losses(features, features, (LABELS, image, None))
    assert losses["reconstruction"].item() == pytest.approx(5.0 * wanted["reconstruction"], rel=1e-5)
    assert losses["ce"].item() == pytest.approx(0.75 * wanted["ce"], rel=1e-5)
    (losses["reconstruction"] + losses["ce"]).backward()
    expect(features.grad, wanted["gradients"]["features"])
    expect(decoder[4].weight.grad, wanted["gradients"]["decoder"])
    expect(classifier[2].weight.grad, wanted["gradients"]["classifier"])  # type: ignore[arg-type]
