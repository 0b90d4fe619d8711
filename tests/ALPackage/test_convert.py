"""Anybody's network as a stack: it trains alike under every schedule, learns, and is given back."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import chain
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ALPackage import AE, AL, ENC, make_schedule, to_al, to_bp
from ALPackage.convert import ConvertedStack
from ALPackage.testing import run_distributed

from .hooked import SEED, assert_equal, snapshot

CLASSES = 3


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 32), nn.Dropout(0.2), nn.ReLU(), nn.Linear(32, 3))


def cnn() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES)),
    )


class Attending(nn.Module):
    """A Transformer's layer that takes and returns tokens, by keyword with their padding mask."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)

    def forward(self, src: Tensor, src_key_padding_mask: Tensor) -> Any:
        return self.layer(src, src_key_padding_mask=src_key_padding_mask)


def vectors(n: int = 12) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(CLASSES, (n, 16), generator=draw)
    means = 2 * torch.eye(CLASSES, 6)
    return [(means[one] + torch.randn(16, 6, generator=draw), one) for one in labels]


def images(n: int = 12) -> list[tuple[Tensor, Tensor]]:
    return [(x[:, None, :, None].expand(-1, 1, 6, 6).contiguous(), y) for x, y in vectors(n)]


def tokens(n: int = 12) -> list[tuple[Any, Tensor]]:
    padding = torch.zeros(16, 5, dtype=torch.bool)
    padding[::2, 3:] = True
    return [
        ({"src": torch.nn.functional.pad(x, (0, 2))[:, None].repeat(1, 5, 1), "src_key_padding_mask": padding}, y)
        for x, y in vectors(n)
    ]


CASES: dict[str, tuple[Callable[[], Any], Callable[..., list[Any]]]] = {
    "mlp": (mlp, vectors),
    "cnn": (cnn, images),
    "tokens": (lambda: [Attending(), Attending()], tokens),
}


