"""Whatever fails, wherever and whenever: the caller soon hears which layer on which batch, and nothing is left."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ALPackage import AL, ALStack, Schedule, StageError, make_schedule

from ..hooked import ALL, SEED, Broken, Watched, assert_equal, hooked, nothing, pairs, plain, rate, snapshot, workers

LAYERS, BATCHES = 3, 5
#: What the schedules are called here, with their options.
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "sequential": ("sequential", {}),
    "al-fm": ("al-fm", {}),
    "one worker": ("continuous", {"workers": 1}),
    "two workers": ("continuous", {"workers": 2}),
    "a worker per layer": ("continuous", {"workers": 3, "depth": 1}),
    "a worker too many": ("continuous", {"workers": 4}),
}
pytestmark = pytest.mark.usefixtures("unchecked")
PHASES = ["f", "b", "g", "h", "loss", "backward", "gradient", "optimizer", "update", "forward hook", "step hook"]


class Wordless(Exception):  # noqa: N818 (short, as it is said often)
    """An exception that cannot even be told."""

    def __str__(self) -> str:
        raise ValueError("no words")


class Fault:
    """Raises `error` once, the `batch`-th time that `layer` comes to `phase`."""

    def __init__(self, layer: int, batch: int, phase: str, error: BaseException) -> None:
        self.where, self.error = (layer, batch, phase), error
        self.seen: dict[tuple[int, str], int] = {}
        self.at: float | None = None

    def reach(self, layer: int, phase: str) -> None:
        """Note that `layer` has come to `phase`."""
        batch = self.seen[layer, phase] = self.seen.get((layer, phase), -1) + 1
        if (layer, batch, phase) == self.where and self.at is None:
            self.at = time.monotonic()
            break_down(self.error)


def break_down(error: BaseException) -> None:
    """Raise; the name of this function is what the tests look for in a traceback."""
    raise error


class Fragile(AL):
    """A layer whose steps tell the fault where they are."""

    reach: Callable[[str], None] = staticmethod(lambda phase: None)  # type: ignore[assignment]

    def loss(self) -> tuple[Tensor, Tensor]:
        self.reach("loss")
        return super().loss()

    def backward(self) -> None:
        self.reach("backward")
        super().backward()

    def update(self) -> None:
        self.reach("update")
        super().update()


def fragile(fault: Fault) -> ALStack:
    """Return a stack in which every phase of every layer may break, by the means that a user has."""
    stack = hooked(nothing, layers=LAYERS, kind=Fragile)
    for number, layer in enumerate(stack):

        def reach(phase: str, number: int = number) -> None:
            fault.reach(number, phase)

        def before(phase: str, reach: Callable[[str], None] = reach) -> Callable[..., None]:
            return lambda *_: reach(phase)

        layer.reach = reach  # type: ignore[assignment]
        for phase, module in (("f", layer.enc.f), ("b", layer.enc.b), ("g", layer.ae.g), ("h", layer.ae.h)):
            module.register_forward_pre_hook(before(phase))
        layer.register_forward_hook(before("forward hook"))
        layer.enc.b.register_full_backward_hook(before("gradient"))
        layer.optimizer.register_step_pre_hook(before("optimizer"))
        layer.optimizer.register_step_post_hook(before("step hook"))
    return stack


def expect(caught: StageError, layer: str, batch: int | None, error: BaseException | None, since: float) -> None:
    """Fail unless `caught` says where it failed, within 2 s, with the original traceback."""
    assert time.monotonic() - since < 2.0
    assert (caught.layer, caught.batch) == (layer, batch)
    text = "".join(traceback.format_exception(caught))
    assert "break_down" in text, "the original traceback was lost"
    if error is not None:
        assert isinstance(caught.__cause__, type(error))


def gone() -> bool:
    """Tell whether all threads of the schedules end within 2 s."""
    deadline = time.monotonic() + 2.0
    while workers() and time.monotonic() < deadline:
        time.sleep(0.002)
    return not workers()


def trains_on(stack: ALStack, name: str, options: dict[str, Any]) -> None:
    """Fail unless nothing half-done is left in the stack, and it trains on."""
    assert all(parameter.grad is None for parameter in stack.parameters()), "a gradient was left behind"
    with make_schedule(name, stack, threads=1, seed=SEED, **options) as again:
        assert len(list(again.run(pairs(2)))) == 2


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("run", ["al-fm", "two workers", "a worker too many"])
def test_a_fault_at_every_layer_and_batch_is_told_with_its_place(run: str, phase: str) -> None:
    name, options = RUNS[run]
    for layer, batch in itertools.product(range(LAYERS), range(BATCHES)):
        fault = Fault(layer, batch, phase, Broken("out of luck"))
        stack = fragile(fault)
        with make_schedule(name, stack, threads=1, **options) as one, pytest.raises(StageError) as caught:
            list(one.run(pairs(BATCHES + 3)))
        assert fault.at is not None
        expect(caught.value, f"layer_{layer + 1}", batch, fault.error, fault.at)
        assert not workers()
        if batch == BATCHES - 1:
            trains_on(stack, name, options)


ODD: list[BaseException] = [
    SystemExit(3),
    KeyboardInterrupt(),
    MemoryError("no memory"),
    StopIteration(),
    StopAsyncIteration(),
    GeneratorExit(),
    Wordless(),
    KeyError("a key"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd to make"),
    StageError("layer_9", 99, Broken("a schedule within")),
    RuntimeError(),
    BaseException("the base of all"),
]


@pytest.mark.parametrize("phase", ["f", "backward", "update"])
@pytest.mark.parametrize("error", ODD, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("run", list(RUNS))
def test_an_exception_of_any_kind_is_told(run: str, error: BaseException, phase: str) -> None:
    """On a worker all kinds are; on the caller's own thread Ctrl-C and an exit stay what they are."""
    name, options = RUNS[run]
    own = name == "sequential" or (name == "al-fm" and phase == "f")
    for layer in (0, LAYERS - 1):
        fault = Fault(layer, 2, phase, error)
        stack = fragile(fault)
        raw = own and not isinstance(error, (Exception, GeneratorExit))
        with (
            make_schedule(name, stack, threads=1, **options) as one,
            pytest.raises(type(error) if raw else StageError) as caught,
        ):
            list(one.run(pairs(BATCHES)))
        assert fault.at is not None
        if not raw:
            expect(caught.value, f"layer_{layer + 1}", 2, error, fault.at)
        assert not workers()
        trains_on(stack, name, options)


