"""The table of `python -m ALPackage.placement --workload`: many devices, AL beside BP."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from .rivals import Pipeline, best_pipeline, ddp
from .scale import Stages, best_al
from .workload import Load, Workload

HEADER = ("devices", "AL", "1F1B", "zero bubble", "DDP", "AL's stages", "stages x replicas, micro-batches of 1F1B")


def scale_rows(workload: Workload, devices: Sequence[int], speed: float) -> list[tuple[str, ...]]:
    """Return a row per number of devices: rows of a batch per second of each method, and the settings.

    `speed`: bytes per second of a link.
    """
    found: list[tuple[str, ...]] = []
    for count in devices:
        al = best_al(workload.al, count, speed, workload.rows)
        pipeline = best_pipeline(workload.bp, count, speed, workload.rows)
        zero = best_pipeline(workload.bp, count, speed, workload.rows, bubble=False)
        seconds = (al.seconds, pipeline.seconds, zero.seconds, ddp(workload.bp, count, speed, workload.rows))
        speeds = [_figure(workload.rows / one) for one in seconds]
        found.append((str(count), *speeds, _stages(al), _pipeline(pipeline)))
    return found


def scale_table(workload: Workload, devices: Sequence[int], speed: float) -> str:
    """Return the rows as text, and what they are."""
    rows = [HEADER, *scale_rows(workload, devices, speed)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    what = f"Simulated samples/s with batches of {workload.rows:,} over links of {8 * speed / 1e9:g} Gbit/s"
    alone = f"one device: AL {_alone(workload.al, workload.rows)}, BP {_alone(workload.bp, workload.rows)}"
    assumed = "A simulation, not a measurement: what it assumes is in ALPackage/placement/scale.py and rivals.py."
    return "\n".join([f"{what}; {alone}", *lines, assumed])


def _alone(loads: Sequence[Load], rows: int) -> str:
    return _figure(rows / (sum(one.work + one.update for one in loads) or 1.0))


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _stages(al: Stages) -> str:
    """Return runs of like stages, as number x layers (replicas)."""
    parts = []
    for (size, replicas), run in groupby(zip(al.sizes, al.replicas, strict=True)):
        times = f" x{replicas}" if replicas > 1 else ""
        parts.append(f"{len(list(run))} of {size}{times}")
    return ", ".join(parts)


def _pipeline(one: Pipeline) -> str:
    return f"{len(one.sizes)} x {one.replicas}, {one.micro}"