def stack_of(case: str, **options: Any) -> ConvertedStack:
    torch.manual_seed(0)
    make, data = CASES[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return to_al(make(), CLASSES, example=data(1)[0][0], lr=0.01, **options)


AL_OPTIONS: list[dict[str, Any]] = [{}, {"layers": 1}, {"association": "mse", "codes": "tanh"}]
LEARNERS: list[tuple[str, dict[str, Any]]] = [
    *((case, {"objective": "al", **options}) for case in CASES for options in AL_OPTIONS),
    ("tokens", {"objective": "ce", "depth": 2}),
    ("cnn", {"objective": "scl", "projector": "mlp"}),
]


@pytest.mark.parametrize(("case", "options"), LEARNERS)
def test_all_schedules_give_the_same_numbers_and_it_learns(case: str, options: dict[str, Any]) -> None:
    data = CASES[case][1]
    states = []
    for schedule in ("sequential", "al-fm", "continuous"):
        stack = stack_of(case, **options)
        with make_schedule(schedule, stack, threads=1, seed=SEED) as one:
            assert len(list(one.run(data(20)))) == 20
        states.append(snapshot(stack))
    for other in states[1:]:
        assert_equal(states[0], other)
    stack = stack_of(case, **options)
    with make_schedule("sequential", stack, threads=1, seed=SEED) as one:
        for _ in range(8):
            list(one.run(data(12)))
    stack.eval()
    for depth in range(1, len(stack) + 1):
        right = sum(int((stack.inference(x, depth).argmax(1) == y).sum()) for x, y in data(12))
        assert right > 0.6 * 12 * 16, f"depth {depth}: far better than one in three"


@pytest.mark.parametrize("case", CASES)
def test_the_exported_network_predicts_what_the_stack_does(case: str) -> None:
    stack, data = stack_of(case), CASES[case][1](2)
    with make_schedule("sequential", stack, threads=1) as one:
        list(one.run(data))
    stack.eval()
    network = stack.export().eval()
    assert list(dict(network.named_children()))[-1] == "head"
    with torch.no_grad():
        assert torch.equal(network(data[0][0]), stack.inference(data[0][0]))
    before = snapshot(stack)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert_equal(before, snapshot(stack))


@pytest.mark.parametrize("objective", ["al", "ce"])
def test_a_layer_that_is_added_is_exported_with_the_others(objective: str) -> None:
    stack = stack_of("mlp", objective=objective)
    more = to_al([nn.Linear(32, 8)], CLASSES, example=torch.randn(2, 32), objective=objective)[0]
    if objective == "al":  # its target is the code of the layer before it
        more = AL(ENC(more.enc.f, nn.Linear(8, 4)), AE(nn.Linear(128, 4), nn.Linear(4, 128)))
    with pytest.raises(ValueError, match="append: 'block_2' is the name of a block of the network; give another name"):
        stack.append(more, "block_2")
    with pytest.raises(ValueError, match="append: 'head' is the name"):
        stack.append(more, "head")
    stack.append(more)
    stack.eval()
    network = stack.export().eval()
    assert list(dict(network.named_children())) == [*chain(*stack.network.blocks.values()), "layer_3", "head"]
    x = torch.randn(4, 6)
    with torch.no_grad():
        assert torch.equal(network(x), stack.inference(x))


def test_both_forms_start_from_the_weights_of_the_network() -> None:
    net = mlp()
    stack, bp = to_al(net, CLASSES, example=torch.randn(2, 6)), to_bp(net, CLASSES, example=torch.randn(2, 6))
    expected = [net[0].weight, net[2].weight]
    assert all(map(torch.equal, expected, [layer.enc.f[0].weight for layer in stack]))  # type: ignore[union-attr,operator,index]
    assert torch.equal(bp[-1][-1].weight, net[5].weight)  # type: ignore[index]
    x = torch.randn(4, 6)
    with torch.no_grad():
        assert torch.equal(bp.eval()(x), net.eval()(x))


def test_a_network_without_a_head_gets_one_for_bp() -> None:
    bp = to_bp([Attending()], CLASSES, example=tokens(1)[0][0])
    assert bp(tokens(1)[0][0]).shape == (16, CLASSES)


def test_frozen_weights_stay_and_have_no_moments() -> None:
    net = mlp()
    net[0].requires_grad_(False)
    stack = to_al(net, CLASSES, example=torch.randn(2, 6), lr=0.1)
    with make_schedule("sequential", stack, threads=1) as one:
        list(one.run(vectors(3)))
    first = stack[0].enc.f[0]  # type: ignore[union-attr,operator,index]
    assert torch.equal(first.weight, net[0].weight)
    assert first.weight not in stack[0].optimizer.state
    assert not torch.equal(stack[1].enc.f[0].weight, net[2].weight)  # type: ignore[union-attr,operator,index]


def test_weight_norm_and_shared_weights() -> None:
    net = [nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)), nn.Linear(6, 6)]
    stack = to_al(net, CLASSES, example=torch.randn(2, 6))
    with make_schedule("sequential", stack, threads=1) as one:
        list(one.run(vectors(2)))
    shared = nn.Linear(6, 6)
    with pytest.raises(ValueError, match="share"):
        to_al([shared, nn.Sequential(nn.ReLU(), shared)], CLASSES, example=torch.randn(2, 6))


@pytest.mark.parametrize("norm", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm])
@pytest.mark.parametrize("copy", [True, False])
def test_both_kinds_of_weight_norm_train_in_a_layer_and_a_head_and_are_given_back(
    norm: Callable[[nn.Module], nn.Module], copy: bool
) -> None:
    x = vectors(1)[0][0]
    for head in ([norm(nn.Linear(6, CLASSES))], [nn.Sequential(nn.Dropout(0.1), norm(nn.Linear(6, CLASSES)))]):
        net = nn.Sequential(norm(nn.Linear(6, 6)), nn.ReLU(), *head)
        before = snapshot_of(net)
        bp = to_bp(net, CLASSES, example=x, copy=copy)
        assert list(dict(bp.named_children())) == ["block_1-block_2", "head"]
        with torch.no_grad():
            assert torch.equal(bp.eval()(x), net.eval()(x))
        stack = to_al(net.train(), CLASSES, example=x, copy=copy)
        assert stack.names == ["block_1-block_2"]
        with make_schedule("continuous", stack, threads=1) as one:
            list(one.run(vectors(3)))
        exported = stack.eval().export().eval()
        with torch.no_grad():
            assert torch.equal(exported(x), stack.inference(x))
        assert all(torch.equal(one, net.state_dict()[key]) for key, one in before.items()) == copy


def snapshot_of(net: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in net.state_dict().items()}


