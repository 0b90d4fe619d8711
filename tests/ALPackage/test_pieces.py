"""A model that is no list is cut behind submodules that are named, and computes what it did."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ALPackage import make_schedule, to_al, to_bp
from ALPackage.convert import ConvertedStack
from ALPackage.network import read_network
from ALPackage.randomness import Dropout
from ALPackage.traced import Call

from .hooked import SEED, assert_equal, snapshot

CLASSES = 5


class Skips(nn.Module):
    """Connections over every cut, functions in place, dropout without a module, and a size that is read early."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.norm, self.d, self.fc = nn.BatchNorm2d(4), nn.Conv2d(8, 4, 1), nn.Linear(4, CLASSES)
        self.register_buffer("scale", torch.full((4, 1, 1), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        rows = x.shape[0]
        a = F.relu(self.a(x), inplace=True)
        b = F.relu_(self.norm(self.b(a))) * (2 * self.scale)
        c = F.dropout(self.c(b).relu_(), 0.3, self.training) + a
        d = self.d(torch.cat([c, a], 1))
        d += b
        return self.fc(F.adaptive_avg_pool2d(d, 1).view(rows, -1))  # type: ignore[no-any-return]


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.top = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 8)
        self.rows, self.act, self.unused = nn.ModuleList([nn.Linear(8, CLASSES)]), nn.ReLU(), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        together = self.act(self.left(x)) + self.act(self.right(x))
        return self.rows[0](self.top(together))  # type: ignore[no-any-return]


class Words(nn.Module):
    """Takes two things, and hands on a mask; recurrent, so that a module returns a tuple of tuples."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.first = nn.Embedding(9, 6), nn.LSTM(6, 8, batch_first=True)
        self.second, self.out = nn.LSTM(8, 8, batch_first=True), nn.Linear(8, CLASSES)

    def forward(self, ids: Tensor, lengths: Tensor, extra: Tensor | None = None) -> Tensor:
        real = (torch.arange(5)[None] < lengths[:, None]).float()[..., None]
        if extra is not None:
            return extra
        hidden, _ = self.first(self.embed(ids))
        hidden, (_, _) = self.second(hidden * real)
        return self.out((hidden * real).sum(1) / real.sum(1))  # type: ignore[no-any-return]


class Pooling(nn.Module):
    """What a head has before its linear map is a function, whose argument reads a size."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.utils.parametrizations.weight_norm(nn.Linear(4, CLASSES))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.pool(self.norm(self.body(x)))
        return {"logits": F.log_softmax(self.fc(x.view(x.size(0), -1)), 1)}


class Depends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.b(x if x.sum() > 0 else -x)  # type: ignore[no-any-return]


class Headed(Depends):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(self.head(x)))  # type: ignore[no-any-return]


class TrainedOtherwise(Depends):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.b(2 * x if self.training else x)  # type: ignore[no-any-return]


class Drawing(Depends):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x) + torch.randn(6))  # type: ignore[no-any-return]


class Changing(Depends):
    """What is changed in place has another name, under which it is read."""

    def forward(self, x: Tensor) -> Tensor:
        x = kept = self.a(x)
        x += 1
        return self.b(x + kept)  # type: ignore[no-any-return]


def vision(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import torchvision.models

        made: nn.Module = getattr(torchvision.models, name)(num_classes=CLASSES)
        return made

    return make


def of_timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import timm

        made: nn.Module = timm.create_model(name, num_classes=CLASSES, **options)
        return made

    return make


def small_vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(
        image_size=8, patch_size=4, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=CLASSES
    )


def images(side: int, channels: int = 3) -> Tensor:
    return torch.randn(3, channels, side, side)


def words() -> tuple[Tensor, Tensor]:
    return torch.randint(9, (3, 5)), torch.tensor([2, 5, 3])


SKIPS = ("a", "norm", "c")
#: By name: the model, the cuts, an input, and what is in the head.
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...], Any, list[str]]] = {
    "resnet18": (vision("resnet18"), ("layer1", "layer2.0", "layer3", "layer4"), images(16), ["avgpool", "fc"]),
    "inside a block": (vision("resnet18"), ("layer1.0.conv1", "layer2"), images(16), ["avgpool", "fc"]),
    "mobilenet": (vision("mobilenet_v2"), ("features.4", "features.18"), images(32), ["classifier"]),
    "vit": (small_vit, ("encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_1"), images(8), ["heads"]),
    "timm": (
        of_timm("convnext_atto", drop_rate=0.1),
        ("stem", "stages.1", "stages.3"),
        images(32),
        ["norm_pre", "head"],
    ),
    "skips": (Skips, SKIPS, images(6, 1), ["fc"]),
    "branches": (Branches, ("right", "top"), torch.randn(3, 6), ["rows"]),
    "nested": (vision("resnet18"), ("layer1.0", "layer1", "layer2"), images(16), ["avgpool", "fc"]),
    "pooling": (Pooling, ("body",), images(6, 1), ["pool", "fc"]),
    "words": (Words, ("embed", "first"), words(), ["out"]),
    "words by key": (Words, ("first", "second"), dict(zip(("ids", "lengths"), words(), strict=True)), ["out"]),
}


