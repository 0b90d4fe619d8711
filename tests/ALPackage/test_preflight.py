"""The checks before training: what is refused or warned of, on which grounds, and that nothing is left changed."""

from __future__ import annotations

import copy
import random
import threading
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ALPackage import AE, AL, ENC, ALStack, Guard, StageError, draws, make_schedule, replace_dropout
from ALPackage.errors import LayerError
from ALPackage.layer import LocalLayer
from ALPackage.objectives.association import Association, Reconstruction
from ALPackage.objectives.codes import OnCodes, OneHot
from ALPackage.preflight import check_layers
from ALPackage.randomness import Dropout, SliceDropout

from .hooked import snapshot

WIDTH = 8


class Call(nn.Module):
    """A linear map followed by a function of (output, training)."""

    def __init__(self, function: Callable[[Tensor, bool], Tensor] = lambda out, _: out) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.linear(x), self.training)


def layer(f: nn.Module | None = None, enc: type[ENC] = ENC, ae: type[AE] = AE, kind: type[AL] = AL) -> AL:
    """Return a layer of equal widths throughout."""
    maps = [nn.Linear(WIDTH, WIDTH) for _ in range(4)]
    return kind(enc(f or maps[0], maps[1]), ae(maps[2], maps[3]), 0.01)


def check(stack: ALStack | AL, concurrent: bool = True, batch: Any = None, **options: Any) -> None:
    stack = stack if isinstance(stack, ALStack) else ALStack({"below": layer(), "suspect": stack, "above": layer()})
    check_layers(
        stack, batch or (torch.randn(5, WIDTH), torch.randn(5, WIDTH)), concurrent=concurrent, seed=3, **options
    )


