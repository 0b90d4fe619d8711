"""A stage's step as a CUDA graph. Here without a GPU: the recorder is replaced by one that runs the step again.

That leaves all of the orchestration to be tested: what is saved and restored, the learning rate, the random streams,
what is copied out, and when the graph is refused. The same on a GPU is marked so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from ALPackage import AE, AL, ENC, ALStack, make_schedule
from ALPackage.graph import StepGraph, make_capturable, make_graph, preview
from ALPackage.handover import Intake
from ALPackage.randomness import Dropout
from ALPackage.step import Batch, Step
from models import adamw

from .hooked import SEED, Batches, assert_equal, losses_of, rate, snapshot


class NoStream:
    """Stands for a stream where there is no GPU."""

    def synchronize(self) -> None:
        """Wait for nothing."""


class Recorder:
    """Records a step by keeping it; `broken`: what each replay does besides."""

    def __init__(self, broken: Callable[[], None] | None = None) -> None:
        self.broken = broken
        self.replays = 0

    def __call__(self, body: Callable[[], None], stream: Any, generators: list[torch.Generator]) -> Callable[[], None]:
        self.generators = generators

        def replay() -> None:
            self.replays += 1
            body()
            if self.broken is not None:
                self.broken()

        return replay


def stack(layers: int = 3) -> ALStack:
    """Return layers with batch normalisation and dropout, and the optimizer that the shipped models use."""
    torch.manual_seed(3)
    return ALStack(
        AL(
            ENC(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Tanh(), Dropout(0.3)), nn.Linear(6, 4)),
            AE(nn.Linear(4, 4), nn.Linear(4, 4)),
            optimizer=adamw,
        )
        for _ in range(layers)
    )


def data(count: int = 7) -> Batches:
    """Return batches of which the last is smaller."""
    draw = torch.Generator().manual_seed(4)
    sizes = [8] * (count - 1) + [5]
    return [(torch.randn(size, 6, generator=draw), torch.randn(size, 4, generator=draw)) for size in sizes]


def eager(one: ALStack, batches: Batches) -> list[list[tuple[float, float]]]:
    """Train step by step without a graph."""
    step, losses = Step(SEED, None), []
    for number, (x, y) in enumerate(batches):
        batch = Batch(number, x, y, rate(number))
        for name, layer in one.items():
            step.forward(name, layer, batch)
            step.backward(name, layer, number)
        losses.append(batch.losses)
    return losses_of(losses)


def prepared(layers: int = 3) -> ALStack:
    """Return a stack whose optimizers keep their rates in tensors, as on a GPU."""
    made = stack(layers)
    for layer in made:
        make_capturable(layer)
    return made


def test_a_replayed_step_is_the_eager_step() -> None:
    batches = data()
    expected, one = prepared(), prepared()
    losses = eager(expected, batches)
    layers, step, recorder = list(one.items()), Step(SEED, None), Recorder()
    start = snapshot(one)
    graph = make_graph(layers, step, Batch(0, *batches[0], rate(0)), NoStream(), force=True, record=recorder)
    assert graph is not None
    assert {name: value for name, value in snapshot(one).items() if name in start}.keys() == start.keys()
    assert all(torch.equal(snapshot(one)[name], value) for name, value in start.items()), "capturing left a trace"
    recorder.replays = 0
    found = []
    for number, (x, y) in enumerate(batches):
        batch = Batch(number, x, y, rate(number))
        if graph.fits(batch):
            graph.run(batch)
        else:
            for name, layer in layers:
                step.forward(name, layer, batch)
                step.backward(name, layer, number)
        found.append(batch.losses)
    assert recorder.replays == len(batches) - 1, "the smaller batch does not fit the graph"
    assert losses_of(found) == losses
    assert_equal(snapshot(one), snapshot(expected))


def test_a_captured_step_follows_a_changing_learning_rate() -> None:
    """A rate that is a plain number would be baked into the graph: every scheduler would silently stop working."""
    one = prepared(1)
    rates = [group["lr"] for group in one[0].optimizer.param_groups]
    one.set_lr({"enc": 0.5, "ae": 0.25})
    assert [group["lr"] is rate for group, rate in zip(one[0].optimizer.param_groups, rates, strict=True)] == [True] * 2
    assert [rate.item() for rate in rates] == [0.5, 0.25]
    still = prepared(1)
    batches = [(x, y, 0.0) for x, y in data(3)[:2]]
    layers = list(still.items())
    graph = make_graph(layers, Step(SEED, None), Batch(0, *batches[0]), NoStream(), force=True, record=Recorder())
    assert graph is not None
    before = snapshot(still)
    graph.run(Batch(0, *batches[0]))
    parameters = [name for name in before if name.startswith("parameter")]
    assert all(torch.equal(snapshot(still)[name], before[name]) for name in parameters), "a rate of 0 moved the weights"
    graph.run(Batch(1, batches[1][0], batches[1][1], 0.1))
    assert not any(torch.equal(snapshot(still)[name], before[name]) for name in parameters)


def test_a_graph_that_computes_something_else_is_refused() -> None:
    one = prepared(1)
    weight = one[0].enc.b.weight

    def broken() -> None:
        with torch.no_grad():
            weight[0, 0] += 1e-6

    example = Batch(0, *data()[0], 1e-3)
    before = snapshot(one)
    assert (
        make_graph(list(one.items()), Step(SEED, None), example, NoStream(), force=True, record=Recorder(broken))
        is None
    )
    assert all(torch.equal(snapshot(one)[name], value) for name, value in before.items())


def test_a_slower_graph_is_refused_unless_it_is_asked_for() -> None:
    import time

    example = Batch(0, *data()[0], 1e-3)
    for force in (False, True):
        layers = list(prepared(1).items())
        slow = Recorder(lambda: time.sleep(0.005))
        graph = make_graph(layers, Step(SEED, None), example, NoStream(), force=force, record=slow)
        assert (graph is not None) == force


def test_what_cannot_be_captured_runs_eagerly() -> None:
    def fail(*_: Any) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing")

    example = Batch(0, *data()[0], 1e-3)
    one = prepared(1)
    before = snapshot(one)
    assert make_graph(list(one.items()), Step(SEED, None), example, NoStream(), force=True, record=fail) is None
    assert all(torch.equal(snapshot(one)[name], value) for name, value in before.items())
    assert all(parameter.grad is None for parameter in one.parameters())
    plain = ALStack([AL(ENC(nn.Linear(6, 6), nn.Linear(6, 4)), AE(nn.Linear(4, 4), nn.Linear(4, 4)), optimizer=_sgd)])
    make_capturable(plain[0])
    assert make_graph(list(plain.items()), Step(SEED, None), example, NoStream(), force=True, record=Recorder()) is None


def _sgd(groups: Any) -> torch.optim.SGD:
    return torch.optim.SGD(groups, lr=0.1)


def test_what_is_handed_on_is_not_the_graph_s_own_memory() -> None:
    one = prepared(1)
    step = Step(SEED, None)
    graph = StepGraph(list(one.items()), step, Batch(0, *data()[0], 1e-3), NoStream(), Recorder())
    first, second = (Batch(number, *data()[number], 1e-3) for number in (0, 1))
    graph.run(first)
    kept = first.x.clone(), first.losses[0][0].clone()
    graph.run(second)
    assert torch.equal(first.x, kept[0])
    assert torch.equal(first.losses[0][0], kept[1])


def test_the_streams_of_the_layers_are_registered() -> None:
    recorder = Recorder()
    StepGraph(list(prepared().items()), Step(SEED, None), Batch(0, *data()[0], 1e-3), NoStream(), recorder)
    assert len(recorder.generators) == 3


def test_a_preview_changes_nothing() -> None:
    one, twin = prepared(), prepared()
    x, y = data()[0]
    before = snapshot(one)
    seen = preview(list(one.items()), Batch(0, x, y, 1e-3))
    assert_equal(snapshot(one), before)
    assert [tuple(seen.x.shape), tuple(seen.y.shape)] == [tuple(part.shape) for part in twin(x, y)]


class Streamed(Intake):
    """An intake on the CPU that claims to be on a GPU, so that the engine tries to capture."""

    copies = True
    stream = NoStream()

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Compute as ever."""
        yield