@pytest.mark.parametrize("run", list(RUNS))
def test_an_error_of_autograd_itself_is_told(run: str) -> None:
    name, options = RUNS[run]

    class Changed(nn.Linear):
        """Changes what its own backward pass needs."""

        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            out = torch.exp(super().forward(x))
            return out.add_(1) if self.calls == 3 else out

    stack = hooked(nothing)
    stack[1].enc.b.__class__ = Changed
    with make_schedule(name, stack, threads=1, **options) as one, pytest.raises(StageError) as caught:
        list(one.run(pairs(6)))
    assert (caught.value.layer, caught.value.batch) == ("layer_2", 2)
    assert "modified by an inplace operation" in str(caught.value)
    assert not workers()
    trains_on(stack, name, options)


class Loader:
    """Fails at one batch, the way that `fail` does."""

    def __init__(self, at: int, fail: Callable[[], Any]) -> None:
        self.at, self.fail = at, fail
        self.number = -1
        self.failed = 0.0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self.number += 1
        if self.number == self.at:
            self.failed = time.monotonic()
            return self.fail()
        if self.number >= 2 * BATCHES:
            raise StopIteration
        return pairs(2 * BATCHES)[self.number]


@pytest.mark.parametrize(
    "kind", [Broken, GeneratorExit, Wordless, MemoryError, KeyboardInterrupt, SystemExit, tuple, int]
)
@pytest.mark.parametrize("run", list(RUNS))
def test_a_loader_that_fails_at_any_batch_is_told(run: str, kind: type) -> None:
    """What is no pair counts as a failure; Ctrl-C and an exit on the caller's thread are the caller's."""
    name, options = RUNS[run]

    def fail() -> Any:
        if not issubclass(kind, BaseException):
            return kind()
        break_down(kind())

    raw = kind in (KeyboardInterrupt, SystemExit)
    for at in (0, 1, BATCHES):
        stack, loader = hooked(nothing), Loader(at, fail)
        with (
            make_schedule(name, stack, threads=1, seed=SEED, **options) as one,
            pytest.raises(kind if raw else StageError) as caught,
        ):
            list(one.run(loader, lr=rate))
        if not raw:
            assert time.monotonic() - loader.failed < 2.0
            assert (caught.value.layer, caught.value.batch) == ("loader", at)
            assert not issubclass(kind, BaseException) or "break_down" in "".join(
                traceback.format_exception(caught.value)
            )
            assert_equal(snapshot(stack), plain(at))
        assert not workers()
        trains_on(stack, name, options)


