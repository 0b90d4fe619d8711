"""The input side of a worker on a GPU, on every machine: its streams and events are a fake's that checks the protocol.

The fake's device is the CPU's memory. It notes which stream knows of which other stream's work, and what is not ordered
after what it depends on fails the test, as it would be a race on a GPU.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ALPackage import AE, AL, ENC, ALStack, make_schedule, set_device
from ALPackage.schedules import continuous
from ALPackage.stage import transfer as handover
from ALPackage.stage.batch import InPlaceGuard, PredictBatch, TrainBatch
from ALPackage.stage.transfer import SLOTS, CudaWorkerInput, WorkerInput
from tests.ALPackage.schedules.test_predict import same
from tests.ALPackage.schedules.test_schedules import MODELS, batches, build, reference

from ..hooked import SEED, assert_equal, delay, hooked, losses_of, nothing, pairs, plain, rate, snapshot, train

CPU = torch.device("cpu")
#: The same memory under a name that tensors do not have, so that all of them seem to be elsewhere.
FAR = torch.device("cpu", 0)
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Fake:
    """Stands in for `torch.cuda`: every stream counts its work and knows how far it has waited for the others."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.here = threading.local()
        fake = self

        class Stream:
            def __init__(self, device: Any = None) -> None:
                self.work = 0
                self.knows: dict[Any, int] = {}

            def see(self, seen: dict[Any, int]) -> None:
                for stream, work in seen.items():
                    self.knows[stream] = max(work, self.knows.get(stream, 0))

            def wait_event(self, event: Any) -> None:
                fake.calls.append(("wait", (self, event)))
                self.see(event.seen)

            def wait_stream(self, other: Any) -> None:
                self.see({**other.knows, other: other.work})

            def synchronize(self) -> None:
                fake.calls.append(("synchronize", self))

        class Event:
            def __init__(self) -> None:
                self.seen: dict[Any, int] = {}

            def record(self, stream: Any) -> None:
                stream.work += 1
                self.seen = {**stream.knows, stream: stream.work}
                fake.calls.append(("record", (self, stream)))

            def synchronize(self) -> None:
                fake.calls.append(("synchronize", self))

        self.Stream, self.Event = Stream, Event
        self.default = Stream()

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        before = self.current_stream()
        self.here.stream = stream
        try:
            yield
        finally:
            self.here.stream = before

    def current_stream(self, device: Any = None) -> Any:
        return getattr(self.here, "stream", self.default)


