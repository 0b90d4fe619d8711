"""The picture of a run shows every worker's bars where they belong; both files of a trace are written, or one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread

from ALPackage.stage.trace import Span, Trace
from training.errors import UsageError
from training.report.look import LAYERS
from training.report.timeline import draw_timeline, write_trace


def pipeline(batches: int, stages: int = 2) -> Trace:
    """Return the trace of layers a, b, .. whose passes take a second each; each is a second behind the one before."""
    trace = Trace()
    for batch in range(batches):
        for number in range(stages):
            start = 2.0 * batch + number
            layer, worker = chr(ord("a") + number), f"al-worker-{number}"
            trace.spans.append(Span(layer, batch, "forward", start, start + 1, worker))
            trace.spans.append(Span(layer, batch, "backward", start + 1, start + 2, worker))
    return trace


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Figure]:
    """Keep the figures instead of writing them; their files are empty, and go with the test."""
    monkeypatch.chdir(tmp_path)
    kept: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **options: kept.append(self))
    return kept


def bars(axes: Axes, row: int, *, thin: bool = False) -> list[tuple[float, float, str]]:
    """Return (start, stop, color) of the bars, or the thin ones, in a row; in ms."""
    drawn = axes.collections[2 * row + thin]
    boxes = [path.get_extents() for path in drawn.get_paths()]
    assert all(abs((box.y0 + box.y1) / 2 - row) < 1e-9 for box in boxes)
    colors = list(drawn.get_facecolor())
    shades = [to_hex(colors[number % len(colors)]) for number in range(len(boxes))]
    return [(box.x0, box.x1, shade) for box, shade in zip(boxes, shades, strict=True)]


def draw(trace: Trace, figures: list[Figure]) -> list[Axes]:
    workers = {f"al-worker-{number}": f"cpu:{number}" for number in range(4)}
    draw_timeline(trace, Path("nowhere.png"), title="digits vgg", workers=workers)
    return figures[-1].axes


def test_a_short_run_is_one_panel_with_a_row_per_worker(figures: list[Figure]) -> None:
    (axes,) = draw(pipeline(4), figures)
    assert figures[0].get_suptitle() == "digits vgg"
    assert axes.get_title(loc="left") == "the beginning: from batch 0"
    assert axes.get_xlabel() == "ms"
    assert axes.get_xlim() == (0.0, 9000.0)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cpu:0", "cpu:1"]
    assert axes.get_ylim() == (1.5, -0.5)  # the first worker on top
    first, second = bars(axes, 0), bars(axes, 1)
    assert [(start, stop) for start, stop, _ in first] == [(1e3 * n, 1e3 * n + 1e3) for n in range(8)]
    assert [(start, stop) for start, stop, _ in second] == [(1e3 * n + 1e3, 1e3 * n + 2e3) for n in range(8)]
    assert [shade for _, _, shade in first] == ["#8cc0dc", "#0072b2"] * 4  # 0.45 of the way from white, and all of it
    assert {shade for _, _, shade in second[1::2]} == {"#d55e00"}
    assert [text.get_text() for text in axes.texts[:4]] == ["0", "0", "1", "1"]


def test_a_long_run_shows_the_beginning_and_the_middle(figures: list[Figure]) -> None:
    top, bottom = draw(pipeline(40), figures)
    assert bottom.get_title(loc="left") == "further on: from batch 15"  # (0 + 39 - 8) // 2
    assert top.get_xlim() == bottom.get_xlim() == (0.0, 17_000.0)  # 8 batches, and the second stage a second later
    assert {text.get_text() for text in top.texts} == {str(batch) for batch in range(9)}
    # The second stage is still at batch 14 when the first one begins with batch 15.
    assert {text.get_text() for text in bottom.texts} == {str(batch) for batch in range(14, 24)}
    assert (0.0, 1e3) in [(start, stop) for start, stop, _ in bars(bottom, 0)]


def test_a_second_panel_needs_a_middle_apart_from_the_beginning(figures: list[Figure]) -> None:
    assert [len(draw(pipeline(batches), figures)) for batches in (1, 26, 27)] == [1, 1, 2]


def test_waits_and_copies_are_thin_and_each_has_its_color(figures: list[Figure]) -> None:
    trace = pipeline(2)
    waits = [("wait for data", 0.0, 0.5), ("idle", 0.5, 0.75), ("copy", 0.75, 1.0), ("idle", 50.0, 60.0)]  # after all
    trace.spans += [Span("b", 0, phase, start, stop, "al-worker-1") for phase, start, stop in waits]
    trace.spans.append(Span("b", 0, "inference", 0.0, 3.0, "al-worker-0"))
    (axes,) = draw(trace, figures)
    thin = [(0.0, 500.0, "#000000"), (500.0, 750.0, "#cccccc"), (750.0, 1000.0, "#888888")]
    assert bars(axes, 1, thin=True) == thin
    assert axes.collections[3].get_paths()[0].get_extents().height == pytest.approx(0.12)
    assert axes.collections[2].get_paths()[0].get_extents().height == pytest.approx(0.8)
    assert len(bars(axes, 1)) == 4
    assert bars(axes, 0, thin=True) == [], "inference is no training"
    (legend,) = figures[0].legends
    named = {
        text.get_text(): to_hex(patch.get_facecolor())
        for text, patch in zip(legend.texts, legend.get_patches(), strict=True)
    }
    expected = {"idle": "#cccccc", "waits for data": "#000000", "copies": "#888888"}
    assert {name: color for name, color in named.items() if "thin" in name} == {
        f"thin: {n}": c for n, c in expected.items()
    }


def test_workers_come_in_their_order_and_a_layer_keeps_its_color_on_each(figures: list[Figure]) -> None:
    trace = Trace()
    for batch, worker in enumerate((1, 0, 1)):
        trace.spans.append(Span("a", batch, "forward", batch, batch + 1.0, f"al-worker-{worker}"))
    (axes,) = draw(trace, figures)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cpu:0", "cpu:1"]
    assert {shade for row in (0, 1) for _, _, shade in bars(axes, row)} == {"#8cc0dc"}


def test_the_main_thread_comes_first_and_a_narrow_bar_has_no_number(figures: list[Figure]) -> None:
    trace = Trace()
    trace.spans.append(Span("b", 0, "backward", 0.0, 0.01, "al-b"))
    trace.spans.append(Span("a", 0, "forward", 0.5, 2.0, "MainThread"))
    (axes,) = draw(trace, figures)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["main thread", "al-b"]
    assert [(text.get_text(), text.get_position()) for text in axes.texts] == [("0", (1250.0, 0))]


def test_the_legend_has_every_layer_and_what_light_and_dark_mean(figures: list[Figure]) -> None:
    count = len(LAYERS) + 1
    draw(pipeline(2, stages=count), figures)
    (legend,) = figures[0].legends
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown == [*"abcdefghijklm"[:count], "light: forward", "dark: backward, update"]
    colors = [to_hex(patch.get_facecolor()) for patch in legend.get_patches()]
    assert colors[: count - 1] == [color.lower() for color in LAYERS]
    assert colors[count - 1] == colors[0]  # layers beyond the colors begin anew


def test_a_trace_without_training_is_refused(tmp_path: Path) -> None:
    trace = Trace()
    trace.spans += [Span("a", 0, phase, 0.0, 1.0) for phase in ("inference", "idle")]
    with pytest.raises(ValueError, match="holds no training"):
        draw_timeline(trace, tmp_path / "a.png", title="")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("trace.json", ["trace.json", "trace.png"]),
        ("trace.png", ["trace.json", "trace.png"]),
        ("trace", ["trace", "trace.png"]),
        ("new/folder/run.trace", ["new/folder/run.trace", "new/folder/run.png"]),
    ],
)
def test_the_chrome_trace_and_the_picture_lie_side_by_side(given: str, written: list[str], tmp_path: Path) -> None:
    chrome, picture = write_trace(pipeline(3), tmp_path / given, title="digits vgg")
    assert [chrome, picture] == [tmp_path / name for name in written]
    events: list[dict[str, Any]] = json.loads(chrome.read_text())["traceEvents"]
    assert len([event for event in events if event["ph"] == "X"]) == 3 * 2 * 2
    pixels = imread(picture)
    assert pixels.shape[1] == 1540  # 14 inches of 110 dots
    assert pixels[..., :3].std() > 0.02  # something is drawn


@pytest.mark.parametrize("given", ["taken/trace.json", "taken/deep/trace.png", "folder", "half", ".", ".."])
def test_a_bad_path_is_one_line(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken").write_text("a file")
    for name in ("folder", "half.png"):
        Path(name).mkdir()
    with pytest.raises(UsageError) as caught:
        write_trace(pipeline(1), Path(given), title="")
    assert str(caught.value).startswith(f"--trace {given}: cannot be written (")
    assert len(str(caught.value).splitlines()) == 1
