"""What the timeline of a run shows: a few batches from its beginning and, of a longer run, a few from its middle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ALPackage.stage.trace import Span, Trace

#: Batches that an excerpt shows.
SHOWN = 8
MAIN = "MainThread"


@dataclass(frozen=True)
class Excerpt:
    """Everything that was recorded while `SHOWN` batches, from `batch` on, were worked on."""

    name: str
    batch: int
    start: float
    stop: float
    spans: list[Span]


@dataclass(frozen=True)
class Timeline:
    """The excerpts of a run, with its layers in the order of their first work."""

    layers: list[str]
    workers: list[str]
    """The threads that worked: the main thread first, then as the titles are, or in the order of their first work."""
    titles: list[str]
    """How a reader knows them."""
    excerpts: list[Excerpt]

    def to_json(self) -> dict[str, Any]:
        """Return everything for a JSON file. A span: worker, layer, phase, batch, start and stop in ms."""
        return {
            "workers": self.titles,
            "layers": self.layers,
            "excerpts": [
                {
                    "name": part.name,
                    "batch": part.batch,
                    "milliseconds": _ms(part.stop - part.start),
                    "spans": [
                        [
                            self.workers.index(span.worker),
                            span.layer,
                            span.phase,
                            span.batch,
                            _ms(max(0.0, span.start - part.start)),
                            _ms(min(span.stop, part.stop) - part.start),
                        ]
                        for span in part.spans
                        if span.worker in self.workers
                    ],
                }
                for part in self.excerpts
            ],
        }


def timeline(trace: Trace, titles: Mapping[str, str] = MappingProxyType({})) -> Timeline | None:
    """Return what is shown of a trace; None for one without training. `titles`: of the workers, by thread."""
    work = [span for span in trace.spans if span.phase in ("forward", "backward")]
    if not work:
        return None
    layers = list(dict.fromkeys(span.layer for span in sorted(work, key=lambda span: span.start)))
    first, last = min(span.batch for span in work), max(span.batch for span in work)
    middle = max(first, (first + last - SHOWN) // 2)
    places = [(first, "the beginning")]
    if middle > first + SHOWN:
        places.append((middle, "further on"))
    workers = sorted(_workers(work), key=lambda name: (name != MAIN, list(titles).index(name) if name in titles else 0))
    shown = {MAIN: "main thread", **titles}
    return Timeline(
        layers,
        workers,
        [shown.get(name, name) for name in workers],
        [_excerpt(name, batch, work, trace.spans) for batch, name in places],
    )


def _excerpt(name: str, batch: int, work: Sequence[Span], spans: Sequence[Span]) -> Excerpt:
    shown = [span for span in work if batch <= span.batch < batch + SHOWN]
    start, stop = min(span.start for span in shown), max(span.stop for span in shown)
    return Excerpt(name, batch, start, stop, [span for span in spans if span.stop > start and span.start < stop])


def _workers(work: Sequence[Span]) -> list[str]:
    names = dict.fromkeys(span.worker for span in sorted(work, key=lambda span: (span.batch, span.start)))
    return list(names)


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)
