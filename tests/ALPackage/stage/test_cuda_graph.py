"""A stage's step as a CUDA graph. Here without a GPU: the recorder is replaced by one that runs the step again.

That leaves all of the orchestration to be tested: what is saved and restored, the learning rate, the random streams,
what is copied out, and when the graph is refused. The same on a GPU is marked so.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from ALPackage import AE, AL, ENC, ALStack, Guard, LocalLayer, Snapshot, StageError, make_schedule
from ALPackage.randomness import Dropout
from ALPackage.stage.batch import TrainBatch
from ALPackage.stage.cuda_graph import StepGraph, capture, make_capturable, make_graph, preview
from ALPackage.stage.step import Step
from ALPackage.stage.threads import Autocast
from ALPackage.stage.transfer import WorkerInput
from models import adamw
from models.lstm import BiLSTM

from ..hooked import SEED, Batches, assert_equal, losses_of, rate, snapshot


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


def stack(layers: int = 3, criteria: tuple[Any, Any] = (None, None)) -> ALStack:
    """Return layers with batch normalization and dropout, and the optimizer that the shipped models use."""
    torch.manual_seed(3)
    return ALStack(
        AL(
            ENC(
                nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Tanh(), Dropout(0.3)), nn.Linear(6, 4), criteria[0]
            ),
            AE(nn.Linear(4, 4), nn.Linear(4, 4), criteria[1]),
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
        batch = TrainBatch(number, x, y, rate(number))
        for name, layer in one.items():
            step.forward(name, layer, batch)
            layer.backward_and_update()
        losses.append(batch.losses)
    return losses_of(losses)


def prepared(layers: int = 3, criteria: tuple[Any, Any] = (None, None)) -> ALStack:
    """Return a stack whose optimizers keep their rates in tensors, as on a GPU."""
    made = stack(layers, criteria)
    for layer in made:
        make_capturable(layer)
    return made


def test_a_replayed_step_is_the_eager_step() -> None:
    batches = data()
    expected, one = prepared(), prepared()
    losses = eager(expected, batches)
    layers, step, recorder = list(one.items()), Step(SEED, None), Recorder()
    start = snapshot(one)
    graph = make_graph(layers, step, TrainBatch(0, *batches[0], rate(0)), NoStream(), force=True, record=recorder)
    assert graph is not None
    assert {name: value for name, value in snapshot(one).items() if name in start}.keys() == start.keys()
    assert all(torch.equal(snapshot(one)[name], value) for name, value in start.items()), "capturing left a trace"
    recorder.replays = 0
    found = []
    for number, (x, y) in enumerate(batches):
        batch = TrainBatch(number, x, y, rate(number))
        if graph.fits(batch):
            graph.run(batch)
        else:
            for name, layer in layers:
                step.forward(name, layer, batch)
                layer.backward_and_update()
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
    graph = make_graph(layers, Step(SEED, None), TrainBatch(0, *batches[0]), NoStream(), force=True, record=Recorder())
    assert graph is not None
    before = snapshot(still)
    graph.run(TrainBatch(0, *batches[0]))
    parameters = [name for name in before if name.startswith("parameter")]
    assert all(torch.equal(snapshot(still)[name], before[name]) for name in parameters), "a rate of 0 moved the weights"
    graph.run(TrainBatch(1, batches[1][0], batches[1][1], 0.1))
    assert not any(torch.equal(snapshot(still)[name], before[name]) for name in parameters)


def test_a_graph_that_computes_something_else_is_refused() -> None:
    one = prepared(1)
    weight = one[0].enc.b.weight

    def broken() -> None:
        with torch.no_grad():
            weight[0, 0] += 1e-6

    example = TrainBatch(0, *data()[0], 1e-3)
    before = snapshot(one)
    with pytest.warns(UserWarning, match="no CUDA graph for layer_1: it does not compute what the eager step computes"):
        made = make_graph(list(one.items()), Step(SEED, None), example, NoStream(), force=True, record=Recorder(broken))
    assert made is None
    assert all(torch.equal(snapshot(one)[name], value) for name, value in before.items())


def test_an_eager_step_that_does_not_repeat_itself_is_named_as_the_reason() -> None:
    """As cuDNN's default algorithms on a GPU: there is nothing that a graph could be compared with."""
    steps = iter(range(1000))
    one = prepared(1, (lambda found, wanted: nn.functional.mse_loss(found, wanted) * (1 + next(steps)), None))
    assert refusal(one, TrainBatch(0, *data()[0], 1e-3)).startswith("the eager step does not compute the same twice")