@pytest.mark.parametrize("stages", [[3], [1, 2], [1, 1, 1]])
def test_the_engine_trains_the_same_with_graphs(stages: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr("ALPackage.continuous.intake_for", Streamed)
    monkeypatch.setattr("ALPackage.worker.make_graph", lambda *a, **k: make_graph(*a, **k, record=recorder))
    expected, one = prepared(), prepared()
    losses = eager(expected, data())
    with make_schedule("continuous", one, stages=stages, threads=1, seed=SEED, cuda_graph="on") as schedule:
        schedule._captured = False  # type: ignore[attr-defined]
        found = losses_of(list(schedule.run(data()[:4], lr=rate)))
        found += losses_of(list(schedule.run(data()[4:], lr=rate, first=4)))
    assert recorder.replays > len(stages) * 6
    assert found == losses
    assert_equal(snapshot(one), snapshot(expected))


def test_an_unknown_choice_is_refused() -> None:
    with pytest.raises(ValueError, match="cuda_graph: got 'yes'; expected auto, on or off"):
        make_schedule("continuous", stack(), cuda_graph="yes")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("stages", [[3], [1, 2]])
def test_on_a_gpu_graphs_equal_the_sequential_schedule(stages: list[int]) -> None:
    runs = []
    for schedule, options in (("sequential", {}), ("continuous", {"stages": stages, "cuda_graph": "on"})):
        one = stack()
        one.set_device(["cuda:0"] * 3)
        with make_schedule(schedule, one, threads=1, seed=SEED, **options) as trainer:  # type: ignore[arg-type]
            losses = losses_of(list(trainer.run(data(), lr=rate)))
            if schedule == "continuous":
                assert all(worker._graph is not None for worker in trainer._workers)  # type: ignore[attr-defined]
        runs.append((losses, snapshot(one)))
    assert runs[0][0] == runs[1][0]
    assert_equal(runs[1][1], runs[0][1])
