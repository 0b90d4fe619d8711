"""The benchmark of networks that nobody here wrote, with the small ones; and its tables."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.networks.families import FAMILIES
from benchmarks.networks.learn import METHODS, train
from benchmarks.networks.table import CONTESTANTS, learned, markdown
from benchmarks.networks.worker import make_batch, measure
from tests.benchmarks.made_up import results


@pytest.mark.parametrize(
    ("network", "contestant"), zip(["resnet", "vit", "distilbert", "bert"], CONTESTANTS, strict=True)
)
@pytest.mark.slow
def test_every_contestant_trains(network: str, contestant: str) -> None:
    job = {"network": network, "contestant": contestant, "small": True, "batch": 4, "layers": 2}
    found = measure({**job, "warmup": 1, "steps": 2})
    assert len(found["step_s"]) == 2
    assert min(found["step_s"]) > 0
    assert found["base_mib"] > 0
    assert found["parameters"] > 1000
    assert len(found["layers"]) == len(found["flops"]) == len(found["blocks"]) == 2


def test_all_are_cut_alike_for_al_and_bp() -> None:
    job = {"network": "efficientnet", "small": True, "batch": 2, "layers": 3, "warmup": 0, "steps": 1}
    al, bp = (measure({**job, "contestant": contestant}) for contestant in ("al-sequential", "bp"))
    assert all(al[key] == bp[key] for key in ("parameters", "layers", "flops"))


@pytest.mark.parametrize("network", FAMILIES)
def test_batches_have_the_sizes_that_are_said(network: str) -> None:
    family = FAMILIES[network]
    x, labels = make_batch(family, 3, small=False)
    if family.side:
        assert x.shape == (3, 3, 224, 224)
    else:
        assert x[0].shape == (3, 128)
        assert 64 <= int(x[1].min()) <= int(x[1].max()) <= 128
    assert len(labels) == 3


def test_the_tables_show_the_cut_the_seconds_and_the_memory() -> None:
    runs: list[dict[str, Any]] = [
        {
            "title": "Net",
            "contestant": contestant,
            "step_s": [1.0, 1.5, 2.0],
            "peak_mib": 1000.0 * (number + 1),
            "parameters": 25_600_000,
            "blocks": [2, 1],
            "flops": [75, 25],
        }
        for number, contestant in enumerate(list(CONTESTANTS)[:3])
    ]
    runs.append({"title": "Net", "contestant": "al-continuous", "failed": "why"})
    shown = markdown(results({"batch": 4, "steps": 3, "warmup": 1}, runs))
    assert "| Net | 25.6 | 2 / 1 | 75 / 25 |" in shown
    assert "| Net | 1.50 (1.00 - 2.00) | 1.50 (1.00 - 2.00) | 1.50 (1.00 - 2.00) | cannot run |" in shown
    assert "| Net | 1,000 | 2,000 (2.00) | 3,000 (3.00) | cannot run |" in shown
    assert "Batches of 4; one process per cell, mean of 3 steps after 1." in shown


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("network", ["vit", "distilbert"])
def test_what_is_trained_is_better_than_chance(network: str, method: str) -> None:
    found = train(network, method, lr=3e-3, seed=0, epochs=2)
    assert found.keys() == {"val", "test"}
    assert min(found.values()) > 20.0


def test_a_rate_is_chosen_on_validation_and_never_on_test() -> None:
    runs: list[dict[str, Any]] = [
        {"title": "Net", "method": method, "lr": lr, "seed": seed, "val": val, "test": test + seed}
        for method, lr, val, test in (("bp", 0.1, 60.0, 50.0), ("bp", 0.2, 55.0, 90.0), ("al", 0.2, 60.0, 70.0))
        for seed in (0, 2)
    ]
    shown = learned(results({"epochs": 3, "batch": 32}, runs))
    assert "| Net | 51.00 ± 1.41 | 71.00 ± 1.41 | 0.1 | 0.2 | 2 |" in shown
    assert "over the seeds, after 3 epochs of batches of 32; Adam" in shown