@pytest.fixture(params=[FAR, CPU], ids=["copied", "on the device already"])
def rings(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> list[CudaWorkerInput]:
    """Give every worker of the pipeline an input side as on a GPU; the list fills as schedules are made."""
    made: list[CudaWorkerInput] = []

    def input_for(device: torch.device) -> CudaWorkerInput:
        made.append(CudaWorkerInput(request.param, Fake()))
        return made[-1]

    monkeypatch.setattr(continuous, "input_for", input_for)
    return made


def run_through(ring: CudaWorkerInput, x: Any, y: Any = None, event: Any = None) -> TrainBatch:
    """Take one batch through the ring, as a worker whose layer hands on what it got, and return it."""
    batch = TrainBatch(0, x, y)
    batch.events = [event] if event is not None else []
    ring.receive(batch)
    ring.record_output(batch)
    ring.record_done()
    return batch


def test_the_order_of_the_hand_over() -> None:
    fake = Fake()
    ring, source, entered = CudaWorkerInput(FAR, fake), fake.Stream(), fake.Event()
    entered.record(source)
    for turn in range(2 * SLOTS + 1):
        del fake.calls[:]
        batch = TrainBatch(turn, torch.ones(3), torch.zeros(2))
        batch.events = [entered]
        ring.receive(batch)
        slot = ring._slots[ring._current]
        done, wait, filled, compute = fake.calls
        assert done == ("synchronize", slot.done), "the slot was filled before the worker had done with it"
        assert wait == ("wait", (ring._copy, entered)), "the copy did not wait for the tensors"
        assert filled == ("record", (slot.filled, ring._copy))
        assert compute == ("wait", (ring.stream, slot.filled)), "the worker did not wait for the copy"
        assert source in ring.stream.knows
        del fake.calls[:]
        ring.record_output(batch)
        updated = ring.record_done()
        made, freed, of_layer = fake.calls
        assert made == ("record", (batch.events[0], ring.stream))
        assert freed == ("record", (slot.done, ring.stream))
        assert of_layer == ("record", (updated, ring.stream))
        assert entered not in batch.events
        assert len(batch.events) == 1
        assert len({id(one.done) for one in ring._slots}) == SLOTS


def test_the_copy_is_made_on_its_own_stream_and_the_work_on_another(rings: list[CudaWorkerInput]) -> None:
    stack, where = hooked(nothing, layers=2), set()
    set_device(stack, ["cpu:0", "cpu:1"])

    def note(*_: Any) -> None:
        where.add((rings[0].cuda.current_stream(), rings[1].cuda.current_stream()))

    stack[0].enc.f.register_forward_hook(note)
    train("continuous", stack, pairs(3))
    assert where == {(rings[0].stream, rings[1].cuda.default)}
    assert len({rings[0].stream, rings[0]._copy, rings[1].stream, rings[1]._copy}) == 4


def test_sources_live_until_the_slot_is_free_again() -> None:
    ring = CudaWorkerInput(FAR, Fake())
    taken = [torch.full((2,), float(number)) for number in range(SLOTS + 1)]
    for number, source in enumerate(taken):
        run_through(ring, source)
        alive = [one for slot in ring._slots for one in slot.sources]
        expected = taken[max(0, number + 1 - SLOTS) : number + 1]
        assert {id(one) for one in alive} == {id(one) for one in expected}


def test_buffers_are_reused_and_memory_grows_only_with_the_largest_batch() -> None:
    ring, places, sizes = CudaWorkerInput(FAR, Fake()), [], []
    for count in (4, 2, 8, 8, 1, 0, 8, 3, 3, 8):
        batch = TrainBatch(0, torch.randn(count, 5), torch.arange(count))
        expected = batch.x.clone(), batch.y.clone()
        ring.receive(batch)
        assert torch.equal(batch.x, expected[0])
        assert torch.equal(batch.y, expected[1])
        places.append((batch.x.data_ptr(), count))
        sizes.append(sum(flat.untyped_storage().nbytes() for slot in ring._slots for flat in slot._flat))
        ring.record_output(batch)
        ring.record_done()
    assert len({place for place, count in places[2:] if count}) == SLOTS
    assert sizes[3] == sizes[-1] == SLOTS * (8 * 5 * 4 + 8 * 8)


@pytest.mark.parametrize(
    "tree",
    [
        torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last),
        torch.randn(4, 3, 2, 5, 5).to(memory_format=torch.channels_last_3d),
        torch.randn(5, 4).t(),
        torch.randn(6, 4)[::2],
        torch.randn(1, 4).expand(3, 4),
        torch.randn(4, 3, 5).permute(2, 0, 1),
        torch.tensor(3.0),
        torch.empty(0, 4),
        torch.randn(3, dtype=torch.complex64).conj(),
        (torch.arange(3), torch.tensor([True, False]), {"half": torch.randn(2).half(), "text": "kept", "none": None}),
        [torch.randn(2, dtype=torch.float64), (torch.randn(3).bfloat16(), 7)],
        torch.randn(3, requires_grad=True),
    ],
    ids=lambda tree: f"{tuple(tree.shape)}-{tree.stride()}" if isinstance(tree, Tensor) else type(tree).__name__,
)
def test_values_dtypes_and_memory_formats_arrive_as_with_a_plain_move(tree: Any) -> None:
    """The strides are those of `.to(device)`, as the order of a sum may depend on them."""
    ring = CudaWorkerInput(FAR, Fake())
    for _ in range(SLOTS + 1):
        batch = TrainBatch(0, tree, tree)
        ring.receive(batch)
        found, spec = torch.utils._pytree.tree_flatten(batch.x)
        given, expected_spec = torch.utils._pytree.tree_flatten(tree)
        assert spec == expected_spec
        for one, other in zip(found, given, strict=True):
            if not isinstance(other, Tensor):
                assert one == other
                continue
            assert torch.equal(one, other)
            assert one.dtype == other.dtype
            assert one.stride() == torch.empty_like(other, memory_format=torch.preserve_format).stride()
            assert other.numel() == 0 or one.data_ptr() != other.data_ptr()
        ring.record_output(batch)
        ring.record_done()