def test_a_slower_graph_is_refused_unless_it_is_asked_for() -> None:
    import time

    example = TrainBatch(0, *data()[0], 1e-3)
    for force in (False, True):
        layers = list(prepared(1).items())
        slow = Recorder(lambda: time.sleep(0.005))
        graph = make_graph(layers, Step(SEED, None), example, NoStream(), force=force, record=slow)
        assert (graph is not None) == force


def test_what_cannot_be_captured_runs_eagerly() -> None:
    def fail(*_: Any) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing")

    example = TrainBatch(0, *data()[0], 1e-3)
    one = prepared(1)
    before = snapshot(one)
    with pytest.warns(UserWarning, match="no CUDA graph for layer_1: RuntimeError: operation not permitted"):
        assert make_graph(list(one.items()), Step(SEED, None), example, NoStream(), force=True, record=fail) is None
    assert all(torch.equal(snapshot(one)[name], value) for name, value in before.items())
    assert all(parameter.grad is None for parameter in one.parameters())
    plain = ALStack([AL(ENC(nn.Linear(6, 6), nn.Linear(6, 4)), AE(nn.Linear(4, 4), nn.Linear(4, 4)), optimizer=_sgd)])
    make_capturable(plain[0])
    assert refusal(plain, example) == "the optimizer of layer_1 is SGD, not Adam or AdamW"


def refusal(one: ALStack, example: TrainBatch) -> str:
    """Return why there is no graph for `one`."""
    with pytest.warns(UserWarning, match="no CUDA graph for") as caught:
        assert (
            make_graph(list(one.items()), Step(SEED, None), example, NoStream(), force=True, record=Recorder()) is None
        )
    return str(caught[0].message).split(": ", 1)[1]


def test_a_layer_that_needs_the_host_gets_no_graph_and_is_not_even_tried() -> None:
    """Guards two bugs: hooks were skipped by replays, and every LSTM block broke a capture off half-way."""
    example = TrainBatch(0, *data()[0], 1e-3)
    hooked = prepared(1)
    hooked[0].enc.f.register_forward_hook(lambda *_: None)
    assert refusal(hooked, example) == "layer_1 has hooks, which a replay would not call"
    packed = prepared(1)
    packed[0].enc.f[2].capturable = False
    assert refusal(packed, example) == "enc.f.2 of layer_1 (Tanh) is marked as not capturable"
    assert BiLSTM.capturable is False


def test_an_optimizer_whose_state_does_not_start_at_zero_is_left_alone() -> None:
    """Guards a bug: NAdam's mu_product, which starts at one, was zeroed by a capture that came to nothing."""
    one = ALStack(
        [AL(ENC(nn.Linear(6, 6), nn.Linear(6, 4)), AE(nn.Linear(4, 4), nn.Linear(4, 4)), optimizer=torch.optim.NAdam)]
    )
    make_capturable(one[0])
    assert "not Adam or AdamW" in refusal(one, TrainBatch(0, *data()[0], 1e-3))
    assert not one[0].optimizer.state
    assert isinstance(one[0].optimizer.param_groups[0]["lr"], float)


