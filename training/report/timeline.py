"""The timeline of a run as a picture: what every worker did when, so that the overlap shows."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from ALPackage.stage.trace import Span, Trace
from data.storage.files import atomic_write

from ..errors import UsageError, reason
from .drawing import Axes, Figure, Patch, plain_settings, to_rgb
from .excerpt import Timeline, timeline
from .look import LAYERS

#: What is no work: its color, and its name in the legend.
THIN = {"idle": ("#cccccc", "idle"), "wait for data": ("#000000", "waits for data"), "copy": ("#888888", "copies")}


def write_trace(
    trace: Trace, path: Path, *, title: str, workers: Mapping[str, str] = MappingProxyType({})
) -> list[Path]:
    """Write the Chrome trace to `path` and the picture beside it, and return both files.

    A `path` that ends in .png names the picture. `workers`: how the picture calls them, by thread. Raises UsageError
    where writing fails.
    """
    chrome, picture = prepare_trace(path)
    try:
        trace.write_chrome(chrome)
        draw_timeline(trace, picture, title=title, workers=workers)
    except OSError as error:
        raise UsageError(f"--trace {path}: cannot be written ({reason(error)}); name another file") from None
    return [chrome, picture]


def prepare_trace(path: Path) -> tuple[Path, Path]:
    """Make the folder of the Chrome trace and the picture, and return both files. Raises UsageError."""
    if path.name in ("", ".."):
        raise UsageError(f"--trace {path}: cannot be written (it names a folder); name a file, such as trace.json")
    chrome, picture = path.with_suffix(".json") if path.suffix == ".png" else path, path.with_suffix(".png")
    try:
        chrome.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=chrome.parent):
            pass
        for file in (chrome, picture):
            if file.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    except OSError as error:
        raise UsageError(f"--trace {path}: cannot be written ({reason(error)}); name another file") from None
    return chrome, picture


@plain_settings()
def draw_timeline(trace: Trace, path: Path, *, title: str, workers: Mapping[str, str] = MappingProxyType({})) -> None:
    """Draw how the pipeline fills, and an excerpt from the middle of the run, as a PNG.

    A row per worker, a color per layer: light for forward, dark for backward and update; thin where nothing is trained.
    Raises ValueError for a trace without work.
    """
    shown = timeline(trace, workers)
    if shown is None:
        raise ValueError("draw_timeline: the trace holds no training; record a run first")
    color = {layer: LAYERS[number % len(LAYERS)] for number, layer in enumerate(shown.layers)}
    panels = shown.excerpts
    figure = Figure(figsize=(14, 0.8 + len(panels) * (0.9 + 0.5 * len(shown.workers))), layout="constrained")
    figure.suptitle(title)
    for axes, part in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True):
        _panel(axes, part.spans, part.start, shown, color)
        axes.set_title(f"{part.name}: from batch {part.batch}", loc="left", fontsize="medium")
        axes.set_xlim(0, (part.stop - part.start) * 1e3)
    axes.set_xlabel("ms")
    legend = [Patch(color=shade, label=layer) for layer, shade in color.items()]
    legend += [
        Patch(color=_light("#444444"), label="light: forward"),
        Patch(color="#444444", label="dark: backward, update"),
    ]
    phases = {span.phase for part in panels for span in part.spans}
    legend += [Patch(color=shade, label=f"thin: {told}") for phase, (shade, told) in THIN.items() if phase in phases]
    figure.legend(
        handles=legend, loc="outside lower center", ncols=min(len(legend), 8), fontsize="small", frameon=False
    )
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=110)


def _panel(axes: Axes, spans: Sequence[Span], start: float, shown: Timeline, color: dict[str, str]) -> None:
    """Draw the spans, a row per worker from the top down."""
    axes.set_yticks(range(len(shown.workers)), shown.titles)
    axes.set_ylim(len(shown.workers) - 0.5, -0.5)
    left, right = start, max(span.stop for span in spans)
    for row, worker in enumerate(shown.workers):
        mine = [span for span in spans if span.worker == worker]
        bars = [span for span in mine if span.phase in ("forward", "backward")]
        idle = [span for span in mine if span.phase in THIN]
        places = [((span.start - start) * 1e3, (span.stop - span.start) * 1e3) for span in bars]
        shades = [color[span.layer] if span.phase == "backward" else _light(color[span.layer]) for span in bars]
        axes.broken_barh(places, (row - 0.4, 0.8), facecolors=shades, edgecolors="white", linewidths=0.5)
        thin = [((span.start - start) * 1e3, (span.stop - span.start) * 1e3) for span in idle]
        axes.broken_barh(thin, (row - 0.06, 0.12), facecolors=[THIN[span.phase][0] for span in idle])
        for span, (begin, width) in zip(bars, places, strict=True):
            if width > (right - left) * 1e3 / 60:
                text = "white" if span.phase == "backward" else "black"
                axes.text(
                    begin + width / 2,
                    row,
                    str(span.batch),
                    ha="center",
                    va="center",
                    fontsize=7,
                    color=text,
                    clip_on=True,
                )


def _light(color: str) -> tuple[float, float, float]:
    red, green, blue = (1 - 0.45 * (1 - part) for part in to_rgb(color))
    return red, green, blue
