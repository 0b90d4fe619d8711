"""What the tables of all benchmarks share: targets with met or missed, and where figures come from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Target:
    """Something that was promised: the median of `values`, one per repetition, is at least (or at most) `target`."""

    what: str
    target: float
    values: Sequence[float]
    at_most: bool = False
    unit: str = ""
    limit: str = ""
    """What keeps the value from the target, as far as it was measured; shown where the target is missed."""

    @property
    def value(self) -> float:
        """The median."""
        return median(self.values)

    @property
    def met(self) -> bool:
        """Whether the target is reached; figures count as they were measured, not as they are rounded."""
        return self.value <= self.target if self.at_most else self.value >= self.target


def target_table(targets: Iterable[Target]) -> list[str]:
    """Return the lines of the table of targets."""
    lines = ["| | target | measured | range of repetitions | |", "|---|---|---|---|---|"]
    for one in targets:
        sign = "at most" if one.at_most else "at least"
        verdict = "met" if one.met else "**missed**" + (f"; {one.limit}" if one.limit else "")
        values = f"{_figure(one.value)}{one.unit} | {_figure(min(one.values))} - {_figure(max(one.values))}"
        lines.append(f"| {one.what} | {sign} {one.target:g}{one.unit} | {values} | {verdict} |")
    return lines


def _figure(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 10 or value == int(value) else f"{value:.3f}"


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Return median and range."""
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f} - {max(values):,.{digits}f})"


def origin(results: dict[str, Any]) -> str:
    """Return the line that says where the figures come from: machine, versions, commit, command."""
    where = results["provenance"]
    names = [name for name in where["device_names"].values() if name]
    commit = (where["git_commit"] or "unknown")[:12]
    changed = " with uncommitted changes" if where["git_dirty"] else ""
    loads = [run["load_before"] for run in results["runs"] if "load_before" in run]
    load = f" Load average before a measurement at most {max(loads):.1f}." if loads else ""
    breaks = results["interruptions"]
    again = f" Interrupted and resumed {breaks} time{'s' * (breaks > 1)}: not one run." if breaks else ""
    return (
        f"{'; '.join(names)}, {where['cores']} cores; {where['platform']}; Python {where['versions']['python']}, "
        f"torch {where['versions']['torch']}; {where['date'][:10]}, commit {commit}{changed}.{load}{again} "
        f"Command: `{results['command'].strip()}`."
    )
