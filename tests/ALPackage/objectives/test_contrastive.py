"""The contrastive loss against its authors' code and its formula, and a classifier that changes nothing else."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ALPackage.errors import UnfitLayersError
from ALPackage.objectives.by_name import make_objective
from ALPackage.objectives.contrastive import ContrastiveLayer, SupervisedContrastive, supervised_contrastive
from ALPackage.objectives.part import Part
from ALPackage.ranks.averaging import refuse_inseparable

from .golden_values import golden


def layer_of(projector: str = "linear", **settings: Any) -> ContrastiveLayer:
    torch.manual_seed(0)
    part = Part("one", nn.Sequential(nn.Linear(4, 6), nn.Tanh()), lambda width: nn.Linear(6, width))
    objective = SupervisedContrastive(projector=projector, code_dim=5, **settings)  # type: ignore[arg-type]
    return objective.layers([part], 3)["one"]


def slow(codes: Tensor, labels: list[int], temperature: float) -> float:
    """Return the loss sample by sample and pair by pair, from equation 2 of Khosla et al."""
    unit = [[value / math.hypot(*row) for value in row] for row in codes.tolist()]
    cosine = [[sum(map(lambda a, b: a * b, one, other)) for other in unit] for one in unit]
    total = 0.0
    for i in range(len(labels)):
        others = [a for a in range(len(labels)) if a != i]
        partners = [p for p in others if labels[p] == labels[i]]
        for p in partners:
            share = math.exp(cosine[i][p] / temperature) / sum(math.exp(cosine[i][a] / temperature) for a in others)
            total -= math.log(share) / len(partners)
    return total / len(labels)


@pytest.mark.parametrize("labels", [[0, 1, 0, 2, 1, 0, 3], [1] * 5, [0, 0, 1, 1], [2, 0]])
def test_the_loss_is_the_formula_s(labels: list[int]) -> None:
    codes = torch.randn(len(labels), 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = supervised_contrastive(codes, torch.tensor(labels), 0.3)
    assert found.item() == pytest.approx(slow(codes, labels, 0.3), rel=1e-12, abs=1e-15)


def test_loss_and_gradient_are_those_of_the_code_of_khosla_et_al() -> None:
    expected = golden("supcon")
    codes = expected["codes"].requires_grad_()
    loss = supervised_contrastive(codes, expected["labels"], expected["temperature"])
    loss.backward()
    assert loss.item() == pytest.approx(expected["loss"], rel=1e-12)
    torch.testing.assert_close(codes.grad, expected["gradient"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("projector", ["linear", "mlp"])
def test_losses_and_gradients_are_those_of_the_code_of_scpl(projector: str) -> None:
    """Its loss divides by the size of the class, ours by how many others it has: here 2, and 1."""
    expected = golden(f"scpl_{projector}")
    more = [nn.ReLU(), nn.Linear(4, 6)] if projector == "mlp" else []
    projects = nn.Sequential(nn.Linear(5, 4 if more else 6), *more)
    classifies = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))
    layer = ContrastiveLayer(nn.Identity(), projects, classifies, temperature=expected["temperature"]).double()
    named = [*projects.named_parameters("projector"), *classifies.named_parameters("classifier.layer")]
    for name, parameter in named:
        parameter.data.copy_(expected["weights"][name])
    x = expected["hidden"].requires_grad_()
    _, _, losses = layer.compute(x, expected["labels"])
    total = losses["scl"] / 2 + losses["probe"]
    total.backward()
    assert total.item() == pytest.approx(expected["loss"], rel=1e-12)
    torch.testing.assert_close(x.grad, expected["gradient"], rtol=1e-9, atol=1e-12)
    for name, parameter in named:
        torch.testing.assert_close(parameter.grad, expected["gradients"][name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("labels", [[0], [0, 1, 2, 3]])
def test_without_a_pair_of_one_class_loss_and_gradients_are_zero(labels: list[int]) -> None:
    codes = torch.randn(len(labels), 4, requires_grad=True)
    loss = supervised_contrastive(codes, torch.tensor(labels), 0.1)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(codes.grad, torch.zeros_like(codes))  # type: ignore[arg-type]


def test_the_classifier_changes_neither_f_nor_the_projector() -> None:
    layer = layer_of("mlp")
    x, labels = torch.randn(8, 4), torch.arange(8) % 3
    _, _, losses = layer.compute(x, labels)
    losses["probe"].backward(retain_graph=True)
    own = {id(parameter) for parameter in layer.heads["classifier"].parameters()}
    assert all((parameter.grad is not None) == (id(parameter) in own) for parameter in layer.parameters())
    layer.zero_grad()
    losses["scl"].backward()
    assert all((parameter.grad is None) == (id(parameter) in own) for parameter in layer.parameters())


def test_the_settings_reach_the_layer() -> None:
    layer = layer_of("mlp", temperature=0.7, label_smoothing=0.2)
    assert [one.out_features for one in layer.heads["projector"].modules() if isinstance(one, nn.Linear)] == [5, 5]
    x, labels = torch.randn(6, 4), torch.arange(6) % 3
    layer(x, labels)
    hidden = layer.hidden(x)
    codes = layer.heads["projector"](hidden)
    expected = nn.functional.cross_entropy(layer.readout(hidden), labels, label_smoothing=0.2)
    assert torch.equal(layer.losses()["probe"], expected)
    assert layer.losses()["scl"].item() == pytest.approx(slow(codes, labels.tolist(), 0.7), rel=1e-5)


def test_under_autocast_the_losses_are_of_full_precision() -> None:
    layer, twin = layer_of(), layer_of()
    x, labels = torch.randn(32, 4), torch.arange(32) % 3
    with torch.autocast("cpu", torch.bfloat16):
        layer(x, labels)
        codes = layer.heads["projector"](layer.hidden(x))
    assert codes.dtype == torch.bfloat16
    assert all(loss.dtype == torch.float32 for loss in layer.losses().values())
    expected = supervised_contrastive(codes.float(), labels, 0.1)
    assert torch.equal(layer.losses()["scl"], expected), "nothing behind the codes is in half precision"
    twin(x, labels)
    torch.testing.assert_close(layer.losses(), twin.losses(), rtol=0.05, atol=0.05)


class NoWaiting(TorchDispatchMode):
    """Refuses what makes the host wait for a GPU, or has a shape that depends on values: no CUDA graph can hold it."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(function)
        waits = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal.default", "unique")
        assert not any(one in name for one in waits), f"{name} needs a value on the host"
        if "index.Tensor" in name:
            assert all(index is None or index.dtype != torch.bool for index in args[1]), (
                f"{name} needs a mask on the host"
            )
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("objective", ["ce", "scl"])
def test_a_step_needs_no_value_on_the_host(objective: str) -> None:
    part = Part("one", nn.Linear(4, 6), lambda width: nn.Linear(6, width))
    layer = make_objective(objective).layers([part], 3, 1e-3, torch.optim.SGD)["one"]
    x, labels = torch.randn(8, 4), torch.arange(8) % 3
    with NoWaiting():
        layer(x, labels)
        layer.backward()
    with pytest.raises(AssertionError, match="on the host"), NoWaiting():
        x[x > 0].sum()


def test_replicas_are_refused() -> None:
    assert not layer_of().row_separable
    with pytest.raises(UnfitLayersError, match="loss of ContrastiveLayer compares the rows of a batch with one"):
        refuse_inseparable([("one", layer_of())])