@pytest.mark.parametrize("name", MODELS)
def test_both_forms_compute_what_the_model_does(name: str) -> None:
    torch.manual_seed(0)
    make, cuts, example, head = MODELS[name]
    net = make()
    before = [(key, value.clone()) for key, value in net.state_dict().items()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bp = to_bp(net, CLASSES, example=example, cuts=cuts)
        stack = to_al(net, CLASSES, example=example, cuts=cuts)
    after = net.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before)
    assert len(after) == len(before)
    assert net.training
    with torch.no_grad():
        expected = Call(net.eval(), example)(example)
        assert torch.equal(bp.eval()(example), expected["logits"] if name == "pooling" else expected)
        exported = stack.eval().export().eval()
        assert torch.equal(exported(example), stack.inference(example))
    names = [one.replace(".", "_") for one in cuts]
    assert [block for blocks in stack.network.blocks.values() for block in blocks][: len(cuts)] == names
    assert [one for one, _ in bp[-1].named_children()] == head
    counts = [sum(one.numel() for one in model.parameters()) for model in (bp, net)]
    assert counts[0] == counts[1] or name == "branches", "one of its modules is never called"


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(CLASSES, (count, 16), generator=draw)
    noise = torch.randn(count, 16, 1, 6, 6, generator=draw)
    rows = 3 * torch.eye(CLASSES, 6)[labels]
    return list(zip(noise + rows[:, :, None, :, None], labels, strict=True))


def skips(**options: Any) -> ConvertedStack:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return to_al(Skips(), CLASSES, example=batches(1)[0][0], cuts=SKIPS, lr=0.01, **options)


def test_all_schedules_give_the_same_numbers_and_it_learns() -> None:
    data = batches(20)
    states = []
    for schedule in ("sequential", "al-fm", "continuous"):
        stack = skips()
        with make_schedule(schedule, stack, threads=1, seed=SEED) as one:
            assert len(list(one.run(data))) == 20
        states.append(snapshot(stack))
    assert_equal(states[0], states[1])
    assert_equal(states[0], states[2])
    with make_schedule("sequential", stack, threads=1, seed=SEED) as one:
        for epoch in range(1, 8):
            list(one.run(data, first=epoch * 20))
    stack.eval()
    assert pickle.loads(pickle.dumps(stack.export()))(data[0][0]).shape == (16, CLASSES)
    right = sum(int((stack.inference(x).argmax(1) == y).sum()) for x, y in data)
    assert right > 0.6 * 20 * 16, f"{right} of 320"
    exported = stack.export().eval()
    with torch.no_grad():
        assert torch.equal(exported(data[0][0]), stack.inference(data[0][0]))


def test_what_passes_a_cut_travels_along_and_only_as_far_as_it_is_read() -> None:
    stack = skips()
    shapes = [[tuple(one.shape) for one in out] for out in stack.network.outputs.values() if isinstance(out, tuple)]
    maps = (16, 4, 6, 6)
    # Beside what norm returns, a; beside what c returns, a and b. The input, whose size is read late, stays behind.
    assert shapes == [[maps, maps], [maps, maps, maps]]


def test_dropout_without_a_module_becomes_one_of_its_layer() -> None:
    found = [[type(one) for one in layer.modules() if isinstance(one, Dropout)] for layer in skips()]
    assert [len(one) for one in found] == [0, 0, 0, 1]
    with pytest.warns(UserWarning, match=r"to_al: relu, relu_, relu_ in the forward of the model: made out of place"):
        to_al(Skips(), CLASSES, example=images(6, 1), cuts=SKIPS)


def test_layers_join_pieces_and_the_model_may_be_given_away() -> None:
    net = Skips()
    stack = to_al(net, CLASSES, example=images(6, 1), cuts=SKIPS, layers=2, copy=False)
    assert len(stack) == 2
    weights = {id(one) for one in stack.parameters()}
    assert id(net.b.weight) in weights
    assert id(net.fc.weight) not in weights


def test_what_ends_in_no_linear_map_is_taken_for_the_head_as_a_whole() -> None:
    class Cosine(Depends):
        def forward(self, x: Tensor) -> Tensor:
            return F.linear(F.normalize(self.a(x)), F.normalize(self.b.weight))

    x = torch.randn(3, 6)
    net = Cosine()
    network = read_network(net, CLASSES, x, cuts=("a",))
    assert list(network.layers) == ["a"]
    assert network.notes[0].startswith("what follows 'a' is taken for the head")
    bp = to_bp(net, CLASSES, example=x, cuts=("a",))
    assert torch.equal(bp(x), net(x))


class Ends(nn.Module):
    """Ends as it is told to."""

    def __init__(self, end: Callable[[Tensor], Tensor] | None) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)
        self.soft, self.end = nn.Softmax(1), end

    def forward(self, x: Tensor) -> Any:
        logits = self.fc(F.relu(self.b(F.relu(self.a(x)))))
        return self.soft(logits) if self.end is None else self.end(logits)


