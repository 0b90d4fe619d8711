"""Local cross-entropy: the numbers of Decoupled Greedy Learning's own code, and the auxiliary networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ALPackage import ALStack
from ALPackage.objectives.by_name import make_objective
from ALPackage.objectives.local_classifier import ClassifierLayer, LocalClassifier
from ALPackage.objectives.part import Part
from ALPackage.ranks.averaging import refuse_inseparable

from .golden_values import golden, waves


def network() -> list[Part]:
    return [Part(name, nn.Linear(4, 4), lambda width: nn.Linear(4, width)) for name in ("one", "two")]


def averaged(x: Tensor, out: int) -> Tensor:
    return nn.functional.adaptive_avg_pool2d(x, (out, out))


class Auxiliary(nn.Module):
    """The auxiliary network "MLP-SR" of Decoupled Greedy Learning, for maps of `size` x `size` that it averages."""

    def __init__(self, channels: int, size: int, convolutions: int, hidden: int) -> None:
        super().__init__()
        self.size = size
        units = [nn.Conv2d(channels, channels, 1, bias=False) for _ in range(convolutions)]
        self.front = nn.Sequential(*(nn.Sequential(one, nn.BatchNorm2d(channels), nn.ReLU()) for one in units))
        wide = 4 * channels
        layers = [nn.Sequential(nn.Linear(wide, wide), nn.BatchNorm1d(wide), nn.ReLU()) for _ in range(hidden)]
        self.classifier = nn.Sequential(*layers, nn.Linear(wide, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.front(averaged(x, self.size))
        logits: Tensor = self.classifier(averaged(x, 2).flatten(1))
        return logits


def test_losses_and_gradients_are_those_of_decoupled_greedy_learning() -> None:
    expected = golden("dgl")
    first = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU())
    second = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    heads = Auxiliary(2, 2, 3, 3), Auxiliary(4, 1, 0, 2)
    stack = ALStack([ClassifierLayer(f, head) for f, head in zip((first, second), heads, strict=True)]).double()
    number = 0
    for module in [*nn.ModuleList([first, second]).modules(), *nn.ModuleList(heads).modules()]:
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            for parameter in module.parameters():
                parameter.data.copy_(0.8 * waves(*parameter.shape, number=number))
                number += 1
    stack(waves(12, 3, 8, 8), expected["labels"])
    stack.backward()
    assert [one["ce"].item() for one in stack.losses()] == pytest.approx(expected["losses"].tolist(), rel=1e-9)
    found = {
        "blocks.0.0.weight": first[0].weight.grad,
        "blocks.1.1.weight": second[1].weight.grad,
        "auxillary_nets.0.blocks.2.0.weight": heads[0].front[2][0].weight.grad,  # type: ignore[index]
        "auxillary_nets.0.classifier.9.weight": heads[0].classifier[-1].weight.grad,
        "auxillary_nets.1.classifier.6.weight": heads[1].classifier[-1].weight.grad,
    }
    for name, gradient in expected["gradients"].items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-7, atol=1e-9, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize(("depth", "widths"), [(1, [5]), (2, [7, 5]), (3, [7, 7, 5])])
def test_the_depth_is_the_number_of_linear_layers(depth: int, widths: list[int]) -> None:
    layers = LocalClassifier(depth=depth, code_dim=7).layers(network(), 5)
    for layer in layers.values():
        head = layer.heads["classifier"]
        assert [one.out_features for one in head.modules() if isinstance(one, nn.Linear)] == widths
        assert sum(isinstance(one, nn.ReLU) for one in head.modules()) == depth - 1


def test_replicas_may_divide_its_rows() -> None:
    """The mean of the losses of two halves is that of all rows."""
    layer = LocalClassifier().layers(network(), 3)["one"]
    refuse_inseparable([("one", layer)])
    x, labels = torch.randn(8, 4), torch.arange(8) % 3
    whole, *halves = (layer.compute(x[rows], labels[rows])[2]["ce"] for rows in (slice(8), slice(4), slice(4, 8)))
    torch.testing.assert_close(whole, sum(halves) / 2)


def test_label_smoothing_reaches_the_loss() -> None:
    torch.manual_seed(0)
    layer = LocalClassifier(label_smoothing=0.2).layers(network(), 3)["one"]
    x, labels = torch.randn(6, 4), torch.arange(6) % 3
    layer(x, labels)
    likelihoods = layer.readout(layer.hidden(x)).log_softmax(1)
    own = likelihoods[torch.arange(6), labels]
    torch.testing.assert_close(layer.losses()["ce"], -(0.8 * own + 0.2 * likelihoods.mean(1)).mean())


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("ce", {"depth": 0}, "depth: got 0; expected a whole number of at least 1, the bridge alone"),
        ("ce", {"code_dim": 0}, "code_dim: got 0"),
        ("ce", {"label_smoothing": 1.0}, "label_smoothing: got 1.0"),
        ("scl", {"temperature": 0.0}, "temperature: got 0.0"),
        ("scl", {"temperature": float("nan")}, "temperature: got nan"),
        ("scl", {"projector": "deep"}, "projector: got 'deep'; expected one of linear, mlp"),
        ("scl", {"label_smoothing": -0.1}, "label_smoothing: got -0.1"),
        ("scl", {"temperature": "2"}, "temperature: got '2'; expected a finite number > 0"),
        ("ce", {"depth": 1.5}, "depth: got 1.5; expected a whole number"),
        ("ce", {"depth": "2"}, "depth: got '2'; expected a whole number"),
        ("ce", {"depth": True}, "depth: got True; expected a whole number"),
        ("predsim", {"inputs": 1.5}, "inputs: got 1.5; expected a whole number of at least 1$"),
        ("predsim", {"beta": "1"}, "beta: got '1'; expected a number from 0 to 1"),
        ("deinfo", {"variance": [1.0]}, r"variance: got \[1.0\]; expected a finite number >= 0"),
        ("al", {"codes": "foo"}, "codes: got 'foo'; expected one of linear, tanh, sigmoid"),
        ("al", {"auto_encoder": "foo"}, "auto_encoder: got 'foo'; expected one of auto, mse"),
        ("al", {"association": "foo"}, "association: got 'foo'; expected one of mse, cosine, contrastive"),
        ("al", {"association": []}, r"association: got \[\]"),
        ("al", {"code_dim": 0}, "code_dim: got 0; expected a whole number of at least 1$"),
        ("al", {"temperature": 0}, "temperature: got 0; expected a finite number > 0"),
        ("al", {"label_smoothing": 1.0}, "label_smoothing: got 1.0"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_once(name: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_objective(name, **settings)


def test_settings_may_be_numbers_of_any_library() -> None:
    assert make_objective("ce", depth=np.int64(2), label_smoothing=np.float32(0.1))
    assert make_objective("scl", temperature=torch.tensor(0.5))
