"""The recorder: spans from any thread, and a file that Chrome's viewer can read."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from ALPackage.stage.trace import Trace, Usage


def test_a_usage_knows_the_time_of_every_layer_from_the_start() -> None:
    assert Usage("cpu:0", ["a", "b"]).layer_busy == {"a": 0.0, "b": 0.0}


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