@pytest.mark.parametrize(
    "end", [None, lambda x: x.softmax(1), lambda x: F.softmax(x, dim=1), lambda x: torch.softmax(x, dim=-1)]
)
def test_a_softmax_at_the_end_of_the_forward_is_left_out_of_the_head(end: Any) -> None:
    net, x = Ends(end), torch.randn(3, 6)
    network = read_network(net, CLASSES, x, cuts=("a", "b"))
    assert list(network.layers) == ["a", "b-behind_b"]
    assert [note.partition(" is left")[0] for note in network.notes] == ["the softmax at the end"]
    bp = to_bp(net, CLASSES, example=x, cuts=("a", "b"))
    torch.testing.assert_close(bp(x), net.fc(F.relu(net.b(F.relu(net.a(x))))))
    torch.testing.assert_close(net(x).sum(1), torch.ones(3))  # the user's own is as it was


def test_a_last_map_to_another_number_of_classes_is_said() -> None:
    """Guards a bug: of a model with a head of its own, its logits became features of the last layer without a word."""
    network = read_network(Ends(lambda x: x), CLASSES + 1, torch.randn(2, 6), cuts=("a", "b"))
    assert list(network.layers) == ["a", "b", "behind_b"]
    assert network.notes[0].startswith(f"behind_b: ends in a linear map, but to {CLASSES} and not to {CLASSES + 1}")
    assert read_network(Ends(lambda x: x), CLASSES, torch.randn(2, 6), cuts=("a", "b")).notes == ()
    net = Ends(lambda x: x)
    net.fc = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 9))  # type: ignore[assignment]
    assert "to 9 and not to" in read_network(net, CLASSES, torch.randn(2, 6), cuts=("a", "b")).notes[0]


def test_a_model_that_is_wrapped_is_asked_for_without() -> None:
    wrapped = nn.DataParallel(Branches())
    with pytest.raises(ValueError, match=r"cuts: DataParallel holds the model within: give model\.module in its"):
        to_al(wrapped, CLASSES, example=torch.randn(3, 6), cuts=("top",))
    with pytest.raises(ValueError, match=r"cuts: OptimizedModule holds the model within: give model\._orig_mod"):
        to_al(torch.compile(Branches()), CLASSES, example=torch.randn(3, 6), cuts=("top",))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "cuts", "words"),
    [
        (
            Depends,
            ("a",),
            r"the forward of Depends cannot be traced \(test_pieces\.py, line \d+\): TraceError: .*; give its blocks",
        ),
        (TrainedOtherwise, ("a",), "TrainedOtherwise's forward computes something else in training mode"),
        (Drawing, ("a",), "Drawing's forward draws random numbers between its modules"),
        (Changing, ("a",), "the pieces of Changing do not compute what it does"),
        (Branches, ("lefft",), "Branches has no submodule 'lefft'; did you mean 'left'"),
        (Branches, ("zzz",), "Branches has no submodule 'zzz'; its submodules are left, right, top"),
        (Branches, ("top", "left"), r"the model calls them in another order; give them as \('left', 'top'\)"),
        (Branches, ("left", "right"), "'right' is not computed from what 'left' returns: they are branches side"),
        (Branches, ("act",), "'act' is called 2 times"),
        (Branches, ("unused",), "'unused' is not called in the forward of the model; name one that is called"),
        (Branches, ("rows",), "'rows' is not called in the forward of the model; name a part of it, such as 'rows.0'"),
        (Headed, ("head", "a"), "no block can be called 'head'"),
        (Branches, ("top", "rows.0"), "'rows.0' belongs to the head"),
        (Branches, ("top", "top"), "a name stands twice"),
        (Branches, (), "got none"),
        (Branches, "top", "got 'top'; expected names of submodules"),
        (Branches, (3,), r"got \(3,\); expected names of submodules"),
    ],
)
def test_what_cannot_be_cut_is_refused_in_one_line(make: Callable[[], nn.Module], cuts: Any, words: str) -> None:
    state = torch.get_rng_state()
    net = make()
    with pytest.raises(ValueError, match=rf"^cuts: {words}") as error:
        to_al(net, CLASSES, example=torch.randn(3, 6), cuts=cuts)
    assert "\n" not in str(error.value)
    assert net.training
    torch.set_rng_state(state)


def test_cuts_are_for_a_model_and_the_example_has_to_fit_it() -> None:
    with pytest.raises(TypeError, match=r"^cuts: they are for a model, but blocks is an object of type list"):
        to_al([nn.Linear(6, 6)], CLASSES, example=torch.randn(3, 6), cuts=("a",))
    with pytest.raises(ValueError, match=r"^example: Branches does not take it"):
        to_al(Branches(), CLASSES, example=torch.randn(3, 7), cuts=("top",))
    with pytest.raises(TypeError, match=r"name those after which it is cut, such as cuts=\('layer1', 'layer2'\)"):
        to_al(Branches(), CLASSES, example=torch.randn(3, 6))
