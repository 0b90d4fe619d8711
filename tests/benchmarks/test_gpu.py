"""The GPU's script, as far as a CPU can run it: BP as a stack of one layer, the ways, and the table."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
import torch.nn.functional as F

from ALPackage import make_schedule
from benchmarks.gpu.table import markdown
from benchmarks.gpu.ways import WAYS, build, measure
from benchmarks.pipeline.workload import LR, Part, arguments, bp_layers, make_batches
from models import adamw
from tests.benchmarks.made_up import results

CPU = torch.device("cpu")


def test_bp_in_the_engine_computes_what_a_plain_loop_does() -> None:
    model = "vgg"
    batches = make_batches(model, "quick", count=3)
    stack = build(model, "bp", "quick", CPU)
    with make_schedule("continuous", stack, threads=1, seed=0) as schedule:
        ours = [float(losses[0]["loss"]) for losses in schedule.run(batches)]
    plain = Part([layer for _, layer in bp_layers(model, "quick")])
    optimizer = adamw(plain.parameters(), lr=LR, weight_decay=0.0)
    theirs = []
    for x, labels in islice(batches, 3):
        features, others = arguments(x)
        loss = F.cross_entropy(plain(features, **others), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        theirs.append(float(loss.detach()))
    assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("name", ["BP, eager", "AL, eager, 4 streams", "AL, eager, bf16"])
def test_a_way_can_be_measured(name: str) -> None:
    found = measure("transformer", WAYS[name], "quick", CPU, steps=2)
    assert found["samples_per_s"] > 0
    assert found["held_mib"] > 0
    assert found["workers"] == (4 if "streams" in name else 1)
    assert found["peak_mib"] is None


def test_streams_from_one_to_four_graphs_and_bf16_are_among_the_ways() -> None:
    assert {way.get("streams", 1) for way in WAYS.values()} == {1, 2, 3, 4}
    for method in ("bp", "al"):
        own = [way for way in WAYS.values() if way["method"] == method]
        assert {(bool(way.get("graph")), bool(way.get("bf16"))) for way in own} == {
            (graph, bf16) for graph in (False, True) for bf16 in (False, True)
        }


def test_the_table_shows_what_failed_what_got_no_graph_and_the_speed_over_bp() -> None:
    one = {"launch_bound": 1.0, "held_mib": 12.0, "peak_mib": 100.0, "workers": 1, "no_graph": [], "repeat": 0}
    runs = [
        {"model": "vgg", "way": "BP, eager", "samples_per_s": 1000.0, **one},
        {"model": "vgg", "way": "AL, eager", "samples_per_s": 1500.0, **one},
        {"model": "vgg", "way": "AL, graph", "samples_per_s": 4000.0, **one, "held_mib": None, "no_graph": ["a", "b"]},
        {"model": "vgg", "way": "BP, graph", "failed": "RuntimeError: out of memory\nmore", "repeat": 0},
    ]
    shown = markdown(results({"steps": 30}, runs))
    assert "| vgg | AL, eager | 1,500 | 1.50x | 100 % | 12 | 100 |  |" in shown
    assert "| vgg | AL, graph | 4,000 | 4.00x | 100 % |  | 100 | 2 without a graph |" in shown
    assert "| vgg | BP, graph | failed: RuntimeError: out of memory | | | | | |" in shown