class Scaled(nn.Module):
    """A criterion with a setting."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = 1.0

    def forward(self, found: Any, wanted: Any) -> Any:
        return nn.functional.mse_loss(found, wanted) / self.temperature


class ScaledPlainly:
    """The same, but no module."""

    def __init__(self) -> None:
        self.temperature = 1.0

    def __call__(self, found: Any, wanted: Any) -> Any:
        return nn.functional.mse_loss(found, wanted) / self.temperature


#: What may be changed between two runs, and how.
CHANGES: dict[str, Callable[[AL], Any]] = {
    "state": lambda layer: layer.optimizer.load_state_dict(layer.optimizer.state_dict()),
    "mode": lambda layer: layer.enc.eval(),
    "frozen": lambda layer: layer.enc.b.weight.requires_grad_(False),
    "decay": lambda layer: layer.optimizer.param_groups[0].update(weight_decay=0.5),
    "dropout": lambda layer: setattr(layer.enc.f[3], "p", 0.1),
    "guard": lambda layer: setattr(layer, "guard", Guard()),
    "momentum": lambda layer: setattr(layer.enc.f[1], "momentum", 0.5),
    "temperature": lambda layer: setattr(layer.enc.cri, "temperature", 0.5),
    "temperature of a plain object": lambda layer: setattr(layer.ae.cri, "temperature", 0.5),
    "another criterion": lambda layer: setattr(layer.ae, "cri", nn.functional.l1_loss),
    "another activation": lambda layer: layer.enc.f.__setitem__(2, nn.ReLU()),
}


@pytest.mark.parametrize("change", [None, "rate", *CHANGES, "autocast"])
def test_a_graph_whose_layers_have_changed_is_stale(change: str | None) -> None:
    """Guards a bug: a replay went on with the settings that it had been recorded with."""
    one, step = prepared(1, (Scaled(), ScaledPlainly())), Step(SEED, None)
    layer = one[0]
    assert isinstance(layer, AL)
    graph = StepGraph(list(one.items()), step, TrainBatch(0, *data()[0], 1e-3), NoStream(), Recorder())
    graph.run(TrainBatch(1, *data()[1], 1e-3))
    eager(one, data()[:2])
    assert not graph.stale(), "training alone makes it stale"
    if change is None:
        return
    if change == "rate":
        layer.set_lr(0.5)
        assert not graph.stale(), "the graph reads the rate anew"
        return
    if change == "autocast":
        with torch.autocast("cpu", dtype=torch.bfloat16):
            step.autocast = Autocast()
    else:
        CHANGES[change](layer)
    assert graph.stale()


def test_the_structure_of_a_batch_is_part_of_what_a_graph_fits() -> None:
    one = prepared(1)
    x, y = data()[0]
    graph = StepGraph(list(one.items()), Step(SEED, None), TrainBatch(0, x, y, 1e-3), NoStream(), Recorder())
    assert graph.fits(TrainBatch(1, x + 1, y))
    assert not graph.fits(TrainBatch(1, (x, y), ()))
    assert not graph.fits(TrainBatch(1, x[:5], y[:5]))
    assert not graph.fits(TrainBatch(1, x.double(), y))


def test_an_optimizer_that_has_stepped_can_still_be_made_capturable_and_go_back_to_a_plain_one() -> None:
    """Guards a bug: Adam kept its step counts where they were and refused every further step."""
    one = stack(1)
    eager(one, data())
    layer = one[0]
    make_capturable(layer)
    steps = [state["step"] for state in layer.optimizer.state.values()]
    assert {step.device for step in steps} == {layer.device}
    eager(one, data())
    layer.to(torch.float64).to(torch.float32)
    assert [(type(group["lr"]), group["capturable"]) for group in layer.optimizer.param_groups] == [(float, False)] * 2
    eager(one, data())
    assert all(float(state["step"]) == 3 * len(data()) for state in layer.optimizer.state.values())


def _sgd(groups: Any) -> torch.optim.SGD:
    return torch.optim.SGD(groups, lr=0.1)


def test_what_is_handed_on_is_not_the_graph_s_own_memory() -> None:
    one = prepared(1)
    step = Step(SEED, None)
    graph = StepGraph(list(one.items()), step, TrainBatch(0, *data()[0], 1e-3), NoStream(), Recorder())
    first, second = (TrainBatch(number, *data()[number], 1e-3) for number in (0, 1))
    graph.run(first)
    kept = first.x.clone(), first.losses[0]["assoc"].clone()
    graph.run(second)
    assert torch.equal(first.x, kept[0])
    assert torch.equal(first.losses[0]["assoc"], kept[1])


def test_the_streams_of_the_layers_are_registered() -> None:
    recorder = Recorder()
    StepGraph(list(prepared().items()), Step(SEED, None), TrainBatch(0, *data()[0], 1e-3), NoStream(), recorder)
    assert len(recorder.generators) == 3


def test_a_preview_changes_nothing() -> None:
    one, twin = prepared(), prepared()
    x, y = data()[0]
    before = snapshot(one)
    seen = preview(list(one.items()), Step(SEED, None), TrainBatch(0, x, y, 1e-3))
    generator = torch.get_rng_state()
    preview(list(one.items()), Step(SEED, None), TrainBatch(0, x, y, 1e-3))
    assert torch.equal(torch.get_rng_state(), generator), "it drew from the process-wide generator"
    assert_equal(snapshot(one), before)
    assert [tuple(seen.x.shape), tuple(seen.y.shape)] == [tuple(part.shape) for part in twin(x, y)]


class Streamed(WorkerInput):
    """An input side on the CPU that claims to be on a GPU, so that the engine tries to capture."""

    copies = True
    stream = NoStream()

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Compute as ever."""
        yield


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_engine_trains_the_same_with_graphs(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr("ALPackage.schedules.continuous.input_for", Streamed)
    monkeypatch.setattr("ALPackage.stage.runner.make_graph", lambda *a, **k: make_graph(*a, **k, record=recorder))
    expected, one = prepared(), prepared()
    losses = eager(expected, data())
    with make_schedule("continuous", one, workers=workers, threads=1, seed=SEED, cuda_graph="on") as schedule:
        schedule._captured = False  # type: ignore[attr-defined]
        found = losses_of(list(schedule.run(data()[:4], lr=rate)))
        found += losses_of(list(schedule.run(data()[4:], lr=rate, first=4)))
    assert recorder.replays > len(one) * 6
    assert found == losses
    assert_equal(snapshot(one), snapshot(expected))


def test_a_failure_while_a_graph_is_made_names_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ALPackage.schedules.continuous.input_for", Streamed)
    one = prepared()
    monkeypatch.setattr(one[1].enc, "forward", lambda x, code: 1 / 0)
    with make_schedule("continuous", one, workers=1, threads=1, seed=SEED) as schedule:
        schedule._captured = False  # type: ignore[attr-defined]
        with pytest.raises(StageError, match="layer 'layer_2' failed on batch 0: ZeroDivisionError"):
            list(schedule.run(data(), lr=rate))


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    """Let the engine capture as on a GPU, and return what records the graphs, one for each that is made."""
    recorders: list[Recorder] = []

    def made(*arguments: Any, **options: Any) -> StepGraph | None:
        recorders.append(Recorder())
        return make_graph(*arguments, **options, record=recorders[-1])

    monkeypatch.setattr("ALPackage.schedules.continuous.input_for", Streamed)
    monkeypatch.setattr("ALPackage.stage.runner.make_graph", made)
    return recorders


def test_between_runs_a_stale_graph_is_made_anew(recorders: list[Recorder]) -> None:
    expected, one = prepared(), prepared()
    losses = eager(expected, data())
    with make_schedule("continuous", one, workers=1, threads=1, seed=SEED, cuda_graph="on") as schedule:
        schedule._captured = False  # type: ignore[attr-defined]
        found = losses_of(list(schedule.run(data()[:3], lr=rate)))
        for layer in one:
            layer.optimizer.load_state_dict(layer.optimizer.state_dict())
            break
        found += losses_of(list(schedule.run(data()[3:], lr=rate, first=3)))
    assert len(recorders) == 3 + 1, "each layer has one, and only the first was stale"
    assert found == losses
    assert_equal(snapshot(one), snapshot(expected))


def test_layers_that_wait_or_are_frozen_go_with_graphs(recorders: list[Recorder]) -> None:
    def grown(schedule: str, **options: Any) -> tuple[ALStack, list[Any]]:
        one, losses = prepared(), []
        with make_schedule(schedule, one, threads=1, seed=SEED, **options) as made:
            made._captured = False  # type: ignore[attr-defined]
            for layers, share, first in ((1, 1.0, 0), (2, 0.0, 2), (3, 0.5, 4)):
                for layer in list(one)[: layers - 1]:
                    layer.lr_share = share
                    layer.requires_grad_(share > 0).train(share > 0)
                batches = data()[first : first + 2]
                losses += losses_of(list(made.run(batches, lr=rate, first=first, layers=layers)))
        return one, losses

    (expected, losses), (one, found) = grown("sequential"), grown("continuous", workers=2, cuda_graph="on")
    # All at first, the first one when it is frozen, and the first two when they go on.
    assert len(recorders) == 3 + 1 + 2
    assert found == losses
    trained = {name: value for name, value in snapshot(one).items() if not name.startswith("moment")}
    assert_equal(trained, {name: value for name, value in snapshot(expected).items() if name in trained})


def test_predictions_between_two_runs_cost_no_capture(recorders: list[Recorder]) -> None:
    """Guards a bug: in evaluation mode the step looked changed, so every epoch after the first captured it anew."""
    one = prepared()
    with make_schedule("continuous", one, workers=1, threads=1, seed=SEED, cuda_graph="on") as schedule:
        schedule._captured = False  # type: ignore[attr-defined]
        list(schedule.run(data()[:3], lr=rate))
        one.eval()
        predictions = list(schedule.predict([x for x, _ in data()]))
        one.train()
        list(schedule.run(data()[3:], lr=rate, first=3))
    assert len(predictions) == len(data())
    assert len(recorders) == 3


def test_preparing_captures_before_the_run(recorders: list[Recorder]) -> None:
    """Guards a bug: the capture with its trial steps was part of the first run, and of its training time."""
    expected, one = prepared(), prepared()
    losses = eager(expected, data())
    with make_schedule("continuous", one, workers=2, threads=1, seed=SEED, cuda_graph="on") as schedule:
        schedule._captured = False  # type: ignore[attr-defined]
        start = snapshot(one)
        schedule.prepare(data()[0])
        assert len(recorders) == 3
        assert all(torch.equal(snapshot(one)[name], value) for name, value in start.items())
        schedule.prepare(data()[0])
        found = losses_of(list(schedule.run(data(), lr=rate)))
        assert len(recorders) == 3, "the run captured again"
        assert all(recorder.replays > 6 for recorder in recorders)
    assert found == losses
    assert_equal(snapshot(one), snapshot(expected))


class SlowSnapshot(Snapshot):
    """Takes its time, in which a capture would change the layers."""

    def take(self, name: str, layer: LocalLayer) -> None:
        """Take the state a moment later."""
        time.sleep(0.02)
        super().take(name, layer)


@pytest.mark.usefixtures("recorders")
def test_a_snapshot_before_the_first_batch_takes_no_state_of_a_capture() -> None:
    """Guards a bug: the steps of a capture, which are undone at its end, were in the snapshot."""
    one, taken = prepared(), SlowSnapshot()
    start = {name: copy.deepcopy(layer.state_dict()) for name, layer in one.items()}
    with make_schedule("continuous", one, workers=2, threads=1, seed=SEED, cuda_graph="on") as schedule:
        schedule._captured, schedule._checked = False, True  # type: ignore[attr-defined]
        list(schedule.run([taken, *data()[:2]], lr=rate))
    for name, state in start.items():
        assert_equal(taken.state[name]["layer"], state)


def test_an_unknown_choice_is_refused() -> None:
    with pytest.raises(ValueError, match="cuda_graph: got 'yes'; expected auto, on or off"):
        make_schedule("continuous", stack(), cuda_graph="yes")


@pytest.mark.parametrize("fails", [False, True])
def test_no_two_graphs_are_recorded_with_the_same_matrix_workspace(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """PyTorch keeps it per stream: so it is dropped before and after."""
    events: list[str] = []

    @contextmanager
    def recording(graph: Any, **options: Any) -> Iterator[None]:
        events.append("begin")
        yield
        events.append("end")

    def body() -> None:
        events.append("step")
        if fails:
            raise RuntimeError("cannot be captured")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: None))
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: events.append("clear"), raising=False)
    if fails:
        with pytest.raises(RuntimeError, match="cannot be captured"):
            capture(body, NoStream(), [])
        assert events == ["clear", "begin", "step", "clear"]
        return
    capture(body, NoStream(), [])
    assert events == ["clear", "begin", "step", "end", "clear"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("streams", [1, 2, 4])
def test_on_a_gpu_graphs_equal_the_sequential_schedule(streams: int) -> None:
    runs = []
    for schedule, options in (("sequential", {}), ("continuous", {"streams_per_device": streams, "cuda_graph": "on"})):
        one = stack()
        one.set_device(["cuda:0"] * 3)
        with make_schedule(schedule, one, threads=1, seed=SEED, **options) as trainer:  # type: ignore[arg-type]
            losses = losses_of(list(trainer.run(data(), lr=rate)))
            if schedule == "continuous":
                assert all(runner._graph is not None for runner in trainer._runners)  # type: ignore[attr-defined]
                assert sum(usage.batches for usage in trainer.usage()) == 3 * len(data())
        runs.append((losses, snapshot(one)))
    assert runs[0][0] == runs[1][0]
    assert_equal(runs[1][1], runs[0][1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_nothing_is_captured_after_preparing(monkeypatch: pytest.MonkeyPatch) -> None:
    captures: list[str] = []

    def counted(*arguments: Any, **options: Any) -> StepGraph | None:
        captures.append("one")
        return make_graph(*arguments, **options)

    monkeypatch.setattr("ALPackage.stage.runner.make_graph", counted)
    one = stack()
    one.set_device(["cuda:0"] * 3)
    with make_schedule("continuous", one, threads=1, seed=SEED, cuda_graph="on") as trainer:
        trainer.prepare(data()[0])
        assert len(captures) == 3
        list(trainer.run(data(), lr=rate))
        assert len(captures) == 3
        one[0].guard = Guard()
        list(trainer.run(data(), lr=rate, first=7))
        assert len(captures) == 3 + 1, "a guard came, and the old graph was replayed"
