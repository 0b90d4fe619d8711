"""What each worker did when: sums of its time, spans of its work, and a Chrome trace of them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

#: What a worker can be doing. In the last three no layer is at work: "wait for data" is for the caller's next batch,
#: "idle" is for another worker.
PHASES = ("forward", "backward", "inference", "copy", "wait for data", "idle")


@dataclass(frozen=True)
class Span:
    """What a worker did with one batch: `phase` is one of `PHASES`; times in s of a monotonic clock, on the host.

    `layer` is a layer's name; for a copy or a wait it is that of the layer that comes next. `worker` is its thread's
    name.
    """

    layer: str
    batch: int
    phase: str
    start: float
    stop: float
    worker: str = ""

    @property
    def work(self) -> bool:
        """Whether a layer was at work."""
        return self.phase in ("forward", "backward", "inference")


@dataclass
class Usage:
    """How a worker has spent its time in training, in s, since its schedule was made.

    `layers`: those that it may run. `batches`: how often it has run one. `copy`: the transfer to its device. `idle`: no
    layer was ready, and `no_data` is the part of it that was the caller's to end. `layer_busy` and `layer_batches`: the
    parts of `busy` and of `batches` that belong to each layer, by name. On a GPU these are times of the host, which
    launches the work and waits for it.
    """

    device: str
    layers: list[str]
    batches: int = 0
    busy: float = 0.0
    copy: float = 0.0
    idle: float = 0.0
    no_data: float = 0.0
    layer_busy: dict[str, float] = field(default_factory=dict)
    layer_batches: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.layers:
            self.layer_busy.setdefault(name, 0.0)
            self.layer_batches.setdefault(name, 0)

    def since(self, before: Usage) -> Usage:
        """Return what has been added since the worker's usage was `before`."""
        return Usage(
            self.device,
            self.layers,
            self.batches - before.batches,
            self.busy - before.busy,
            self.copy - before.copy,
            self.idle - before.idle,
            self.no_data - before.no_data,
            {name: busy - before.layer_busy.get(name, 0.0) for name, busy in self.layer_busy.items()},
            {name: count - before.layer_batches.get(name, 0) for name, count in self.layer_batches.items()},
        )

    def add(self, layer: str, *, busy: float, copy: float, idle: float, no_data: float) -> None:
        """Add one batch of one layer, and the wait before it."""
        self.batches += 1
        self.busy += busy
        self.copy += copy
        self.idle += idle
        self.no_data += no_data
        self.layer_busy[layer] += busy
        self.layer_batches[layer] += 1


class Trace:
    """A recorder of spans that any thread may write to (a list append is atomic in CPython).

    It keeps the first `limit` spans and counts the rest in `dropped`, so that a long run does not fill the memory.
    """

    def __init__(self, limit: int = 200_000) -> None:
        self.spans: list[Span] = []
        self.limit = limit
        self.dropped = 0

    @contextmanager
    def span(self, layer: str, batch: int, phase: str) -> Iterator[None]:
        """Record the time spent inside the `with` block, on the host's clock."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(layer, batch, phase, start, time.perf_counter())

    def add(self, layer: str, batch: int, phase: str, start: float, stop: float) -> None:
        """Record a span of the calling thread."""
        if len(self.spans) >= self.limit:
            self.dropped += 1
            return
        self.spans.append(Span(layer, batch, phase, start, stop, threading.current_thread().name))

    def write_chrome(self, path: Path) -> None:
        """Write the spans in Chrome's trace format (microseconds), a track per worker, which Perfetto opens."""
        workers = {name: number for number, name in enumerate(dict.fromkeys(span.worker for span in self.spans))}
        names = [
            {"name": "thread_name", "ph": "M", "pid": 0, "tid": number, "args": {"name": worker}}
            for worker, number in workers.items()
        ]
        events = [
            {
                "name": f"{span.layer} {span.phase} {span.batch}" if span.work else span.phase,
                "cat": span.phase,
                "ph": "X",
                "ts": span.start * 1e6,
                "dur": (span.stop - span.start) * 1e6,
                "pid": 0,
                "tid": workers[span.worker],
                "args": {"layer": span.layer, "batch": span.batch},
            }
            for span in self.spans
        ]
        path.write_text(json.dumps({"traceEvents": names + events}), encoding="utf-8")
