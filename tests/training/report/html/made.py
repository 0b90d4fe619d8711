"""Results made up for the tests of the pages: any methods, turns, layers and names, written as a run writes them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.report.run_info import RunInfo
from training.report.run_log import RunLog

#: What may stand in names, paths, settings and notes, and must stay a text.
NASTY = """<script>alert(1)</script> "quoted" 'single' & &amp; --> </style> ü±日本 \x07"""
USE = {
    "devices": [
        {
            "device": f"cpu:{n}",
            "layers": ["l0", "l1"],
            "busy": 70.0,
            "idle": 9.0,
            "data": 20.0,
            "copy": 1.0,
            "ran": {f"l{n}": 61.0, f"l{1 - n}": 39.0},
        }
        for n in range(2)
    ],
    "layers": [
        {"layer": f"l{n}", "share": 50.0, "ms_per_batch": 12.34, "workers": {"cpu:0": 61.0, "cpu:1": 39.0}}
        for n in range(2)
    ],
    "utilization": 70.0,
    "at_work": 1.4,
    "ceiling": 1.8,
    "bottleneck": "l0",
    "speedup_estimate": 1.5,
    "advice": "advice: the workers are balanced",
}
TIMELINE = {
    "workers": ["cpu:0", "cpu:1"],
    "layers": ["l0", "l1"],
    "excerpts": [
        {
            "name": "the beginning",
            "batch": 0,
            "milliseconds": 8.0,
            "spans": [
                [n % 2, f"l{n % 2}", phase, n, n + shift, n + shift + 0.5]
                for n in range(4)
                for phase, shift in (
                    ("forward", 0.0),
                    ("backward", 0.5),
                    ("wait for data", 1.0),
                    ("idle", 1.5),
                    ("inference", 2.0),
                )
            ],
        }
    ],
}


def exits(turn: int = 1, accuracy: float = 90.0) -> dict[str, Any]:
    """Return what a turn of two layers records about early exit."""
    return {
        "turn": turn,
        "epoch": 3,
        "confidence": "probability",
        "temperatures": [0.2, 0.3],
        "depths": [{"work": 0.4, "accuracy": accuracy - 5}, {"work": 1.0, "accuracy": accuracy}],
        "curve": [
            {"work": 0.4, "accuracy": accuracy - 5, "thresholds": [0.0]},
            {"work": 0.625, "accuracy": accuracy - 1, "thresholds": [0.8]},
            {"work": 1.0, "accuracy": accuracy, "thresholds": [None]},
        ],
        "budgets": [
            {"work": 0.6, "accuracy": accuracy - 2, "thresholds": [0.75], "budget": 0.75, "shares": [0.7, 0.3]},
            {"work": 1.0, "accuracy": accuracy, "thresholds": [None], "budget": 1.0, "shares": [0.0, 1.0]},
        ],
    }


#: The same as they were recorded when a worker owned neighboring layers.
EARLIER_USE = {
    "devices": [
        {"device": f"cpu:{n}", "layers": [f"l{n}"], "busy": 70.0, "wait_input": 20.0, "wait_space": 5.0, "copy": 1.0}
        for n in range(2)
    ],
    "utilization": 70.0,
    "at_work": 1.4,
    "ceiling": 1.8,
    "bottleneck": "l0",
    "speedup_estimate": 1.5,
    "advice": "advice: the workers are balanced",
}
EARLIER_TIMELINE = {
    "workers": ["al-stage-0"],
    "layers": ["l0"],
    "excerpts": [
        {
            "name": "the beginning",
            "batch": 0,
            "milliseconds": 4.0,
            "spans": [
                [0, "l0", phase, 0, start, start + 1.0]
                for start, phase in enumerate(("wait for input", "forward", "backward", "wait for space"))
            ],
        }
    ],
}


def make(
    out: Path,
    method: str = "al",
    *,
    dataset: str = "digits",
    model: str = "vgg",
    turns: int = 2,
    epochs: int = 3,
    layers: int = 2,
    finished: int | None = None,
    base: Sequence[float] | float = 90.0,
    losses: Mapping[str, Sequence[str]] | None = None,
    loss: float = 0.5,
    config: Mapping[str, Any] | None = None,
    use: dict[str, Any] | None = None,
    timeline: dict[str, Any] | None = None,
    done: Sequence[int] | None = None,
    exits: Sequence[dict[str, Any]] = (),
    **changes: Any,
) -> RunLog:
    """Write the CSV and the JSON of a method. `base`: the final accuracy, or that of each turn; `done`: its epochs.

    `exits`: what the turns record about early exit.
    """
    names = losses or ({"": ["loss"]} if method == "bp" else {f"l{n}": ["assoc", "ae"] for n in range(layers)})
    info = RunInfo(
        **{
            "config": {"epochs": epochs, "base_lr": 0.001, **(config or {})},
            "seeds": list(range(1, turns + 1)),
            "train_samples": 1000,
            "parameters_training": 12345,
            "parameters_inference": 1234,
            "threads": 1,
            "schedule": None if method == "bp" else "continuous",
            "devices": ["cpu"] * len(names),
            "losses": names,
            "loss_titles": {"assoc": "associated loss"},
            "provenance": {
                "date": "2026-11-28T10:00:00+00:00",
                "versions": {"python": "3.11"},
                "command": ["cvmain.py"],
            },
            "notes": ["a note about the data"],
            **changes,
        }
    )
    log = RunLog(out, dataset, model, method, info)
    last = turns if finished is None else finished
    for turn, count in enumerate(done or [epochs] * turns, start=1):
        top = base if isinstance(base, (int, float)) else base[turn - 1]
        for epoch in range(1, count + 1):
            acc = top - 20.0 * (1 - epoch / epochs)
            depths = len([name for name in names if name]) or 1
            log.add(
                turn,
                epoch,
                train_acc=acc,
                val_acc=acc - 1,
                test_acc=[acc - (depths - 1 - depth) for depth in range(depths)],
                train_time=2.0 * epoch,
                losses={
                    name: {kind: loss * math.exp(-epoch / epochs) for kind in kinds} for name, kinds in names.items()
                },
            )
        if turn <= last:
            log.timeline = timeline
            early_exit = exits[turn - 1] if exits else None
            log.finish_turn(turn, peak_memory_mb=321.0, utilization=use, early_exit=early_exit)
    return log
