"""What autograd holds is counted to the byte, on any thread and under checkpointing; and the table of it."""

from __future__ import annotations

import threading
from itertools import islice
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from benchmarks.memory.held import Held
from benchmarks.memory.table import CONTESTANTS, markdown, summary
from benchmarks.memory.worker import contestant
from benchmarks.pipeline.workload import al_model, make_batches
from tests.benchmarks.made_up import results

X = 4 * 10 * 8  # bytes of the input, float32 (10, 8)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())


def test_each_storage_counts_once_and_weights_do_not() -> None:
    model = network()
    held = Held(model.parameters())
    with held.count():
        # The inputs of both linear layers, the second of which the first tanh saves too, and the second tanh's output.
        loss = model(torch.randn(10, 8)).sum()
    assert held.now == held.peak == 3 * X
    loss.backward()
    assert held.now == 0
    assert held.peak == 3 * X
    assert all(weight.grad is not None for weight in model.parameters())


def test_the_whole_storage_behind_a_view_counts() -> None:
    held = Held([])
    x = torch.randn(100, requires_grad=True)
    with held.count():
        kept = (x[:3] * x[3:6]).sum()
    assert held.now == 400
    del kept
    assert held.now == 0


def test_a_watched_module_is_counted_on_another_thread_also_when_it_fails() -> None:
    model = network()
    held = Held(model.parameters())
    held.watch(model)
    outputs: list[Any] = []

    def work() -> None:
        with pytest.raises(RuntimeError):
            model(torch.randn(10, 9))
        outputs.append(model(torch.randn(10, 8)))
        model[0](torch.randn(10, 8))  # not the watched module: what it saves is not counted

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert held.now == 3 * X


def test_what_checkpointing_computes_again_is_counted() -> None:
    model = network()
    held = Held(model.parameters())
    parts = [model[:2], model[2:]]
    x = torch.randn(10, 8)
    with held.count():
        for part in parts:
            x = checkpoint(part, x, use_reentrant=False, context_fn=held.contexts)
        loss = x.sum()
    assert held.now == 2 * X  # the inputs of the two parts
    loss.backward()
    # The second part again: it saves its input, which counts already, and its output.
    assert held.peak == 3 * X
    assert held.now == 0
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.parameters())


@pytest.mark.parametrize("name", CONTESTANTS)
def test_every_contestant_trains_and_holds_nothing_afterwards(name: str) -> None:
    job = {"model": "transformer", "keys": {"al_layers": 2}, "contestant": name, "size": "quick"}
    with contestant(job, torch.device("cpu")) as (train, count):
        train(1)
        held = count()
        train(2)
    assert held.peak > 0
    assert held.now == 0


def test_a_layer_at_a_time_holds_less_than_all_of_them() -> None:
    (x, y), *_ = islice(make_batches("transformer", "quick", count=1), 1)
    peaks = []
    for at_once in (True, False):
        stack = al_model("transformer", "quick")
        held = Held([*stack.parameters(), *stack.buffers()])
        a, b = x, stack.target(y)
        for layer in stack:
            held.watch(layer)
            a, b = layer(a, b)
            if not at_once:
                layer.backward_and_update()
        peaks.append(held.peak)
    assert peaks[1] < 0.6 * peaks[0]


def made() -> dict[str, Any]:
    figures = {
        "bp": (90.0, 2.0),
        "bp-checkpoint": (30.0, 2.6),
        "al-sequential": (27.0, 1.9),
        "al-continuous": (45.0, 1.0),
    }
    runs: list[dict[str, Any]] = [
        {"network": "VGG", "contestant": name, "held_mib": held, "peak_mib": 3 * held, "step_s": step, "repeat": 0}
        for name, (held, step) in figures.items()
    ]
    runs.append({"network": "ResNet", "contestant": "bp", "failed": "why", "repeat": 0})
    return results({"device": "cpu", "repeats": 1, "batches": 8}, runs)


def test_the_tables_show_the_figures_and_their_share_of_bps() -> None:
    shown = markdown(made())
    assert "| VGG | 90 | 30 (0.33) | 27 (0.30) | 45 (0.50) |" in shown
    assert "| VGG | 2,000 | 2,600 (1.30) | 1,900 (0.95) | 1,000 (0.50) |" in shown
    assert "| ResNet | cannot run | cannot run |" in shown
    short = summary(made())
    assert "| VGG | 90 MiB (2000 ms) | 0.33x (1.30x) | 0.30x (0.95x) | 0.50x (0.50x) |" in short
    assert "| ResNet |  |  |  |  |" in short