def test_whole_numbers_may_be_numpy_s() -> None:
    numpy = pytest.importorskip("numpy")
    x = torch.randn(2, 6)
    stack = to_al(mlp(), numpy.int64(CLASSES), example=x, layers=numpy.int32(1))
    assert stack.names == ["block_1-block_5"]
    stack = to_al(mlp(), torch.tensor(CLASSES), example=x, layers=[numpy.int64(2), numpy.int64(3)])  # type: ignore[arg-type]
    assert stack.names == ["block_1-block_2", "block_3-block_5"]
    with pytest.raises(ValueError, match="n_classes: got True"):
        to_al(mlp(), True, example=x)
    with pytest.raises(ValueError, match=r"layers: got True; expected a whole number"):
        to_al(mlp(), CLASSES, example=x, layers=True)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_layers_are_as_precise_as_the_network(kind: torch.dtype) -> None:
    stack = to_al(mlp().to(kind), CLASSES, example=torch.randn(2, 6).to(kind))
    with make_schedule("sequential", stack, threads=1) as one:
        list(one.run([(x.to(kind), y) for x, y in vectors(2)]))
    assert {parameter.dtype for parameter in stack.parameters()} == {kind}


def test_a_network_of_one_dimensional_convolutions() -> None:
    net = nn.Sequential(nn.Conv1d(2, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, CLASSES))
    stack = to_al(net, CLASSES, example=torch.randn(2, 2, 9))
    assert stack.inference(torch.randn(4, 2, 9)).shape == (4, CLASSES)
    assert any(isinstance(one, nn.Unflatten) for one in stack[0].modules())


def _over_ranks() -> list[Tensor] | None:
    stack = stack_of("cnn")
    with make_schedule("distributed", stack, threads=1, seed=SEED) as one:
        if not one.leads:  # type: ignore[attr-defined]
            one.serve()  # type: ignore[attr-defined]
            return None
        list(one.run(images(8)))
        stack.eval()
        return [by_depth[-1] for by_depth in one.predict([x for x, _ in images(2)])]


def test_over_processes_the_numbers_are_those_of_one() -> None:
    """Guards a bug: initial weights differed in their last bits with the number of intra-op threads."""
    found = run_distributed(_over_ranks, 2)[0]
    stack = stack_of("cnn")
    with make_schedule("sequential", stack, threads=1, seed=SEED) as one:
        list(one.run(images(8)))
        stack.eval()
        expected = [by_depth[-1] for by_depth in one.predict([x for x, _ in images(2)])]
    assert len(expected) == 2
    assert all(map(torch.equal, found, expected))


def test_what_is_changed_is_said() -> None:
    with pytest.warns(UserWarning, match="to_al: block_3: made out of place"):
        to_al(cnn(), CLASSES, example=images(1)[0][0])


@pytest.fixture(autouse=True)
def same_start() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"objective": "scp"}, ValueError, "objective: got 'scp'; did you mean 'scl'?"),
        ({"objective": "bp"}, ValueError, "objective: got 'bp'; expected one of al, ce"),
        ({"n_classes": 1}, ValueError, "n_classes: got 1"),
        ({"temprature": 1.0}, TypeError, "'temprature' is no setting; 'al' has association, temperature"),
        ({"bridge": "deep"}, ValueError, "layer 'block_1-block_2': bridge: got 'deep'"),
        ({"bridge": lambda output, width: None}, TypeError, "layer 'block_1-block_2': bridge= returned an .* NoneType"),
        (
            {"bridge": lambda output, width: torch.relu},
            TypeError,
            "layer 'block_1-block_2': bridge= returned an .* buil",
        ),
        ({"lr": -1.0}, ValueError, "learning rate"),
        (
            {"example": torch.zeros(1, 6)},
            ValueError,
            r"example: got float32 \(1, 6\), which is one sample; give two or more",
        ),
    ],
)
def test_mistakes_are_told(options: dict[str, Any], error: type[Exception], words: str) -> None:
    arguments = {"n_classes": CLASSES, "example": torch.randn(2, 6), **options}
    with pytest.raises(error, match=words):
        to_al(mlp(), **arguments)


def test_there_is_no_bridge_for_what_has_no_features() -> None:
    class Counts(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum(1).long()

    with pytest.raises(ValueError, match=r"layer 'block_1': there is no bridge for an output with torch\.int64"):
        to_al([Counts()], CLASSES, example=torch.randn(2, 6))
