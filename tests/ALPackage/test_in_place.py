"""In-place changes of what passes between layers: whoever makes them, in whichever mode, is named and refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ALPackage import AE, AL, ENC, ALStack, LocalLayer, StageError, make_schedule
from ALPackage.preflight import check_layers

WIDTH = 6


class Changing(nn.Module):
    """Changes its input in place, in one mode or the other, then applies a linear map."""

    def __init__(self, how: str = "always") -> None:
        super().__init__()
        self.how = how
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        if self.how in ("always", "training" if self.training else "evaluation"):
            x.relu_()
        elif self.how == "data":
            x.data.relu_()
        elif self.how == "numpy":
            x.detach().numpy()[:] = 1.0
        elif self.how == "large" and x.max() > 50:
            x.clamp_(max=50)
        return self.linear(x)


def layer(kind: type[AL] = AL, **parts: Any) -> AL:
    """Return a layer of equal widths with these parts in the place of linear maps."""
    f, b, g, h = (parts.get(name) or nn.Linear(WIDTH, WIDTH) for name in "fbgh")
    return kind(ENC(f, b, parts.get("enc")), AE(g, h, parts.get("ae")))


def batch(scale: float = 1.0) -> tuple[Tensor, Tensor]:
    return scale * torch.randn(5, WIDTH), scale * torch.randn(5, WIDTH)


def check(suspect: LocalLayer) -> None:
    stack = ALStack({"below": layer(), "suspect": suspect, "above": layer()})
    for concurrent in (False, True):
        check_layers(stack, batch(), concurrent=concurrent, seed=0)


@pytest.mark.parametrize("how", ["always", "training", "evaluation", "data", "numpy"])
@pytest.mark.parametrize(("function", "what"), [("f", "input"), ("b", "output"), ("g", "input"), ("h", "output")])
def test_a_function_that_changes_what_is_not_its_own_is_named(function: str, what: str, how: str) -> None:
    if how == "evaluation" and function in "gh":
        return  # neither is called with what another layer reads then
    with pytest.raises(ValueError, match=rf"layer 'suspect': {function} changes the layer's {what} in place") as caught:
        check(layer(**{function: Changing(how)}))
    assert "inplace=False" in str(caught.value)
    assert "\n" not in str(caught.value)


def halving(number: int) -> Any:
    """Return a criterion that halves one of its arguments in place."""

    def criterion(*arguments: Tensor) -> Tensor:
        with torch.no_grad():
            arguments[number].mul_(0.5)
        return F.mse_loss(*arguments)

    return criterion


@pytest.mark.parametrize(("side", "what"), [("enc", "output"), ("ae", "input")])
def test_a_criterion_that_changes_the_target_in_place_is_named(side: str, what: str) -> None:
    with pytest.raises(ValueError, match=f"the criterion of {side} changes the layer's {what} in place"):
        check(layer(**{side: halving(1)}))


def test_what_is_a_functions_own_may_be_changed() -> None:
    check(layer(enc=halving(0), ae=halving(0)))
    check(layer(f=nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(inplace=True))))
    hooked = nn.Linear(WIDTH, WIDTH)
    hooked.register_forward_hook(lambda _, __, out: out.relu_())
    check(layer(f=hooked, g=nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(inplace=True))))


def test_views_and_hooks_are_seen_through() -> None:
    with pytest.raises(ValueError, match="b changes the layer's input in place"):
        check(layer(f=nn.Identity(), b=Changing()))
    hooked = nn.Linear(WIDTH, WIDTH)
    hooked.register_forward_pre_hook(lambda _, given: given[0].data.relu_() and None)
    with pytest.raises(ValueError, match="b changes the layer's output in place"):
        check(layer(b=hooked))


def test_layers_of_other_kinds_are_held_to_the_same() -> None:
    class Old(AL):
        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            loss, code = self.ae(y)
            associated, hidden = self.enc(x, code.clone().detach())
            self.own = associated, loss
            return hidden.detach(), code.detach()

        def backward(self) -> None:
            sum(self.own).backward()  # type: ignore[union-attr]

        def loss(self) -> tuple[Tensor, ...]:
            return self.own

    class Local(LocalLayer):
        def __init__(self) -> None:
            super().__init__()
            self.f, self.head = nn.Linear(WIDTH, WIDTH), Changing("training")
            self.optimizer = torch.optim.SGD(self.parameters(), 0.1)

        def compute(self, x: Tensor, y: Tensor) -> Any:
            x = self.hidden(x)
            return x, y, {"loss": F.mse_loss(self.readout(x), y)}

        def hidden(self, x: Tensor) -> Any:
            return self.f(x)

        def readout(self, hidden: Tensor) -> Any:
            return self.head(hidden)

    with pytest.raises(ValueError, match="b changes the layer's output"):
        check(layer(kind=Old, b=Changing()))
    with pytest.raises(ValueError, match="readout changes the layer's output"):
        check(Local())


@pytest.mark.parametrize(
    ("function", "words"), [("f", "input x was"), ("g", "input y was"), ("b", "b or"), ("h", "h or")]
)
def test_a_change_on_a_later_batch_ends_the_run(function: str, words: str) -> None:
    """The check before training sees one batch; afterwards the tensors' versions are looked at."""
    stack = ALStack([layer(), layer(**{function: Changing("large")})])
    with (
        make_schedule("sequential", stack, threads=1) as schedule,
        pytest.raises(StageError, match=rf"layer 'layer_2' failed on batch 3: LayerError: .*{words}.*in place"),
    ):
        list(schedule.run([*(batch() for _ in range(3)), batch(1000.0)]))
