"""Line charts as SVG, with a text for every point that is under the mouse.

Drawn by hand, because a page is written after every epoch: matplotlib needs half a second for these pictures where this
needs some milliseconds, its files are several times as large, and they know one background.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from xml.etree.ElementTree import Element

from .markup import add, el
from .scale import Scale

WIDTH, HEIGHT = 480, 290
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 28, 44
#: Points that a curve is drawn with at most, and that have a text: a chart is not wider, and the page stays small.
DRAWN, TOLD = 300, 100
#: Curves that have a band, which of more would hide each other.
BANDS = 8
DASHES = {"-": None, "--": "7 4", "-.": "8 3 2 3", ":": "2 4"}


class Point(NamedTuple):
    """A mean, and the least and the most of what it is the mean of."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """A line with a band."""

    name: str
    css: str
    """The class that has its color."""
    points: Sequence[Point]
    line: str = "-"
    """Empty for markers alone."""
    marker: str = ""
    band: bool = False
    stars: Sequence[tuple[float, float, str]] = field(default=())
    """Points of their own, with what they say."""


@dataclass(frozen=True)
class Axes:
    """What a chart is about. `name` is above it, with what goes upwards; `about` says it to who cannot see it."""

    name: str
    about: str
    x: str
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    log: bool = False
    whole: bool = False
    told: Callable[[float], str] = "{:.4g}".format
    """How a value is written."""
    unit: str = ""
    place: Callable[[int, float], str] = "epoch {}, {:,.1f} s".format
    """How the place of a point is written, from its number and its x; on an axis of whole numbers it is x itself."""


def chart(axes: Axes, curves: Sequence[Curve]) -> Element:
    """Return the chart."""
    x = Scale(*axes.x_range, LEFT, WIDTH - RIGHT, whole=axes.whole)
    y = Scale(*axes.y_range, HEIGHT - BOTTOM, TOP, log=axes.log)
    svg = picture(axes.about, WIDTH, HEIGHT, *_frame(axes, x, y), class_="chart")
    for curve in curves if len(curves) <= BANDS else ():
        if curve.band:
            svg.append(el("path", d=_band(thin(curve.points), x, y), class_=f"band {curve.css}"))
    for curve in curves:
        group = el("g", class_=curve.css)
        points = thin(curve.points)
        if curve.line:
            group.append(el("path", d=_line(points, x, y), class_="curve", stroke_dasharray=DASHES[curve.line]))
        if curve.marker and len(points) <= 30:
            for point in _finite(points):
                group.append(el("path", d=shape(curve.marker, x(point.x), y(point.y)), class_="dot"))
        svg.append(group)
    add(svg, *(_strips(axes, curves, x, y) if axes.whole else _hits(axes, curves, x, y)))
    for curve in curves:
        for at, value, text in curve.stars:
            star = el("path", el("title", text), d=shape("*", x(at), y(value), 6.5), class_=f"star {curve.css}")
            svg.append(star)
    return svg


def picture(about: str, width: float, height: float, *children: Element, class_: str) -> Element:
    """Return an SVG of this size, which scales with the page; `about` says what it shows to who cannot see it."""
    box = f"0 0 {width:g} {height:g}"
    size: dict[str, str | float | None] = {"viewBox": box, "width": width, "height": height}
    return el("svg", el("title", about), *children, role="img", aria_label=about, class_=class_, **size)


def key(css: str, line: str = "-", marker: str = "") -> Element:
    """Return the sample of a curve, for a legend."""
    sample = el("svg", viewBox="0 0 42 16", class_=f"key {css}", aria_hidden="true")
    if line:
        sample.append(el("path", d="M2 8H40", class_="curve", stroke_dasharray=DASHES[line]))
    if marker:
        size = {"*": 6.5, "box": 6.0}.get(marker, 4.0)
        css = {"*": "star", "box": "box"}.get(marker, "dot")
        sample.append(el("path", d=shape(marker, 21, 8, size), class_=css))
    return sample


def legend(entries: Iterable[tuple[Element, str]]) -> Element:
    """Return a legend of samples and names."""
    return el("ul", *(el("li", sample, name) for sample, name in entries), class_="legend")


def shape(marker: str, x: float, y: float, size: float = 3.6) -> str:
    """Return the path of a marker."""
    if marker == "o":
        return f"M{x - size:g} {y:g}a{size:g} {size:g} 0 1 0 {2 * size:g} 0a{size:g} {size:g} 0 1 0 {-2 * size:g} 0z"
    corners, first, inner = {
        "s": (4, 45, 0.0), "box": (4, 45, 0.0), "D": (4, 0, 0.0), "^": (3, 0, 0.0), "v": (3, 180, 0.0),
        "<": (3, 270, 0.0), ">": (3, 90, 0.0), "p": (5, 0, 0.0), "*": (5, 0, 0.42),
    }[marker]  # fmt: skip
    count = corners * (2 if inner else 1)
    points = []
    for number in range(count):
        angle = math.radians(first + 360 * number / count)
        radius = size * 1.25 * (inner if inner and number % 2 else 1.0)
        points.append(f"{x + radius * math.sin(angle):.1f} {y - radius * math.cos(angle):.1f}")
    return f"M{'L'.join(points)}z"


def thin(points: Sequence[Point], most: int = DRAWN) -> list[Point]:
    """Return at most about `most` of the points; of those that are left out none is higher or lower than the rest."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(2 * len(points) / most)
    kept = [points[0]]
    for start in range(0, len(points), size):
        bucket = points[start : start + size]
        finite = sorted(_finite(bucket), key=lambda point: point.y)
        gaps = [point for point in bucket if not math.isfinite(point.y)]
        kept += [*finite[:1], *finite[-1:], *gaps[:1]]
    return sorted({point.x: point for point in [*kept, points[-1]]}.values(), key=lambda point: point.x)


