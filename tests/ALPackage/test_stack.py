"""The stack: names, inference at any depth against the path by hand, and what two layers may not share."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from ALPackage import AE, AL, ENC, ALStack, Snapshot, make_schedule
from ALPackage.objectives.local_classifier import ClassifierLayer
from ALPackage.randomness import Dropout


def layer(x: int, hidden: int, y: int, code: int, **parts: nn.Module) -> AL:
    """Return a layer of linear maps, of which `parts` replaces some (f, b, g, h)."""
    f = parts.get("f") or nn.Sequential(nn.Linear(x, hidden), nn.Tanh())
    b = parts.get("b") or nn.Linear(hidden, code)
    g = parts.get("g") or nn.Linear(y, code)
    h = parts.get("h") or nn.Linear(code, y)
    return AL(ENC(f, b), AE(g, h))


def three() -> ALStack:
    """Return a stack whose three layers all have other widths."""
    return ALStack([layer(6, 5, 3, 4), layer(5, 7, 4, 2), layer(7, 4, 2, 8)])


def test_layers_are_named_by_number_or_by_their_owner() -> None:
    assert three().names == ["layer_1", "layer_2", "layer_3"]
    named = ALStack({"stem": layer(6, 5, 3, 4), "top": layer(5, 7, 4, 2)})
    assert named.names == ["stem", "top"]
    assert [name for name, _ in named.items()] == ["stem", "top"]
    assert len(named) == 2
    assert next(iter(named)) is named[0]
    assert named[-1] is named.layers["top"]
    assert any(key.startswith("layers.stem.enc.f.") for key in named.state_dict())


def test_layers_may_come_from_a_generator() -> None:
    assert len(ALStack(layer(3, 3, 2, 2) for _ in range(4))) == 4


@pytest.mark.parametrize("nothing", [[], {}])
def test_an_empty_stack_is_refused(nothing: Any) -> None:
    with pytest.raises(ValueError, match="no layers"):
        ALStack(nothing)


def test_forward_and_the_layer_by_layer_calls() -> None:
    torch.manual_seed(1)
    stack = three()
    torch.manual_seed(1)
    twin = three()
    x, y = torch.randn(7, 6), torch.randn(7, 3)
    stack.set_lr(0.05)
    out = stack(x, y)
    stack.backward()
    stack.update()
    losses = []
    hidden, code = x, y
    for one in twin:
        one.set_lr(0.05)
        hidden, code = one(hidden, code)
        losses.append(one.losses())
        one.backward_and_update()
    assert torch.equal(out[0], hidden)
    assert torch.equal(out[1], code)
    assert stack.losses() == losses
    assert all(torch.equal(a, b) for a, b in zip(stack.parameters(), twin.parameters(), strict=True))


def test_backward_and_update_is_both() -> None:
    stack = three()
    before = [p.detach().clone() for p in stack.parameters()]
    stack(torch.randn(7, 6), torch.randn(7, 3))
    stack.backward_and_update()
    assert not any(torch.equal(a, b) for a, b in zip(stack.parameters(), before, strict=True))


def test_set_lr_reaches_every_layer() -> None:
    stack = three()
    stack.set_lr({"ae": 0.25})
    assert [[g["lr"] for g in one.optimizer.param_groups] for one in stack] == [[1e-3, 0.25]] * 3


def test_a_target_turns_labels_into_y0() -> None:
    stack = ALStack([layer(6, 5, 3, 4)], target=lambda labels: nn.functional.one_hot(labels, 3).float())
    _, code = stack(torch.randn(2, 6), torch.tensor([2, 0]))
    with torch.no_grad():
        expected = stack[0].ae.g(torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]))
    assert torch.equal(code, expected)


# --- inference ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_inference_is_the_path_by_hand(depth: int) -> None:
    stack, x = three(), torch.randn(7, 6)
    parts: list[Any] = list(stack)
    with torch.no_grad():
        z = x
        for number in range(depth):
            z = parts[number].enc.f(z)
        z = parts[depth - 1].enc.b(z)
        for number in reversed(range(depth)):
            z = parts[number].ae.h(z)
    got = stack.inference(x, depth)
    assert got.shape == (7, 3)
    assert torch.equal(got, z)
    assert torch.equal(stack.inference_by_depth(x)[depth - 1], z)
    if depth == 3:
        assert torch.equal(stack.inference(x), z)


def test_inference_by_depth_runs_every_f_once() -> None:
    calls: list[int] = []
    stack = three()
    for number, one in enumerate(stack):
        one.enc.f.register_forward_hook(lambda *_, number=number: calls.append(number))
    assert len(stack.inference_by_depth(torch.randn(7, 6))) == 3
    assert calls == [0, 1, 2]


@pytest.mark.parametrize("depth", [0, -1, 4])
def test_a_depth_out_of_range_says_the_range(depth: int) -> None:
    with pytest.raises(ValueError, match=f"depth={depth}.*1 to 3"):
        three().inference(torch.randn(7, 6), depth)


def test_inference_leaves_no_graph_and_nothing_in_flight() -> None:
    stack, x = three(), torch.randn(7, 6, requires_grad=True)
    assert not stack.inference(x).requires_grad
    assert not any(out.requires_grad for out in stack.inference_by_depth(x))
    stack(torch.randn(7, 6), torch.randn(7, 3))
    stack.inference(x)
    stack.backward_and_update()


def test_inference_takes_nested_inputs() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 5)

        def forward(self, x: dict[str, Tensor]) -> Tensor:
            return self.linear(x["tokens"]) * x["mask"]  # type: ignore[no-any-return]

    stack = ALStack([layer(6, 5, 3, 4, f=Masked()), layer(5, 7, 4, 2)])
    assert stack.inference({"tokens": torch.randn(7, 6), "mask": torch.ones(7, 1)}).shape == (7, 3)


# --- what layers may not share --------------------------------------------------------------------------------------


def test_a_shared_parameter_is_refused_and_both_layers_are_named() -> None:
    shared = nn.Linear(5, 5)
    with pytest.raises(ValueError, match=r"'below' and 'above' share.*weight") as caught:
        ALStack(
            {
                "below": layer(5, 5, 3, 4, f=shared),
                "middle": layer(5, 5, 4, 4),
                "above": layer(5, 5, 4, 4, f=nn.Sequential(nn.Tanh(), shared)),
            }
        )
    assert "middle" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tied_weights_and_a_layer_given_twice_are_refused() -> None:
    one, two = nn.Linear(5, 5), nn.Linear(5, 5)
    two.weight = one.weight
    with pytest.raises(ValueError, match="share"):
        ALStack([layer(5, 5, 3, 4, f=one), layer(5, 5, 4, 4, f=two)])
    again = layer(5, 5, 4, 4)
    with pytest.raises(ValueError, match="'layer_1' and 'layer_2' are the same layer"):
        ALStack([again, again])


def test_a_shared_buffer_is_refused() -> None:
    """Two layers that train at once would both write these running statistics, in an order that timing decides."""
    norm = nn.BatchNorm1d(5, affine=False)
    with pytest.raises(ValueError, match=r"'layer_1' and 'layer_2' share.*running_mean"):
        ALStack(
            [
                layer(6, 5, 3, 4, f=nn.Sequential(nn.Linear(6, 5), norm)),
                layer(5, 5, 4, 4, f=nn.Sequential(nn.Linear(5, 5), norm)),
            ]
        )


def test_a_shared_dropout_is_refused() -> None:
    """It holds one stream: two layers that train at once would draw from it in an order that timing decides."""
    drop = Dropout(0.5)
    with pytest.raises(ValueError, match="'layer_1' and 'layer_2' share"):
        ALStack(
            [
                layer(6, 5, 3, 4, f=nn.Sequential(nn.Linear(6, 5), drop)),
                layer(5, 5, 4, 4, f=nn.Sequential(nn.Linear(5, 5), drop)),
            ]
        )


@pytest.mark.parametrize("kind", ["parameter", "buffer", "slice"])
def test_memory_shared_under_two_names_is_refused_and_both_are_named(kind: str) -> None:
    """Guards a bug: only the objects were compared, and two Parameters over one memory passed."""
    one, two = nn.Linear(5, 5), nn.Linear(5, 5)
    if kind == "parameter":
        two.weight = nn.Parameter(one.weight.data)
    elif kind == "slice":
        two.bias = nn.Parameter(one.weight.data[0])
    else:
        one.register_buffer("mean", torch.zeros(5))
        two.register_buffer("average", one.mean[:3])  # type: ignore[index]
    its, other = {"parameter": ("weight", "weight"), "slice": ("weight", "bias"), "buffer": ("mean", "average")}[kind]
    match = rf"'below' and 'above' share 'enc\.f\.{its}' of the one and 'enc\.f\.{other}' of the other"
    with pytest.raises(ValueError, match=match) as caught:
        ALStack({"below": layer(5, 5, 3, 4, f=one), "above": layer(5, 5, 4, 4, f=two)})
    assert "\n" not in str(caught.value)


def test_what_has_no_memory_shares_none() -> None:
    def one(y: int) -> AL:
        f = nn.Linear(5, 5)
        f.register_buffer("empty", torch.empty(0))
        f.register_buffer("sparse", torch.eye(2).to_sparse())
        return layer(5, 5, y, 4, f=f)

    assert len(ALStack([one(3), one(4)])) == 2
    assert len(ALStack([one(3).to("meta"), one(4).to("meta")])) == 2


@pytest.mark.parametrize(
    ("wrong", "kind", "remedy"),
    [
        (nn.Linear(5, 5), "of type Linear", r"AL\(ENC\(f, b\), AE\(g, h\)\)"),
        (nn.DataParallel(layer(5, 5, 3, 4)), "of type DataParallel", r"give the layer inside it, its \.module"),
        (torch.compile(layer(5, 5, 3, 4), backend="eager"), "of type OptimizedModule", "compile its functions instead"),
        (ALStack([layer(5, 5, 3, 4)]), "of type ALStack", r"\[\*stack\]"),
        (AL, "the class AL", r"make a layer of it: AL\(..\)"),
        ("layer", "of type str", "AL"),
    ],
)
def test_what_has_no_local_losses_is_refused_with_the_remedy(wrong: Any, kind: str, remedy: str) -> None:
    with pytest.raises(TypeError, match=rf"layer 'layer_2' \(index 1\) is {kind}.*{remedy}") as caught:
        ALStack([layer(5, 5, 3, 4), wrong])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [None, 3, layer(5, 5, 3, 4)])
def test_what_is_no_list_of_layers_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=rf"got an object of type {type(wrong).__name__}; give a list of layers"):
        ALStack(wrong)


def test_containers_of_torch_are_taken_and_names_that_torch_refuses_are_explained() -> None:
    assert ALStack(nn.ModuleDict({"a": layer(5, 5, 3, 4), "b": layer(5, 5, 4, 4)})).names == ["a", "b"]
    assert len(ALStack(nn.Sequential(layer(5, 5, 3, 4), layer(5, 5, 4, 4)))) == 2  # type: ignore[arg-type]
    for name in ("a.b", "", "items", 1):
        with pytest.raises(ValueError, match=f"a layer cannot have the name {name!r} .*use letters"):
            ALStack({name: layer(5, 5, 3, 4)})  # type: ignore[dict-item]


@pytest.mark.parametrize("make", [torch.Generator, random.Random, lambda: np.random.default_rng(0)])
def test_a_random_generator_that_two_layers_hold_is_refused(make: Any) -> None:
    """Guards a bug: whichever layer drew first got the first numbers."""
    one, two = nn.Linear(5, 5), nn.Linear(5, 5)
    one.draws = two.source = make()  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"share 'enc\.f\.draws' of the one and 'enc\.f\.source' of the other"):
        ALStack([layer(5, 5, 3, 4, f=one), layer(5, 5, 4, 4, f=two)])


def test_modules_without_state_may_be_shared_and_parameters_within_a_layer_too() -> None:
    act = nn.ReLU()
    assert len(ALStack([layer(5, 5, 3, 4, f=nn.Sequential(nn.Linear(5, 5), act)) for _ in range(2)])) == 2
    tied = nn.Linear(5, 5)
    assert len(ALStack([layer(5, 5, 3, 5, f=nn.Sequential(tied, nn.Tanh(), tied), b=nn.Linear(5, 5))])) == 1


def test_a_stack_can_be_pickled() -> None:
    one = three()
    again = pickle.loads(pickle.dumps(one))
    x = torch.randn(4, 6)
    assert torch.equal(again.inference(x), one.inference(x))


def trained() -> tuple[ALStack, Snapshot]:
    """Return a stack of two layers that has trained, and its state."""
    stack, taken = ALStack([layer(6, 5, 3, 4), layer(5, 7, 4, 2)]), Snapshot()
    batches = [(torch.randn(4, 6), torch.randn(4, 3)) for _ in range(3)]
    with make_schedule("sequential", stack, threads=1) as schedule:
        list(schedule.run([*batches, taken]))
    return stack, taken


def test_a_layer_that_is_added_leaves_the_others_as_they_are() -> None:
    stack, taken = trained()
    x = torch.randn(4, 6)
    before = stack.inference_by_depth(x)
    stack.append(layer(7, 4, 2, 8))
    assert stack.names == ["layer_1", "layer_2", "layer_3"]
    assert all(map(torch.equal, stack.inference_by_depth(x)[:2], before))
    after = Snapshot()
    with make_schedule("continuous", stack, threads=1) as schedule:
        list(schedule.run([after]))
    for name, state in taken.state.items():
        pairs = zip(tree_leaves(after.state[name]), tree_leaves(state), strict=True)
        assert all(torch.equal(one, two) if isinstance(one, Tensor) else one == two for one, two in pairs)


def test_what_cannot_be_added_is_refused_and_changes_nothing() -> None:
    stack = three()
    tied = layer(4, 4, 8, 8)
    tied.enc.f[0].weight = stack[2].ae.h.weight  # type: ignore[index, union-attr]
    for wrong, name, error, words in (
        (layer(4, 4, 8, 8), "layer_2", ValueError, "there is a layer 'layer_2' already; give another name"),
        (layer(4, 4, 8, 8), "a.b", ValueError, "a layer cannot have the name 'a.b'"),
        (stack[1], None, ValueError, "'layer_2' and 'layer_4' are the same layer"),
        (tied, None, ValueError, "layers 'layer_3' and 'layer_4' share"),
        (nn.Linear(4, 4), None, TypeError, "of type Linear, which has no local losses"),
    ):
        with pytest.raises(error, match=words):
            stack.append(wrong, name)  # type: ignore[arg-type]
    assert stack.names == ["layer_1", "layer_2", "layer_3"]
    stack.append(layer(4, 4, 8, 8), "top")
    assert stack.names[-1] == "top"


def test_the_first_layers_of_a_larger_stack_are_those_of_a_smaller_one() -> None:
    small, taken = trained()
    larger = three()
    last, rates = copy.deepcopy(larger[2].state_dict()), [group["lr"] for group in larger[0].optimizer.param_groups]
    assert larger.load(taken.state) == ["layer_3"]
    x = torch.randn(4, 6)
    assert all(map(torch.equal, larger.inference_by_depth(x), small.inference_by_depth(x)))
    for own, other in zip(larger, small, strict=False):
        moments = [tree_leaves(one.optimizer.state_dict()["state"]) for one in (own, other)]
        assert len(moments[0]) > 8
        assert all(map(torch.equal, *moments))
    assert all(torch.equal(last[name], value) for name, value in larger[2].state_dict().items())
    assert [group["lr"] for group in larger[0].optimizer.param_groups] == rates


def test_a_state_that_does_not_fit_is_refused_before_anything_is_loaded() -> None:
    _, taken = trained()
    wider = ALStack([layer(6, 5, 3, 4), layer(5, 8, 4, 2)])
    before = copy.deepcopy(wider.state_dict())
    words = r"the state of layer 'layer_2' does not fit it: enc\.f\.0\.weight is of shape \(7, 5\) in the state and"
    with pytest.raises(ValueError, match=words):
        wider.load(taken.state)
    with pytest.raises(ValueError, match=r"there is no layer 'layer_2'; the layers are layer_1$"):
        ALStack([layer(6, 5, 3, 4)]).load(taken.state)
    assert all(torch.equal(before[name], value) for name, value in wider.state_dict().items())


def saved_by(optimizer: Callable[..., Optimizer], *, frozen: bool = False) -> tuple[ALStack, dict[str, Any]]:
    """Return a stack of one layer, and the state of another one that has taken a step with this optimizer."""

    def make(optimizer: Callable[..., Optimizer], frozen: bool) -> ALStack:
        f = nn.Linear(6, 5)
        f.weight.requires_grad_(not frozen)
        return ALStack([ClassifierLayer(f, nn.Linear(5, 3), 0.1, optimizer)])

    stack, taken = make(optimizer, frozen), Snapshot()
    with make_schedule("sequential", stack, threads=1) as schedule:
        list(schedule.run([(torch.randn(4, 6), torch.tensor([0, 1, 2, 0])), taken]))
    return make(torch.optim.Adam, False), taken.state


@pytest.mark.parametrize(
    ("optimizer", "frozen", "words"),
    [
        (partial(torch.optim.SGD, momentum=0.9), False, "those of f.weight are momentum_buffer, but Adam keeps step,"),
        (partial(torch.optim.Adam, amsgrad=True), False, "max_exp_avg_sq, but Adam keeps step, exp_avg, exp_avg_sq;"),
        (torch.optim.Adam, True, "which holds 4 parameters: they are of one with 3, as if others were frozen;"),
    ],
)
def test_moments_of_another_optimizer_are_refused_before_anything_is_loaded(
    optimizer: Callable[..., Optimizer], frozen: bool, words: str
) -> None:
    stack, state = saved_by(optimizer, frozen=frozen)
    before = copy.deepcopy(stack.state_dict())
    with pytest.raises(ValueError, match=f"the moments of layer 'layer_1' do not fit .*{words}.*leave .optimizer. out"):
        stack.load(state)
    assert all(torch.equal(before[name], value) for name, value in stack.state_dict().items())
    stack.load({"layer_1": {"layer": state["layer_1"]["layer"]}})  # as the message says
    assert all(torch.equal(state["layer_1"]["layer"][name], value) for name, value in stack[0].state_dict().items())
    assert not stack[0].optimizer.state


def test_moments_of_another_shape_are_refused_and_what_has_none_is_loaded() -> None:
    stack, state = saved_by(torch.optim.Adam)
    moments = state["layer_1"]["optimizer"]["state"]
    moments[0], moments[2] = moments[2], moments[0]
    with pytest.raises(ValueError, match=r"exp_avg of f\.weight is of shape \(3, 5\) in the state, and of \(5, 6\) in"):
        stack.load(state)
    stack, state = saved_by(torch.optim.SGD)  # without momentum
    assert stack.load(state) == []


def test_moments_in_the_shape_of_no_parameter_are_loaded() -> None:
    """Rows and columns, as Adafactor keeps them."""
    stack, state = saved_by(torch.optim.Adafactor)
    stack[0].optimizer = torch.optim.Adafactor(stack[0].parameters())
    stack.load(state)
    assert len(stack[0].optimizer.state) == 4