@pytest.fixture(autouse=True)
def _no_warnings() -> Any:
    """Let a warning that no test expects fail it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# --- training and inference agree -----------------------------------------------------------------------------------


class ResidualENC(ENC):
    """Trains with a residual that inference does not have."""

    def forward(self, x: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.f(x) + x
        return self.cri(self.b(hidden), code), hidden


class ResidualBridge(ENC):
    """The same at the bridge, which only the loss shows."""

    def forward(self, x: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.f(x)
        return self.cri(self.b(hidden) + hidden, code), hidden


class HalfENC(ENC):
    """Calls the base class, and hands on half of what it returns."""

    def forward(self, x: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        loss, hidden = super().forward(x, code)
        return loss, hidden / 2


class ScaledEncoder(AE):
    """Hands on another code than `encode` returns."""

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        code = 2 * self.g(y)
        return self.cri(self.h(code), y), code


class ResidualDecoder(AE):
    """Decodes with a residual that inference does not have."""

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        code = self.g(y)
        return self.cri(self.h(code) + code, y), code


@pytest.mark.parametrize("concurrent", [True, False])
@pytest.mark.parametrize(
    ("suspect", "names"),
    [
        (layer(enc=ResidualENC), "ResidualENC.forward and ResidualENC.hidden disagree.*override hidden"),
        (layer(enc=HalfENC), "HalfENC.forward and HalfENC.hidden disagree"),
        (layer(enc=ResidualBridge), "ResidualBridge.forward and ResidualBridge.bridge disagree.*override bridge"),
        (layer(ae=ScaledEncoder), "ScaledEncoder.forward and ScaledEncoder.encode disagree"),
        (layer(ae=ResidualDecoder), "ResidualDecoder.forward and ResidualDecoder.decode disagree.*override decode"),
    ],
    ids=lambda value: type(value.enc).__name__ + type(value.ae).__name__ if isinstance(value, AL) else "",
)
def test_a_layer_whose_training_and_inference_disagree_is_refused_with_both_names(
    suspect: AL, names: str, concurrent: bool
) -> None:
    with pytest.raises(ValueError, match=f"layer 'suspect': {names}") as caught:
        check(copy.deepcopy(suspect), concurrent)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_same_residual_in_hidden_is_accepted_and_both_use_it() -> None:
    class Right(ENC):
        def hidden(self, x: Tensor) -> Tensor:
            return self.f(x) + x  # type: ignore[no-any-return]

    one = layer(enc=Right)
    check(one)
    x = torch.randn(5, WIDTH)
    handed_on, _ = one(x, torch.randn(5, WIDTH))
    assert torch.equal(handed_on, one.inference(x, "f"))
    assert torch.equal(handed_on, ALStack([one]).layers["layer_1"].hidden(x))  # type: ignore[operator]


def test_every_function_of_the_layer_is_used_by_training_and_by_inference() -> None:
    class NoisyENC(ENC):
        def hidden(self, x: Tensor) -> Tensor:
            return 2 * super().hidden(x)  # type: ignore[no-any-return]

        def bridge(self, hidden: Tensor) -> Tensor:
            return super().bridge(hidden) + 1  # type: ignore[no-any-return]

    class NoisyAE(AE):
        def encode(self, y: Tensor) -> Tensor:
            return 3 * super().encode(y)  # type: ignore[no-any-return]

        def decode(self, code: Tensor) -> Tensor:
            return super().decode(code) - 1  # type: ignore[no-any-return]

    one, plain = layer(enc=NoisyENC, ae=NoisyAE), layer()
    plain.load_state_dict(one.state_dict())
    check(one)
    x, y = torch.randn(5, WIDTH), torch.randn(5, WIDTH)
    with torch.no_grad():
        hidden, code = one(x, y)
        f, b, g, h = plain.enc.f, plain.enc.b, plain.ae.g, plain.ae.h
        assert torch.equal(hidden, 2 * f(x))
        assert torch.equal(code, 3 * g(y))
        assert torch.equal(one.losses()["assoc"], F.mse_loss(b(hidden) + 1, code))
        assert torch.equal(one.losses()["ae"], F.mse_loss(h(code) - 1, y))
        assert torch.equal(ALStack([one]).inference(x), h(b(2 * f(x)) + 1) - 1)


def test_a_custom_layer_is_held_to_the_same() -> None:
    class Local(LocalLayer):
        def __init__(self, extra: int) -> None:
            super().__init__()
            self.f, self.head, self.extra = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), extra
            self.optimizer = torch.optim.SGD(self.parameters(), lr=0.1)

        def compute(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
            hidden = self.f(x) + self.extra
            return hidden, y, {"loss": F.mse_loss(self.head(hidden), y)}

        def hidden(self, x: Tensor) -> Tensor:
            return self.f(x)  # type: ignore[no-any-return]

        def readout(self, hidden: Tensor) -> Tensor:
            return self.head(hidden)  # type: ignore[no-any-return]

    check(ALStack([Local(0), Local(0)]))
    with pytest.raises(ValueError, match=r"layer 'layer_2': Local\.forward and Local\.hidden disagree"):
        check(ALStack([Local(0), Local(1)]))


HOOKS: dict[str, Callable[[AL], Any]] = {
    "enc's output": lambda one: one.enc.register_forward_hook(lambda _, __, out: (out[0], out[1] * 2)),
    "enc's output, in place": lambda one: one.enc.register_forward_hook(lambda _, __, out: (out[0], out[1].mul_(2))),
    "ae's input": lambda one: one.ae.register_forward_pre_hook(lambda _, given: (given[0] * 2,)),
    "the layer's output": lambda one: one.register_forward_hook(lambda _, __, out: (out[0] * 2, out[1])),
    "the layer's input": lambda one: one.register_forward_pre_hook(lambda _, given: (given[0] * 2, given[1])),
}


@pytest.mark.parametrize("kind", HOOKS)
def test_a_hook_that_acts_in_training_alone_is_refused(kind: str) -> None:
    one = layer()
    HOOKS[kind](one)
    with pytest.raises(ValueError, match=r"layer 'suspect': \w+\.forward and .* disagree.*put it on f, b, g or h"):
        check(one)


def test_hooks_that_only_look_or_that_inference_calls_too_are_accepted() -> None:
    one, seen = layer(), []
    for module in (one, one.enc, one.ae):
        module.register_forward_hook(lambda _, __, out: seen.append(out))
    one.enc.f.register_forward_hook(lambda _, __, out: out * 2)
    check(one)
    assert seen


def test_a_target_that_changes_the_labels_in_place_is_refused() -> None:
    """Guards a bug: every epoch would train on other labels."""
    one = ALStack([layer()], target=lambda y: y.mul_(0.5))
    with pytest.raises(ValueError, match="the stack's target changes in place"):
        check(one)
    check(ALStack([layer()], target=lambda y: y))


def test_a_bridge_that_changes_the_layers_output_in_place_is_refused() -> None:
    """Training hands on what the bridge has changed, inference what it has not."""
    one = layer()
    one.enc.b = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(WIDTH, WIDTH))
    with pytest.raises(ValueError, match=r"layer 'suspect': b changes the layer's output in place.*inplace=False"):
        check(one)


# --- the earlier protocol: warned of --------------------------------------------------------------------------------


class EmbeddingENC(ENC):
    """Takes token numbers as floats and pools over the positions."""

    def forward(self, x: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.f(x.long())
        return self.cri(self.b(hidden.mean(1)), code), hidden


class PoolingENC(ENC):
    """Pools over the positions before the bridge."""

    def forward(self, x: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.f(x)
        return self.cri(self.b(hidden.mean(1)), code), hidden


class ClassAE(AE):
    """Has cross-entropy of its own against the class number."""

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        code = self.g(y)
        return F.cross_entropy(self.h(code), y.argmax(1)), code


class Whole(AL):
    """Replaces `forward` and `backward`, takes tuples and keeps its own losses."""

    def forward(self, x: Any, y: Tensor) -> tuple[Any, Tensor]:
        hidden, code = self.enc.f(x[0]), self.ae.g(y)
        self.own = [F.mse_loss(self.enc.b(hidden), code.detach()), F.mse_loss(self.ae.h(code), y)]
        return (hidden.detach(), x[1]), code.detach()

    def backward(self) -> None:
        for loss in self.own:
            loss.backward()

    def loss(self) -> tuple[Tensor, ...]:
        return tuple(loss.detach() for loss in self.own)


TOKENS = (torch.randint(9, (5, 4)).float(), torch.randn(5, WIDTH))
SEQUENCES = (torch.randn(5, 4, WIDTH), torch.randn(5, WIDTH))
TUPLES = ((torch.randn(5, WIDTH), torch.ones(5)), torch.randn(5, WIDTH))
ONE_HOT = (torch.randn(5, WIDTH), torch.eye(WIDTH)[:5])


@pytest.mark.parametrize("concurrent", [True, False])
@pytest.mark.parametrize(
    ("make", "batch", "reason"),
    [
        (lambda: layer(nn.Embedding(9, WIDTH), enc=EmbeddingENC), TOKENS, "hidden raises"),
        (lambda: layer(enc=PoolingENC), SEQUENCES, r"PoolingENC\.forward and PoolingENC\.bridge disagree"),
        (lambda: layer(ae=ClassAE), ONE_HOT, r"ClassAE\.forward has a loss of its own"),
        (lambda: layer(kind=Whole), TUPLES, "hidden raises"),
    ],
    ids=["x.long()", "pooled", "cross-entropy", "tuples"],
)
def test_a_subclass_in_the_earlier_protocol_gets_one_warning(
    make: Callable[[], AL], batch: Any, reason: str, concurrent: bool
) -> None:
    with pytest.warns(UserWarning, match=rf"'old' \({reason}") as caught:
        check(ALStack({"old": make()}), concurrent, batch)
    assert len(caught) == 1
    assert "override hidden, bridge, encode and decode" in str(caught[0].message)


def test_one_warning_names_all_layers() -> None:
    with pytest.warns(UserWarning, match=r"'a' .*'c' ") as caught:
        check(ALStack({"a": layer(ae=ClassAE), "b": layer(), "c": layer(ae=ClassAE)}), batch=ONE_HOT)
    assert len(caught) == 1
    assert "'b'" not in str(caught[0].message)


def test_a_criterion_of_ones_own_is_no_reason_for_a_warning() -> None:
    class ThirdAE(AE):
        def loss(self, decoded: Tensor, y: Tensor) -> Tensor:
            return 3 * super().loss(decoded, y)

    class SameENC(ENC):
        def forward(self, x: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
            hidden = self.f(x)
            return 5 * self.cri(self.b(hidden), code), hidden

    one = layer(enc=SameENC, ae=ThirdAE)
    check(one)
    enc = SameENC(one.enc.f, one.enc.b, lambda bridged, code: (bridged - code).abs().mean())
    check(AL(enc, one.ae))


def test_layers_over_class_codes_are_compared_too() -> None:
    class ResidualOnCodes(ENC):
        def forward(self, x: Tensor, code: Any) -> tuple[Tensor, Tensor]:
            hidden = self.f(x)
            return self.cri(2 * self.b(hidden), code), hidden

    def over_codes(kind: type[ENC]) -> ALStack:
        enc = kind(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 4), Association())
        ae = AE(OnCodes(nn.Linear(3, 4)), OnCodes(nn.Linear(4, 3)), Reconstruction("classes"))
        return ALStack([AL(enc, ae)], target=OneHot(3))

    batch = (torch.randn(5, WIDTH), torch.tensor([0, 1, 2, 0, 1]))
    check(over_codes(ENC), batch=batch)
    with pytest.raises(ValueError, match=r"ResidualOnCodes\.forward and ResidualOnCodes\.bridge disagree"):
        check(over_codes(ResidualOnCodes), batch=batch)


# --- draws from process-wide generators -----------------------------------------------------------------------------

DRAWING: dict[str, Callable[[], nn.Module]] = {
    "F.dropout": lambda: Call(lambda out, training: F.dropout(out, 0.5, training)),
    "rand_like": lambda: Call(lambda out, _: out + torch.rand_like(out)),
    "Python's random": lambda: Call(lambda out, _: out * random.random()),
    "NumPy's random": lambda: Call(lambda out, _: out * float(np.random.rand())),
    "nn.Dropout": lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.1)),
    "AlphaDropout": lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.AlphaDropout(0.1)),
    "RReLU": lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.RReLU()),
    "StochasticDepth": lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), torchvision.ops.StochasticDepth(0.5, "row")),
    "Transformer": lambda: nn.TransformerEncoderLayer(WIDTH, 2, 8, 0.1, batch_first=True),
    "scaled_dot_product_attention": lambda: Call(
        lambda out, training: F.scaled_dot_product_attention(*[out[None]] * 3, dropout_p=0.1 * training)[0]
    ),
    "LSTM": lambda: Output(nn.LSTM(WIDTH, WIDTH, num_layers=2, dropout=0.1)),
    "only attention": lambda: only_attention_drops(0.1),
}


class Output(nn.Module):
    """The outputs of an RNN, without its states."""

    def __init__(self, rnn: nn.RNNBase) -> None:
        super().__init__()
        self.rnn = rnn

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0]  # type: ignore[no-any-return]


def only_attention_drops(rate: float) -> nn.Module:
    """Return a transformer layer that drops out inside its attention alone."""
    one = nn.TransformerEncoderLayer(WIDTH, 2, 8, 0.0, batch_first=True)
    one.self_attn.dropout = rate
    return one


@pytest.mark.parametrize("kind", DRAWING)
def test_a_layer_that_draws_from_a_process_wide_generator_is_refused_where_layers_train_at_once(kind: str) -> None:
    one = layer(DRAWING[kind]())
    batch = (torch.randn(5, WIDTH), torch.randn(5, WIDTH))
    with pytest.raises(
        ValueError, match=r"layer 'suspect': enc\.f.* draws from a process-wide random generator"
    ) as caught:
        check(copy.deepcopy(one), batch=batch)
    assert "\n" not in str(caught.value)
    assert "ALPackage.randomness.replace_dropout(model)" in str(caught.value)
    assert 'schedule="sequential"' in str(caught.value)
    check(copy.deepcopy(one), concurrent=False, batch=batch)
    if kind not in ("rand_like", "Python's random", "NumPy's random"):  # these draw in any mode
        check(copy.deepcopy(one).eval(), batch=batch)  # does not draw as it is trained


@pytest.mark.parametrize(
    ("kind", "culprit"),
    [
        ("F.dropout", r"enc\.f \(Call\)"),
        ("nn.Dropout", r"enc\.f\.1 \(Dropout\)"),
        ("StochasticDepth", r"enc\.f\.1 \(StochasticDepth\)"),
        ("only attention", r"enc\.f\.self_attn \(MultiheadAttention\)"),
    ],
)
def test_the_module_that_draws_is_named(kind: str, culprit: str) -> None:
    with pytest.raises(ValueError, match=culprit):
        check(layer(DRAWING[kind]()), batch=(torch.randn(5, 3, WIDTH), torch.randn(5, 3, WIDTH)))


@pytest.mark.parametrize("part", ["loss", "update", "compute"])
def test_a_draw_outside_every_module_names_what_is_known(part: str) -> None:
    class Drawing(AL):
        def compute(self, x: Tensor, y: Tensor) -> Any:
            noise = torch.rand(()) if part == "compute" and self.training else 0.0
            return super().compute(x + noise, y)

        def update(self) -> None:
            if part == "update":
                torch.rand(())
            super().update()

    one = layer(kind=Drawing)
    if part == "loss":
        enc = ENC(one.enc.f, one.enc.b, lambda bridged, code: F.mse_loss(bridged, code) + torch.rand(()))
        one = Drawing(enc, one.ae)
    named = {"loss": r"enc \(ENC\)", "update": "its backward pass or update", "compute": "Drawing"}[part]
    with pytest.raises(ValueError, match=f"layer 'suspect': {named} draws"):
        check(one)


def forked(out: Tensor, training: bool) -> Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return out + torch.rand(WIDTH)


def seeded(out: Tensor, training: bool) -> Tensor:
    torch.manual_seed(3)
    return out + torch.rand(WIDTH)


def recomputed(out: Tensor, training: bool, **options: Any) -> Tensor:
    return checkpoint(torch.tanh, out, use_reentrant=False, **options)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (forked, r"torch\.manual_seed sets a process-wide random generator"),
        (seeded, "process-wide random generator"),
        (recomputed, r"torch\.utils\.checkpoint sets .*preserve_rng_state=False keeps it from that"),
    ],
)
def test_what_sets_a_process_wide_generator_is_refused(function: Any, words: str) -> None:
    """Guards a bug: the states before and after are the same, and a loader's draws in between were taken back."""
    functions = torch.manual_seed, torch.set_rng_state, torch.random.set_rng_state
    with pytest.raises(ValueError, match=f"layer 'suspect': .*{words}"):
        check(layer(Call(function)))
    check(layer(Call(function)), concurrent=False)
    check(layer(Call(partial(recomputed, preserve_rng_state=False))))
    assert functions == (torch.manual_seed, torch.set_rng_state, torch.random.set_rng_state)