def test_what_still_lies_in_the_slot_is_copied_out_and_nothing_else() -> None:
    ring = CudaWorkerInput(FAR, Fake())
    own = torch.randn(3)
    batch = TrainBatch(0, (torch.randn(4, 3), torch.randn(4)), torch.randn(2, 2))
    ring.receive(batch)
    inside = batch.x[0], batch.x[1], batch.y
    batch.x = (inside[0][1:].detach(), inside[1].view(2, 2), own)
    batch.losses = [{"one": inside[1][0].detach(), "other": own.sum()}]
    expected = [part.clone() for part in (*batch.x, batch.y, batch.losses[0]["one"])]
    ring.record_output(batch)
    found = [*batch.x, batch.y, batch.losses[0]["one"]]
    for part in inside:
        part.fill_(99.0)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert batch.x[2] is own


def test_a_source_that_changes_while_it_may_still_be_copied_is_an_error() -> None:
    """On a GPU the copy comes when it comes; a change that the host does not see before it is seen after it."""
    ring, source = CudaWorkerInput(FAR, Fake()), torch.randn(3)
    batch = TrainBatch(0, source, None)
    batch.guard = InPlaceGuard("layer_1", source)
    ring.receive(batch)
    source.add_(1)
    for _ in range(SLOTS - 1):
        run_through(ring, torch.randn(3))
    with pytest.raises(RuntimeError, match="'layer_1' handed on a tensor that was changed in place"):
        run_through(ring, torch.randn(3))


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("model", MODELS)
def test_through_rings_training_and_prediction_are_bit_equal(
    model: str, workers: int, rings: list[CudaWorkerInput]
) -> None:
    """A text's lengths go straight through a layer: they lie in the slot's memory when they are handed on."""
    stack = build(model)
    losses = train("continuous", stack, batches(model), workers=workers)
    state, expected = reference(model)
    assert losses == expected
    assert_equal(snapshot(stack), state)
    stack.eval()
    inputs = [x for x, _ in batches(model)]
    with make_schedule("continuous", stack, threads=1, workers=workers) as one:
        assert same(list(one.predict(inputs)), [stack.inference_by_depth(x) for x in inputs])
    assert len(rings) == 2 * workers


def test_through_rings_with_delays_everything_is_equal(rings: list[CudaWorkerInput]) -> None:
    stack = hooked(delay)
    train("continuous", stack, pairs(12), depth=3, workers=3)
    assert_equal(snapshot(stack), plain(12))
    held = [flat.untyped_storage().nbytes() for ring in rings for slot in ring._slots for flat in slot._flat]
    copied = rings[0].device == FAR
    assert len(held) == (3 * SLOTS * 2 if copied else 0), "a slot has a buffer for x and one for y"


def test_a_worker_waits_for_the_update_that_another_one_made_of_the_layer(rings: list[CudaWorkerInput]) -> None:
    """On another stream the weights may still change when the host is long done."""
    last: list[Any] = [None, None, None]
    missed = []

    def hook(layer: int, batch: int, phase: str) -> None:
        number = int(threading.current_thread().name.removeprefix("al-worker-"))
        stream, before = rings[number].stream, last[layer]
        if phase == "forward" and before is not None and before[0] is not stream:
            missed.append(stream.knows.get(before[0], 0) <= before[1])
        if phase == "backward":
            last[layer] = stream, stream.work
        time.sleep(0.001)

    stack = hooked(hook)
    train("continuous", stack, pairs(20), workers=2)
    assert missed, "no layer has changed its worker"
    assert not any(missed)


