"""The comparison of objectives: its grid is fair, its tables say who wins, and operations are counted as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.accuracy.choice import chosen
from benchmarks.accuracy.grid import final_runs, read_grid, search_runs
from benchmarks.objectives.table import METHODS, MODELS, costs, markdown
from benchmarks.objectives.work import count_flops
from benchmarks.objectives.worker import measure
from tests.benchmarks.made_up import results

GRID = Path(__file__).resolve().parents[2] / "benchmarks" / "objectives" / "cpu.json"


def test_every_method_has_the_same_two_rates_on_every_cell_and_one_cell_is_of_each_model() -> None:
    grid = read_grid(GRID)
    assert grid.methods == METHODS
    assert sorted(cell.model for cell in grid.cells) == sorted(MODELS)
    for cell in grid.cells:
        assert len(cell.search["bp"]) == 2
        assert all(trials == cell.search["bp"] for trials in cell.search.values())


def test_the_tables_have_the_chosen_rate_the_best_objective_in_bold_and_dashes_for_the_rest() -> None:
    grid = read_grid(GRID)
    content: dict[str, Any] = {"grid": json.loads(GRID.read_text()), "runs": []}

    def record(run: Any, val: float, test: float) -> dict[str, Any]:
        row = {"epoch": 1, "train_acc": 1.0, "val_acc": val, "test_acc": test, "train_time": 1.0}
        if run.method != "bp":
            row |= {"test_acc_depth_1": test - 1, "test_acc_depth_2": test}
        origin = {"device_names": {"cpu": "CPU"}, "versions": {"python": "3", "torch": "2"}, "cores": 1}
        return {"command": run.command, "rows": [row], "classes": 4, "wall_s": 1.0, "provenance": origin}

    runs = [run for run in search_runs(grid) if run.cell is grid.cells[0] and run.method in ("bp", "al", "ce")]
    for number, run in enumerate(runs):
        content["runs"].append(record(run, val=number % 2, test=50.0))
    choice = chosen(grid, {one["command"]: one for one in content["runs"]})
    assert {run.trial["lr"] for run in choice.values()} == {0.01}
    for run in final_runs(grid, choice):
        content["runs"].append(record(run, val=1, test={"bp": 90.0, "al": 80.0, "ce": 81.0}[run.method]))
    said = markdown(content)
    assert "| AG News, LSTM | 90.00 ± 0.00 | 80.00 ± 0.00 | **81.00 ± 0.00** | – | – | – | – |" in said
    assert "| AG News, LSTM | CE | 80.00 / 81.00 |" in said
    assert "AG News, Transformer" not in said.partition("chosen on validation |")[0], "nothing of it has been run"


def test_costs_are_shown_as_multiples_of_bps() -> None:
    runs = [
        {"model": "vgg", "method": method, "figure": figure, figure: value, **more}
        for method, figure, value, more in (
            ("bp", "step_s", 0.2, {}),
            ("al", "step_s", 0.1, {}),
            ("bp", "held_mib", 50.0, {"flops": 2e9}),
            ("al", "held_mib", 20.0, {"flops": 3e9}),
        )
    ]
    said = costs(results({"repeats": 1, "batches": 2}, runs))
    assert "| VGG | 200 | 100 (0.50) |" in said
    assert "| VGG | 50 | 20 (0.40) |" in said
    assert "| VGG | 2.00 | 3.00 (1.50) |" in said


def test_operations_are_counted_forward_and_backward_those_of_an_lstm_too() -> None:
    x = torch.randn(3, 4, 5, requires_grad=True)
    recurrent = nn.LSTM(5, 7, batch_first=True)
    forward = 2 * 3 * 4 * (4 * 7) * (5 + 7)
    assert count_flops(lambda: recurrent(x)) == forward
    assert count_flops(lambda: recurrent(x)[0].sum().backward()) == 3 * forward
    tokens = torch.randn(2, 3, 4, 8, requires_grad=True)  # batch, heads, positions, features
    products = 2 * 2 * 3 * 4 * 4 * 8 * 2  # with the keys, and with the values
    assert count_flops(lambda: nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)) == products
    linear = nn.Linear(5, 7)
    assert count_flops(lambda: linear(x).sum().backward()) == 3 * 2 * 3 * 4 * 5 * 7


@pytest.mark.parametrize("method", ["bp", "ce"])
def test_a_measurement_has_its_figures(method: str) -> None:
    job = {"model": "vgg", "method": method, "size": "quick", "batches": 1, "warmup": 1, "cores": [0]}
    assert measure({**job, "figure": "step_s"})["step_s"] > 0
    counted = measure({**job, "figure": "held_mib"})
    assert counted["flops"] > 1e6
    assert counted["held_mib"] > 0