def test_a_gradient_hook_that_draws_is_found() -> None:
    one = layer()
    one.enc.f.weight.register_hook(lambda gradient: gradient + torch.randn_like(gradient))
    with pytest.raises(ValueError, match="its backward pass or update draws"):
        check(one)


@pytest.mark.parametrize("function", ["f", "b", "g", "h"])
def test_a_function_that_no_loss_reaches_is_warned_of(function: str) -> None:
    """Guards a bug: a function under no_grad kept its weights, without a word."""

    class Cut(nn.Linear):
        @torch.no_grad()
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)

    maps = {name: nn.Linear(WIDTH, WIDTH) for name in "fbgh"}
    maps[function] = Cut(WIDTH, WIDTH)
    one = AL(ENC(maps["f"], maps["b"]), AE(maps["g"], maps["h"]))
    if function in "bh":  # then the loss has no graph at all
        with pytest.raises(LayerError, match="has no graph"):
            one(torch.randn(5, WIDTH), torch.randn(5, WIDTH))
        return
    with pytest.warns(UserWarning, match=f"no loss has a gradient to {function} of 'suspect' on the first batch"):
        check(one)
    maps[function].requires_grad_(False)
    check(AL(ENC(maps["f"], maps["b"]), AE(maps["g"], maps["h"])))