def test_layers_that_hand_on_their_inputs_are_equal_through_rings(rings: list[CudaWorkerInput]) -> None:
    """The worst case of aliasing: f and g are the identity, views, or choose a part."""

    class Part(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, 1:].flip(0)[:, :]

    def made() -> ALStack:
        torch.manual_seed(3)
        b = [nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(3, 3)]
        f = [nn.Identity(), nn.Flatten(), Part()]
        b[2] = nn.Linear(3, 3)
        return ALStack(
            AL(ENC(one, other), AE(nn.Identity(), nn.Linear(3, 3)), 0.01) for one, other in zip(f, b, strict=True)
        )

    expected, found = made(), made()
    losses = train("sequential", expected, pairs(9))
    assert train("continuous", found, pairs(9)) == losses
    assert_equal(snapshot(found), snapshot(expected))
    assert rings


def test_the_streams_of_the_workers_are_ordered_with_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a run after what the caller has made; after it, however it ends, before what the caller does next."""
    fake, made = Fake(), []

    def input_for(device: torch.device) -> CudaWorkerInput:
        made.append(CudaWorkerInput(FAR, fake))
        return made[-1]

    monkeypatch.setattr(continuous, "input_for", input_for)
    with make_schedule("continuous", hooked(nothing), threads=1) as one:
        for end in ("end", "break", "predict"):
            fake.default.work += 1
            before = fake.default.work
            run = one.predict([pairs(3)[0][0]]) if end == "predict" else one.run(pairs(8))
            for _ in run:
                if end == "break":
                    break
            del run
            for ring in made:
                assert ring.stream.knows[fake.default] >= before, f"{end}: the worker did not wait for the caller"
                assert fake.default.knows[ring.stream] == ring.stream.work, f"{end}: the caller did not wait"


def test_on_the_cpu_a_reference_is_handed_on() -> None:
    x = torch.randn(3)
    batch = PredictBatch(0, x)
    source = WorkerInput(CPU)
    source.receive(batch)
    source.record_output(batch)
    assert batch.x is x
    assert not source.copies
    assert type(handover.input_for(CPU)) is WorkerInput


class OnGpu(Tensor):
    """A tensor that says of itself that it is on a GPU."""

    place = torch.device("cuda", 0)
    is_cuda = True  # type: ignore[assignment]

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """The GPU."""
        return self.place

    def record_stream(self, stream: Any) -> None:
        """Note on the stream that it uses this tensor."""
        stream.used.append(self)


def on_gpu(index: int) -> OnGpu:
    """Return a tensor on GPU `index`."""
    tensor = torch.zeros(2).as_subclass(OnGpu)
    tensor.place = torch.device("cuda", index)
    return tensor


class PerDevice:
    """Stands in for `torch.cuda` where only the current stream of each device matters."""

    class Stream:
        """The current stream of one device."""

        def __init__(self, device: torch.device) -> None:
            self.device = device
            self.waited: list[Any] = []
            self.used: list[Any] = []

        def record_event(self) -> str:
            """Return an event that says where it was recorded."""
            return f"event on {self.device}"

        def wait_event(self, event: Any) -> None:
            """Note the wait."""
            self.waited.append(event)

    def __init__(self) -> None:
        self.streams: dict[torch.device, PerDevice.Stream] = {}

    def current_stream(self, device: torch.device) -> PerDevice.Stream:
        """Return the one stream of the device."""
        return self.streams.setdefault(device, self.Stream(device))


def test_a_batch_on_two_gpus_is_waited_for_on_both() -> None:
    """Guards a bug: only the first tensor's stream was waited for, so y on another GPU than x was a race."""
    fake = PerDevice()
    assert handover.entry_events((on_gpu(0), on_gpu(0)), fake) == ["event on cuda:0"]
    events = handover.entry_events(((on_gpu(1), torch.zeros(1)), {"y": on_gpu(0)}), fake)
    assert events == ["event on cuda:1", "event on cuda:0"]
    assert handover.entry_events((torch.zeros(1), None), fake) == []

    cuda = Fake()
    ring, sources, batch = (
        CudaWorkerInput(FAR, cuda),
        [cuda.Stream(), cuda.Stream()],
        TrainBatch(0, torch.ones(1), None),
    )
    for source in sources:
        event = cuda.Event()
        event.record(source)
        batch.events.append(event)
    ring.receive(batch)
    assert all(source in ring.stream.knows for source in sources)


