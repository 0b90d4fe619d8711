"""The recorder: sums by hand, overlap against a slow count, and a file that Chrome's viewer can read."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ALPackage.stage.trace import Span, Trace


def traced(*spans: tuple[str, float, float]) -> Trace:
    """Return a trace that holds spans of (layer, start, stop)."""
    trace = Trace()
    trace.spans += [Span(layer, number, "forward", start, stop) for number, (layer, start, stop) in enumerate(spans)]
    return trace


def test_busy_sums_per_layer() -> None:
    assert traced(("a", 0, 2), ("b", 1, 4), ("a", 5, 6)).busy() == {"a": 3.0, "b": 3.0}
    assert Trace().busy() == {}


def test_overlap_by_hand() -> None:
    assert Trace().overlap() == 0.0
    assert traced(("a", 0, 2), ("b", 2, 4), ("c", 4, 5)).overlap() == 0.0
    assert traced(("a", 0, 3), ("b", 1, 2)).overlap() == 1.0
    assert traced(("a", 0, 3), ("b", 1, 4), ("c", 2, 5)).overlap() == 3.0
    assert traced(("a", 0, 3), ("a", 1, 4)).overlap() == 0.0, "one layer does not overlap with itself"
    assert traced(("b", 10, 13), ("a", 0, 3), ("a", 12, 20)).overlap() == 1.0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 12), st.integers(0, 5)), max_size=12))
def test_overlap_equals_a_slow_count(drawn: list[tuple[str, int, int]]) -> None:
    trace = traced(*((layer, float(start), float(start + length)) for layer, start, length in drawn))
    slow = sum(
        len({layer for layer, start, length in drawn if start <= tick < start + length}) >= 2 for tick in range(20)
    )
    assert trace.overlap() == slow


def test_a_span_is_recorded_even_when_its_work_fails() -> None:
    trace = Trace()
    with pytest.raises(ZeroDivisionError), trace.span("a", 3, "backward"):
        _ = 1 / 0
    (span,) = trace.spans
    assert (span.layer, span.batch, span.phase) == ("a", 3, "backward")
    assert span.stop >= span.start


def test_many_threads_may_write() -> None:
    trace = Trace()

    def work(layer: str) -> None:
        for batch in range(200):
            with trace.span(layer, batch, "forward"):
                pass

    threads = [threading.Thread(target=work, args=(f"l{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({(span.layer, span.batch) for span in trace.spans}) == 800


def test_the_chrome_trace_holds_every_span_in_microseconds(tmp_path: Path) -> None:
    trace = Trace()
    with trace.span("conv_1", 7, "forward"):
        time.sleep(0.01)

    def record() -> None:
        with trace.span("conv_2", 7, "backward"):
            pass

    other = threading.Thread(target=record, name="other")
    other.start()
    other.join()
    trace.write_chrome(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text(encoding="utf-8"))["traceEvents"]
    tracks = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    first, second = (event for event in events if event["ph"] != "M")
    assert first["name"] == "conv_1 forward 7"
    assert first["ph"] == "X"
    assert 10_000 <= first["dur"] < 1_000_000
    assert tracks == {first["tid"]: threading.current_thread().name, second["tid"]: "other"}
    assert second["ts"] >= first["ts"] + first["dur"]
