"""What each worker did when: its use of time, spans of work, how much of them overlapped, and a Chrome trace."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

#: What a worker can be at; the last three are not work.
PHASES = ("forward", "backward", "inference", "copy", "wait for input", "wait for space")


@dataclass(frozen=True)
class Span:
    """What a worker did on one batch: `phase` is one of `PHASES`; times in s of a monotonic clock, on the host.

    `layer` is a layer's name, or that of a stage's first layer for a copy or a wait. `worker` is its thread's name.
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
    """How a worker has spent its time, in s, since it was last asked to start anew.

    `copy` is the hand-over to its device. On a GPU these are the times of the host, which launches the work and waits.
    """

    device: str
    layers: list[str]
    batches: int = 0
    busy: float = 0.0
    copy: float = 0.0
    wait_input: float = 0.0
    wait_space: float = 0.0
    layer_busy: dict[str, float] = field(default_factory=dict)
    """Seconds of work by layer."""


class Trace:
    """A recorder of spans that any thread may write to (a list append is atomic in CPython).

    It keeps the first `limit` spans and counts the others in `dropped`, so that a long run does not fill the memory.
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

    def busy(self) -> dict[str, float]:
        """Return the seconds of work per layer."""
        total: dict[str, float] = {}
        for span in filter(lambda span: span.work, self.spans):
            total[span.layer] = total.get(span.layer, 0.0) + span.stop - span.start
        return total

    def overlap(self) -> float:
        """Return the seconds during which at least two different layers were at work."""
        spans = [span for span in self.spans if span.work]
        edges = sorted([(s.start, 1, s.layer) for s in spans] + [(s.stop, -1, s.layer) for s in spans])
        active: dict[str, int] = {}
        total, last = 0.0, 0.0
        for when, change, layer in edges:
            if len(active) >= 2:
                total += when - last
            last = when
            active[layer] = active.get(layer, 0) + change
            if active[layer] == 0:
                del active[layer]
        return total

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