def test_a_worker_on_the_cpu_waits_for_all_events() -> None:
    waited: list[Any] = []

    class Event:
        def synchronize(self) -> None:
            waited.append(self)

    batch = TrainBatch(0, torch.ones(1), torch.ones(1))
    batch.events = events = [Event(), Event()]
    WorkerInput(CPU).receive(batch)
    assert waited == events
    assert not batch.events


def test_what_the_caller_gets_is_ordered_after_the_last_layer_on_every_gpu() -> None:
    fake, batch = PerDevice(), TrainBatch(0, None, None)
    batch.losses = [{"a": on_gpu(0), "b": on_gpu(0)}, {"a": on_gpu(1)}, {"a": torch.zeros(())}]
    batch.events = ["done"]
    handover.sync_with_caller(batch, fake)
    assert [stream.waited for stream in fake.streams.values()] == [["done"], ["done"]]
    assert [len(stream.used) for stream in fake.streams.values()] == [2, 1]


@pytest.fixture
def deterministic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have a GPU take the same order of every sum."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.gpu
@gpu
@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("pattern", [["cuda:0"], ["cpu", "cuda:0"], ["cuda:0", "cpu"], ["cpu", "cuda:0", "cuda:0"]])
@pytest.mark.parametrize("model", MODELS)
def test_on_a_gpu_every_list_of_devices_is_equal_to_sequential(model: str, pattern: list[str]) -> None:
    results = []
    for schedule, streams in (("sequential", None), ("al-fm", None), ("continuous", 1), ("continuous", 3)):
        stack = build(model)
        stack.set_device([pattern[number % len(pattern)] for number in range(len(stack))])
        options = {} if streams is None else {"streams_per_device": streams}
        losses = train(schedule, stack, batches(model), **options)
        state = {name: value.cpu() for name, value in snapshot(stack).items()}
        stack.eval()
        inputs = [x for x, _ in batches(model)]
        with make_schedule(schedule, stack, threads=1, seed=SEED, **options) as one:
            found = [[y.cpu() for y in ys] for ys in one.predict(inputs)]
        assert same(found, [[y.cpu() for y in stack.inference_by_depth(x)] for x in inputs])
        results.append((state, losses))
    for state, losses in results[1:]:
        assert losses == results[0][1]
        assert_equal(state, results[0][0])


@pytest.mark.gpu
@gpu
def test_on_a_gpu_batches_that_are_there_already_are_equal_too() -> None:
    runs = []
    for schedule in ("sequential", "continuous"):
        stack = hooked(nothing).cuda()
        with make_schedule(schedule, stack, threads=1, seed=SEED) as one:
            losses = losses_of(list(one.run([(x.cuda(), y.cuda()) for x, y in pairs(8)], lr=rate)))
        runs.append((losses, snapshot(stack)))
    assert runs[0][0] == runs[1][0]
    assert_equal(runs[1][1], runs[0][1])


def test_a_worker_that_ends_waits_for_its_stream_and_lets_go_of_its_batches() -> None:
    """Guards a bug: after a failure the weights could be read while the worker's stream still wrote them."""
    fake = Fake()
    ring = CudaWorkerInput(FAR, fake)

    def work() -> None:
        with ring.computing():
            run_through(ring, torch.ones(3))
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert fake.calls[-1] == ("synchronize", ring.stream)
    assert all(not slot.sources for slot in ring._slots)


def test_sources_of_which_only_some_need_staging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a bug: with pinned inputs, as from a DataLoader, the first batch was an IndexError."""
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda self: len(self) == 3)
    monkeypatch.setattr(handover, "_room", unpinned(handover._room))
    ring = CudaWorkerInput(FAR, Fake())
    for slot in ring._slots:
        slot._pin = True
    given = torch.arange(3.0), torch.arange(4.0), torch.arange(3.0), torch.arange(5.0)
    for _ in range(3):
        batch = run_through(ring, given)
        assert all(torch.equal(found, source) for found, source in zip(batch.x, given, strict=True))


def unpinned(room: Any) -> Any:
    """Return `room` without the pinning, for which there is nothing to pin for here."""
    return lambda flats, number, like, device, pin=False: room(flats, number, like, device)
