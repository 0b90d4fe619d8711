"""What the layers of a network do per batch, for estimates of many devices: times, what they hand on, weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Load:
    """What a layer does with a batch: seconds and bytes."""

    name: str
    forward: float
    backward: float
    update: float = 0.0
    """The optimizer's step, which takes as long whatever the batch is."""
    sent: float = 0.0
    """Bytes that it hands on; BP sends as many back."""
    weights: float = 0.0
    """Bytes of the parameters that train, and so of their gradients."""

    @property
    def work(self) -> float:
        """Seconds that grow with the batch."""
        return self.forward + self.backward


@dataclass(frozen=True)
class Workload:
    """A network in its two forms, and how many rows a batch has."""

    al: tuple[Load, ...]
    bp: tuple[Load, ...]
    rows: int

    def with_rows(self, rows: int) -> Workload:
        """Return the same network with batches of so many rows: work and what is handed on grow with them."""
        by = rows / self.rows

        def scaled(loads: Sequence[Load]) -> tuple[Load, ...]:
            return tuple(
                replace(one, forward=one.forward * by, backward=one.backward * by, sent=one.sent * by) for one in loads
            )

        return Workload(scaled(self.al), scaled(self.bp), rows)


def all_reduce(size: float, members: int, speed: float) -> float:
    """Return the seconds in which members of a ring sum `size` bytes: each sends 2 (R - 1) / R of them."""
    return 2 * (members - 1) / members * size / speed


def read_workload(path: Path) -> Workload:
    """Read a workload from a JSON file, in the form of `workload_of`. Raises ValueError with one line."""
    try:
        return workload_of(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else getattr(error, "strerror", None) or error
        raise ValueError(f"--workload: {path}: {reason}") from None


def workload_of(told: Mapping[str, Any]) -> Workload:
    """Return the workload that a mapping tells:

        {"rows": 64, "al": [{"name": .., "forward_ms": .., "backward_ms": .., "update_ms": .., "sent_bytes": ..,
                             "weight_bytes": ..}, ..], "bp": [..]}

    "update_ms", "sent_bytes" and "weight_bytes" are 0 where they are missing, and "bp" is as "al". Raises ValueError,
    KeyError, TypeError or AttributeError for another form.
    """
    al = tuple(_load(one) for one in told["al"])
    bp = tuple(_load(one) for one in told.get("bp", told["al"]))
    rows = int(told["rows"])
    if not al or not bp or rows < 1:
        raise ValueError("it has no layers or no rows")
    return Workload(al, bp, rows)


def written(workload: Workload) -> dict[str, Any]:
    """Return a workload as `read_workload` reads it."""

    def layers(loads: Sequence[Load]) -> list[dict[str, Any]]:
        return [
            {
                "name": one.name,
                **{f"{key}_ms": round(1e3 * getattr(one, key), 4) for key in ("forward", "backward", "update")},
                "sent_bytes": round(one.sent),
                "weight_bytes": round(one.weights),
            }
            for one in loads
        ]

    return {"rows": workload.rows, "al": layers(workload.al), "bp": layers(workload.bp)}


def _load(layer: Mapping[str, Any]) -> Load:
    times = [float(layer[key]) / 1e3 for key in ("forward_ms", "backward_ms")]
    times.append(float(layer.get("update_ms", 0.0)) / 1e3)
    sizes = [float(layer.get(key, 0)) for key in ("sent_bytes", "weight_bytes")]
    if not all(math.isfinite(value) and value >= 0 for value in (*times, *sizes)):
        raise ValueError(f"layer {layer['name']!r}: expected finite numbers of at least 0")
    return Load(str(layer["name"]), *times, *sizes)
