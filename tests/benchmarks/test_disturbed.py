"""The table of what is kept beside another process."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.disturbed.__main__ import choices, neighbor
from benchmarks.disturbed.table import CONTESTANTS, kept, markdown
from tests.benchmarks.made_up import results, verdicts


def made(share: float) -> dict[str, Any]:
    runs = [
        {
            "repeat": repeat,
            "model": model,
            "contestant": contestant,
            "disturbed": disturbed,
            "samples_per_s": (1 + repeat) * (share if disturbed else 1.0) * 100,
            **({"neighbor_share": 0.5} if disturbed else {}),
        }
        for repeat in range(3)
        for model in ("vgg", "transformer")
        for contestant in CONTESTANTS[:3]
        for disturbed in (repeat % 2 == 0, repeat % 2 == 1)
    ]
    runs.append({"repeat": 0, "model": "vgg", "contestant": "1f1b", "disturbed": True, "failed": "why"})
    prepared = {model: {"batches": {"joined": 10, "flowing": 20}} for model in ("vgg", "transformer")}
    return results({"repeats": 3, "cores": [0, 1]}, runs, prepared=prepared)


def test_what_is_kept_is_a_ratio_within_a_repetition() -> None:
    assert kept(made(0.75), "vgg", "continuous") == pytest.approx([0.75] * 3)
    assert kept(made(0.75), "vgg", "1f1b") == []


@pytest.mark.parametrize(("share", "verdict"), [(0.75, "met"), (0.69, "**missed**")])
def test_the_target_is_judged_for_each_model(share: float, verdict: str) -> None:
    shown = markdown(made(share))
    assert set(verdicts(shown).values()) == {verdict}
    assert len(verdicts(shown)) == 2
    assert f"| **AL, continuous** | {share:.2f} ({share:.2f} - {share:.2f}) | 200.0 and {200 * share:.1f} |" in shown
    assert "| BP, 1F1B | cannot run |" in shown
    assert "took 50 % of core 0 (median), so 0.75 of the two cores were left" in shown


def test_the_process_beside_takes_some_of_the_core_and_ends() -> None:
    with neighbor(min(os.sched_getaffinity(0))) as share:
        time.sleep(0.2)
    assert 0 < share["neighbor_share"] < 0.75


def test_the_settings_are_those_that_the_pipeline_found(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    prepared = {"costs": {"bp": {"a": 1.0}}, "choices": {"1f1b": {"cut": [2, 3]}}, "batches": {"joined": 9}}
    file.write_text(json.dumps({"vgg": {"settings": {"size": "half"}, "prepared": prepared}}))
    found = choices("vgg", "half", [0, 1], 1.0, file)
    assert found == {"costs": prepared["costs"], "choices": prepared["choices"]}