def test_what_draws_nothing_or_from_its_own_stream_is_accepted() -> None:
    for f in (
        nn.Sequential(nn.Linear(WIDTH, WIDTH), Dropout(0.5), SliceDropout(0.5, 1)),
        nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.0)),
        Call(lambda out, training: F.dropout(out, 0.0, training)),
        nn.TransformerEncoderLayer(WIDTH, 2, 8, 0.0, batch_first=True),
        replace_dropout(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.5))),
        replace_dropout(DRAWING["StochasticDepth"]()),
        nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.5).eval()),
    ):
        check(layer(f))


def test_a_draw_by_another_thread_is_no_reason_to_refuse() -> None:
    """A loader's thread may draw while a layer is being checked: only a draw that repeats is the layer's."""
    calls = iter([torch.rand, *[torch.zeros] * 9])
    check(layer(Call(lambda out, training: out + 0 * next(calls)(()) if training else out)))


def test_an_rnns_dropout_on_a_gpu_is_known_by_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a GPU shows it: cuDNN draws once per process and advances a state that no generator shows."""

    dropping, single = nn.Sequential(nn.LSTM(2, 2, num_layers=2, dropout=0.1)), nn.Sequential(nn.LSTM(2, 2))
    assert draws._unseen_source(dropping) is None, "on the CPU the generator shows it"
    weights = [type("Weight", (), {"is_cuda": True})()]
    monkeypatch.setattr(nn.LSTM, "parameters", lambda self: iter(weights))
    assert draws._unseen_source(dropping) == "0 (LSTM)"
    assert draws._unseen_source(single) is None
    assert draws._unseen_source(dropping.eval()) is None


# --- nothing is changed ---------------------------------------------------------------------------------------------


def noticing() -> ALStack:
    """Return a stack with all that a step changes, after two steps and with a batch in flight."""

    def one() -> AL:
        f = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.Tanh(), Dropout(0.2))
        return layer(f)

    torch.manual_seed(1)
    stack = ALStack([one(), one(), layer(ae=ClassAE)])
    stack[0].guard = Guard()
    for _ in range(2):
        stack(torch.randn(5, WIDTH), torch.randn(5, WIDTH))
        stack.backward_and_update()
    return stack


@pytest.mark.filterwarnings("ignore:training and inference")
@pytest.mark.parametrize("concurrent", [True, False])
def test_stack_batch_and_generators_are_as_before(concurrent: bool) -> None:
    stack, twin = noticing(), noticing()
    before = snapshot(stack)
    batch = (torch.randn(5, WIDTH), torch.randn(5, WIDTH))
    values, versions = [part.clone() for part in batch], [part._version for part in batch]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[union-attr]
    modes = [module.training for module in stack.modules()]
    losses = stack.losses()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(stack, concurrent, batch)
    assert snapshot(stack).keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in snapshot(stack).items())
    assert all(torch.equal(part, value) for part, value in zip(batch, values, strict=True))
    assert [part._version for part in batch] == versions
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]  # type: ignore[union-attr]
    assert [module.training for module in stack.modules()] == modes
    assert stack.losses() == losses
    assert not any(parameter.grad is not None for parameter in stack.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in stack.modules())
    torch.manual_seed(7)
    stack(*batch)
    torch.manual_seed(7)
    twin(*batch)
    assert stack.losses() == twin.losses()


def test_a_batch_in_flight_stays_in_flight() -> None:
    stack = ALStack([layer(), layer(kind=type("Kept", (AL,), {}))])
    stack(torch.randn(5, WIDTH), torch.randn(5, WIDTH))
    check(stack)
    stack.backward_and_update()


def test_a_subclass_that_keeps_its_losses_can_be_checked_again() -> None:
    """A loss that still has its graph cannot be copied."""
    stack = ALStack({"old": layer(kind=Whole)})
    stack(*TUPLES)
    stack.backward_and_update()
    with pytest.warns(UserWarning, match="'old' .hidden raises"):
        check(stack, batch=TUPLES)


def test_a_layer_that_cannot_be_copied_is_named() -> None:
    class Uncopyable(nn.Linear):
        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("not this one")

    with pytest.warns(UserWarning, match=r"'suspect' \(it cannot be copied.*not this one"):
        check(layer(Uncopyable(WIDTH, WIDTH)))


def test_what_fails_is_left_to_the_run() -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("broken")

    check(layer(Call(fails)))
    check(ALStack([layer()], target=fails))
    check(ALStack([layer()]), batch=(torch.randn(5, WIDTH + 1), torch.randn(5, WIDTH)))
    stack, state = ALStack([layer()]), torch.get_rng_state()
    check_layers(stack, "no batch", concurrent=True, seed=0)  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), state)


def test_ctrl_c_comes_through() -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(layer(Call(interrupted)))


def test_the_context_holds_in_every_forward_pass() -> None:
    seen: list[torch.dtype] = []

    def note(out: Tensor, _: bool) -> Tensor:
        seen.append(out.dtype)
        return out

    check(ALStack([layer(Call(note))]), context=lambda: torch.autocast("cpu", dtype=torch.bfloat16))
    assert seen == [torch.bfloat16] * 2  # hidden, a step


# --- on a GPU -------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", ["F.dropout", "rand_like", "nn.Dropout", "LSTM", None])
def test_draws_from_the_generator_of_a_gpu_are_found_and_it_is_as_before(kind: str | None) -> None:
    stack = ALStack({"below": layer(), "suspect": layer(DRAWING[kind]() if kind else None)})
    stack.set_device(["cuda:0", "cuda:0"])
    batch = (torch.randn(5, 3, WIDTH, device="cuda"), torch.randn(5, 3, WIDTH, device="cuda"))
    if kind == "LSTM":  # the first use in the process draws, later ones do not
        stack[1](*batch)
        stack[1].backward_and_update()
    before = torch.cuda.get_rng_state()
    if kind is None:
        check(stack, batch=batch)
    else:
        with pytest.raises(ValueError, match=r"layer 'suspect': enc\.f"):
            check(stack, batch=batch)
    assert torch.equal(torch.cuda.get_rng_state(), before)
    check(stack, concurrent=False, batch=batch)


# --- what a check that cannot be complete leaves out ------------------------------------------------------------------


def test_a_failing_batch_leaves_the_check_due() -> None:
    """Guards a bug: after one bad batch a layer that draws was trained without a word."""
    bad, good = (torch.randn(5, WIDTH + 1), torch.randn(5, WIDTH)), (torch.randn(5, WIDTH), torch.randn(5, WIDTH))
    with make_schedule("al-fm", ALStack([layer(DRAWING["nn.Dropout"]())]), threads=1) as schedule:
        with pytest.raises(StageError, match="layer 'layer_1' failed on batch 0"):
            schedule.prepare(bad)
        with pytest.raises(ValueError, match="draws from a process-wide random generator"):
            list(schedule.run([good]))


@pytest.mark.parametrize("obstacle", ["raises in evaluation mode", "cannot be copied"])
def test_layers_behind_one_that_cannot_be_compared_are_checked(obstacle: str) -> None:
    """Guards a bug: the check ended there, and dropout behind it made runs depend on timing."""

    class Awkward(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            assert self.training
            return super().forward(x)

    first = Awkward(WIDTH, WIDTH)
    if obstacle == "cannot be copied":
        first.lock = threading.Lock()  # type: ignore[assignment]
    stack = ALStack({"first": layer(first), "second": layer(DRAWING["nn.Dropout"]())})
    with pytest.raises(ValueError, match=r"layer 'second': enc\.f\.1 \(Dropout\) draws"):
        check(stack)


def test_a_layer_that_keeps_a_state_of_its_own_is_accepted() -> None:
    """Guards a bug: two calls of such an f differ, and it was refused although nothing was overridden."""

    class Running(nn.Linear):
        def __init__(self) -> None:
            super().__init__(WIDTH, WIDTH)
            self.register_buffer("mean", torch.zeros(WIDTH))
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            self.calls += 1
            self.mean = 0.9 * self.mean + 0.1 * out.detach().mean(0)
            return out - self.mean + self.calls

    check(ALStack([layer(Running())]))
