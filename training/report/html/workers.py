"""What the workers did: how much of the time each was at work, and a timeline of a traced run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element

from ..results import Result, TimelineSpans, Use, WorkerUse
from .chart import key, legend, picture
from .markup import Child, el
from .scale import Scale
from .style import part_class
from .tables import table

#: Fields, names and colors; the last fills what the others leave of a bar.
SHARES = (
    ("busy", "busy", "busy"),
    ("data", "waits for data", "data"),
    ("copy_", "copies", "copies"),
    ("idle", "idle", "rest"),
)
#: What is no training, in a timeline: its class, its height, and its name in the legend.
WAITS = {
    "idle": ("idle", 5, "idle"),
    "wait for data": ("starved", 5, "waits for data"),
    "copy": ("copying", 10, "copies"),
}
#: In results of when a worker owned neighboring layers.
EARLIER = {"wait for input": "idle", "wait for space": "idle"}


def usage(use: Use) -> list[Element | str]:
    """Return the table of the workers, with what follows from it."""
    rows: list[list[Element | str]] = [
        [
            row.device,
            _bar(row),
            *(f"{getattr(row, name):.0f} %" for name, _, _ in SHARES),
            el("span", _shares(row.ran) or ", ".join(row.layers), class_="layers"),
        ]
        for row in use.devices
    ]
    colors = [el("span", _swatch(css), title) for _, title, css in SHARES]
    head: list[Child] = ["worker", "share of the training time", *colors, "layers that it ran, of its busy time"]
    found: list[Element | str] = [table("How each worker spent its training time", head, rows, words=(1, 6))]
    if use.layers:
        cells = [
            [one.layer, f"{one.share:.0f} %", f"{one.ms_per_batch:.3g}", _shares(one.workers)] for one in use.layers
        ]
        head = ["layer", "share of all work", "ms per batch", "workers that ran it"]
        found.append(table("What each layer cost inside the run", head, cells, words=(3,)))
    if len(use.devices) > 1:
        text = (
            f"Utilization {use.utilization:.0f} %: {use.at_work:.2f} of {len(use.devices)} workers were at work on "
            f"average; the ceiling for these workers and layers is {use.ceiling:.2f}. Most time went into "
            f"{use.bottleneck}."
        )
        if use.speedup_estimate is not None:
            text += (
                f" Estimated speed-up over a sequential run: {use.speedup_estimate:.2f}x, from the layers' costs "
                "measured before the run."
            )
        found.append(el("p", text))
    found.append(el("p", use.advice[:1].upper() + use.advice[1:] + "."))
    return found


def timeline(shown: TimelineSpans) -> list[Element]:
    """Return a picture per excerpt, and the legend."""
    css = {layer: part_class(number) for number, layer in enumerate(shown.layers)}
    names = [(key(color, "", "box"), layer) for layer, color in css.items()]
    phases = {EARLIER.get(span[2], span[2]) for part in shown.excerpts for span in part.spans}
    names += [(key(color, "", "box"), told) for phase, (color, _, told) in WAITS.items() if phase in phases]
    figures = [legend(names)]
    for part in shown.excerpts:
        figures.append(_excerpt(part.name, part.batch, part.milliseconds, part.spans, shown.workers, css))
    return figures


def plan(result: Result) -> Element | None:
    """Return the layers with what they cost, measured before the run, and where they went."""
    layers = (result.info.plan or {}).get("layers")
    if not isinstance(layers, list) or not layers:
        return None
    rows = []
    for layer in layers:
        forward, backward = float(layer["forward_ms"]), float(layer["backward_ms"])
        cells = [layer["name"], layer["device"], f"{forward:.1f}", f"{backward:.1f}", f"{layer['bytes'] / 2**20:.0f}"]
        rows.append([str(cell) for cell in cells])
    head = ["layer", "device", "forward (ms)", "backward (ms)", "memory (MiB)"]
    return table("Cost of each layer per batch, measured before the run", head, rows, words=(1,))


def _swatch(css: str) -> Element:
    """Return the color of a share, for the head of its column."""
    box = el("rect", x=0, y=0, width=12, height=12, class_=css)
    return el("svg", box, viewBox="0 0 12 12", class_="swatch", aria_hidden="true")


def _shares(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:.0f} %" for name, share in shares.items())


def _bar(row: WorkerUse) -> Element:
    """Return the shares of a worker as one bar."""
    parts, at = [el("rect", x=0, y=0, width=200, height=20, class_="rest")], 0.0
    told = []
    for name, title, css in SHARES:
        share = min(max(0.0, float(getattr(row, name))), 100.0 - at)
        told.append(f"{title} {share:.0f} %")
        if share:
            text = el("title", f"{title}: {share:.1f} %")
            parts.append(el("rect", text, x=round(2 * at, 1), y=0, width=round(2 * share, 1), height=20, class_=css))
        at += share
    return picture(f"{row.device}: {', '.join(told)}", 200, 20, *parts, class_="bar")


def _excerpt(
    name: str,
    batch: int,
    milliseconds: float,
    spans: Sequence[tuple[int, str, str, int, float, float]],
    workers: Sequence[str],
    css: dict[str, str],
) -> Element:
    """Return a row per worker: pale for forward, full for backward and update, thin and gray for waiting."""
    width, row, left = 1040, 34, 16 + 7 * max(map(len, workers), default=0)
    bottom = 8 + row * len(workers)
    x = Scale(0.0, max(milliseconds, 1e-6), left, width - 10)
    parts = [
        el("text", worker, x=left - 8, y=8 + row * (number + 0.5) + 4, text_anchor="end")
        for number, worker in enumerate(workers)
    ]
    for value, text in x.ticks(10):
        parts.append(el("path", d=f"M{x(value):g} 4V{bottom}", class_="grid"))
        parts.append(el("text", text, x=x(value), y=bottom + 16, text_anchor="middle"))
    parts.append(el("text", "ms", x=width - 10, y=bottom + 32, text_anchor="end"))
    for worker, layer, phase, number, start, stop in spans:
        phase = EARLIER.get(phase, phase)
        work = phase in ("forward", "backward")
        if not work and phase not in WAITS:
            continue  # inference
        begin, end, middle = x(max(0.0, start)), x(min(stop, milliseconds)), 8 + row * (worker + 0.5)
        if end - begin < 0.4 and not work:
            continue  # too short to be seen
        wait, height, _ = ("", 24, "") if work else WAITS[phase]
        what = f"{layer}, {phase}, batch {number}" if work else phase
        look = f"{'pale' if phase == 'forward' else 'box'} {css.get(layer, '') if work else wait}"
        box = el("rect", el("title", f"{what}: {stop - start:.2f} ms"), x=begin, y=middle - height / 2, class_=look)
        box.attrib |= {"width": f"{max(end - begin, 0.6):.1f}", "height": str(height)}
        parts.append(box)
    about = f"Timeline, {name}, from batch {batch}: what {len(workers)} workers did during {milliseconds:.0f} ms"
    text = (
        f"{name.capitalize()}, from batch {batch}. Pale: forward; solid: backward and update; thin: idle, waits, "
        "copies; empty: no training."
    )
    drawing = picture(about, width, bottom + 38, *parts, class_="chart long")
    box = el("div", drawing, class_="wide", tabindex="0", role="group", aria_label="Timeline")
    return el("figure", box, el("figcaption", text))
