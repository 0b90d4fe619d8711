"""What each layer did when: spans of work, how much of them overlapped, and a Chrome trace."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Span", "Trace"]


@dataclass(frozen=True)
class Span:
    """Work of one layer on one batch: `phase` is "forward" or "backward"; times in s of a monotonic clock."""

    layer: str
    batch: int
    phase: str
    start: float
    stop: float


class Trace:
    """A recorder of spans that any thread may write to (a list append is atomic in CPython)."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._threads: dict[Span, str] = {}

    @contextmanager
    def span(self, layer: str, batch: int, phase: str) -> Iterator[None]:
        """Record the time spent inside the `with` block, on the host's clock."""
        start = time.perf_counter()
        try:
            yield
        finally:
            done = Span(layer, batch, phase, start, time.perf_counter())
            self.spans.append(done)
            self._threads[done] = threading.current_thread().name

    def busy(self) -> dict[str, float]:
        """Return the seconds of work per layer."""
        total: dict[str, float] = {}
        for span in self.spans:
            total[span.layer] = total.get(span.layer, 0.0) + span.stop - span.start
        return total

    def overlap(self) -> float:
        """Return the seconds during which at least two different layers were at work."""
        edges = sorted([(s.start, 1, s.layer) for s in self.spans] + [(s.stop, -1, s.layer) for s in self.spans])
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
        """Write the spans in Chrome's trace format (microseconds), which Perfetto opens."""
        events = [
            {
                "name": f"{span.layer} {span.phase} {span.batch}",
                "ph": "X",
                "ts": span.start * 1e6,
                "dur": (span.stop - span.start) * 1e6,
                "pid": 0,
                "tid": self._threads[span],
            }
            for span in self.spans
        ]
        path.write_text(json.dumps({"traceEvents": events}), encoding="utf-8")