def _frame(axes: Axes, x: Scale, y: Scale) -> Iterable[Element]:
    """Yield grid, axes and their texts."""
    yield el("text", axes.name, x=0, y=14, class_="name")
    for value, text in y.ticks():
        yield el("path", d=f"M{LEFT} {y(value):g}H{WIDTH - RIGHT}", class_="grid")
        yield el("text", text, x=LEFT - 7, y=y(value) + 4, text_anchor="end")
    yield el("path", d=f"M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}", class_="axis")
    for value, text in x.ticks(8):
        yield el("path", d=f"M{x(value):g} {HEIGHT - BOTTOM}v4", class_="axis")
        yield el("text", text, x=x(value), y=HEIGHT - BOTTOM + 17, text_anchor="middle")
    yield el("text", axes.x, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 6, text_anchor="middle")


def _line(points: Sequence[Point], x: Scale, y: Scale) -> str:
    """Return the path of a curve, which has gaps where there is no number."""
    parts, before = [], False
    for point in points:
        drawn = _drawable(point.y, y)
        if drawn:
            parts.append(f"{'L' if before else 'M'}{x(point.x):g} {y(point.y):g}")
        before = drawn
    return "".join(parts)


def _band(points: Sequence[Point], x: Scale, y: Scale) -> str:
    """Return the outline of a band, in parts where there are gaps."""
    parts: list[list[Point]] = [[]]
    for point in points:
        if _drawable(point.low, y) and _drawable(point.high, y):
            parts[-1].append(point)
        elif parts[-1]:
            parts.append([])
    outlines = []
    for part in parts:
        there = [f"{x(point.x):g} {y(point.high):g}" for point in part]
        back = [f"{x(point.x):g} {y(point.low):g}" for point in reversed(part)]
        if part:
            outlines.append(f"M{'L'.join(there + back)}z")
    return "".join(outlines)


def _strips(axes: Axes, curves: Sequence[Curve], x: Scale, y: Scale) -> Iterable[Element]:
    """Yield a strip per whole number, which says the value of every curve there."""
    values: dict[float, list[str]] = {}
    for curve in curves:
        for point in curve.points:
            values.setdefault(point.x, []).append(f"{curve.name}: {_told(axes, curve, point)}")
    places = sorted(values)
    places = places[:: math.ceil(len(places) / TOLD)] if places else []
    for number, place in enumerate(places):
        left = (x(place) + x(places[number - 1])) / 2 if number else LEFT
        right = (x(place) + x(places[number + 1])) / 2 if number + 1 < len(places) else WIDTH - RIGHT
        text = "\n".join([f"{axes.x.lower()} {place:g}", *values[place]])
        width, height = f"{right - left:g}", HEIGHT - BOTTOM - TOP
        yield el("rect", el("title", text), x=f"{left:g}", y=TOP, width=width, height=height, class_="hit")


def _hits(axes: Axes, curves: Sequence[Curve], x: Scale, y: Scale) -> Iterable[Element]:
    """Yield a circle per point, which says its value."""
    for curve in curves:
        every = math.ceil(len(curve.points) / TOLD) if curve.points else 1
        for number, point in list(enumerate(curve.points, start=1))[::every]:
            if _drawable(point.y, y):
                told = f"{curve.name}, {axes.place(number, point.x)}: {_told(axes, curve, point)}"
                yield el("circle", el("title", told), cx=x(point.x), cy=y(point.y), r=8, class_="hit")


def _told(axes: Axes, curve: Curve, point: Point) -> str:
    if not math.isfinite(point.y):
        return "not finite"
    spread = f" ({axes.told(point.low)} to {axes.told(point.high)})" if curve.band and point.low < point.high else ""
    return f"{axes.told(point.y)}{spread}{axes.unit}"


def _drawable(value: float, scale: Scale) -> bool:
    return math.isfinite(value) and (value > 0 or not scale.log)


def _finite(points: Iterable[Point]) -> Iterable[Point]:
    return (point for point in points if math.isfinite(point.y))