@pytest.mark.parametrize("run", list(RUNS))
def test_a_stop_iteration_ends_the_epoch_and_one_inside_a_generator_is_a_failure(run: str) -> None:
    name, options = RUNS[run]

    def stop() -> Any:
        raise StopIteration

    def generator() -> Iterator[Any]:
        yield from pairs(3)
        stop()

    stack = hooked(nothing)
    with make_schedule(name, stack, threads=1, seed=SEED, **options) as one:
        assert len(list(one.run(Loader(3, stop), lr=rate))) == 3
        assert_equal(snapshot(stack), plain(3))
        with pytest.raises(StageError, match="loader failed on batch 3: RuntimeError"):
            list(one.run(generator()))


class Numbered(Dataset[Any]):
    """Batches for a hooked stack, one of which ends the worker process that makes it."""

    def __init__(self, end: int | None) -> None:
        self.end = end

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Any:
        if index == self.end:
            time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)
        return pairs(12)[index]


class Stuck(Numbered):
    """A data set that cannot be sent to another process."""

    def __reduce__(self) -> Any:
        break_down(Broken("cannot be pickled"))


@pytest.mark.parametrize("end", [0, 5])
@pytest.mark.parametrize("run", ["sequential", "al-fm", "a worker per layer"])
def test_a_loader_whose_process_vanishes_is_told(run: str, end: int) -> None:
    """The signal that a child is gone comes while the main thread is anywhere, in the midst of a layer's step too."""
    name, options = RUNS[run]

    def slow(*_: Any) -> None:
        time.sleep(0.005)

    stack = hooked(slow)
    loader = DataLoader(Numbered(end), batch_size=None, num_workers=1, prefetch_factor=2)
    start = time.monotonic()
    found: BaseException | None = None
    try:
        with make_schedule(name, stack, threads=1, **options) as one:
            list(one.run(loader))
    except RuntimeError as error:
        found = error
    took = time.monotonic() - start
    with suppress(RuntimeError):  # torch may meet the closed pipe first; its signal then comes after the run
        time.sleep(0.3)
    while found is not None and not isinstance(found, StageError):
        found = found.__context__  # or while the run ends
    assert found is not None
    assert took < 4.0  # of which a new process may need two
    assert found.layer == "loader", str(found)
    assert found.batch is not None
    assert found.batch <= end
    if "DataLoader worker" not in str(found):
        assert isinstance(found.__cause__, (OSError, EOFError)), str(found)
    assert not workers()
    del loader
    gc.collect()
    trains_on(stack, name, options)


@pytest.mark.parametrize("run", ["sequential", "a worker per layer"])
def test_a_data_set_that_cannot_be_sent_to_a_process_is_told(run: str) -> None:
    name, options = RUNS[run]
    loader = DataLoader(Stuck(None), batch_size=None, num_workers=1, multiprocessing_context="spawn")
    start = time.monotonic()
    with make_schedule(name, hooked(nothing), threads=1, **options) as one, pytest.raises(StageError) as caught:
        list(one.run(loader))
    expect(caught.value, "loader", 0, Broken(), start)


@pytest.mark.parametrize("schedule", ["al-fm", "continuous"])
def test_a_failure_is_told_soon_though_another_layer_is_in_a_long_step(schedule: str) -> None:
    release, failed = threading.Event(), []

    def hook(layer: int, batch: int, phase: str) -> None:
        if (layer, phase) == (0, "backward") and batch == 1:
            release.wait(10.0)
        if (layer, batch, phase) == (1, 1, "forward"):
            failed.append(time.monotonic())
            break_down(Broken())

    one: Schedule = make_schedule(schedule, hooked(hook), threads=1)
    try:
        with pytest.raises(StageError) as caught, one:
            list(one.run(pairs()))
        expect(caught.value, "layer_2", 1, Broken(), failed[0])
    finally:
        release.set()
    assert gone()


@pytest.mark.parametrize("schedule", ALL)
def test_a_fault_in_a_function_of_autograd_keeps_its_place(schedule: str) -> None:
    """Raised in C++, on whichever thread autograd chose, and still the place in the user's own code."""

    class Torn(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            def watch(phase: str) -> None:
                if phase == "backward":
                    break_down(Broken())

            out: Tensor = Watched.apply(super().forward(x), watch)
            return out

    stack = hooked(nothing)
    stack[2].ae.h.__class__ = Torn
    start = time.monotonic()
    with make_schedule(schedule, stack, threads=1) as one, pytest.raises(StageError) as caught:
        list(one.run(pairs(), first=40))
    expect(caught.value, "layer_3", 40, Broken(), start)
