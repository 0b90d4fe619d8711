"""Results with made-up figures, for the tests of the tables."""

from __future__ import annotations

from typing import Any


def results(settings: dict[str, Any], runs: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Return what a `Record` would hold."""
    provenance = {
        "date": "2026-01-02T03:04:05+00:00",
        "versions": {"python": "3.11", "torch": "2.4"},
        "platform": "Linux",
        "cores": 2,
        "device_names": {"cpu": "a processor"},
        "git_commit": "0123456789abcdef",
        "git_dirty": False,
    }
    common = {"command": "python -m benchmarks.tables", "provenance": provenance, "interruptions": 0}
    return {**common, "settings": settings, "runs": runs, **more}


def verdicts(markdown: str) -> dict[str, str]:
    """Return the last cell of every row of the table of targets, by its first."""
    _, _, table = markdown.partition("| | target |")
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:] if line.startswith("| ")]
    return {row[0]: row[-1] for row in rows}
