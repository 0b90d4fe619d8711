"""All that a run leaves behind and that does not depend on the clock, and how two runs differ in it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.checkpoints.info import read_json
from training.checkpoints.store import Store
from training.checkpoints.tensors import load_tensors
from training.weights.info import KeptTurn

__all__ = ["differences", "outcome"]

#: What is measured, and so never the same twice; how often the run was interrupted; when it began; where it went.
ASIDE = {
    "devices",
    "outputpath",
    "peak_memory_mb",
    "plan",
    "provenance",
    "resumptions",
    "run",
    "samples_per_s",
    "schedule",
    "timeline",
    "train_time",
    "utilization",
    "workers",
}


def outcome(out: Path) -> dict[str, Any]:
    """Return the tables, the JSON, and the tensors of the newest checkpoint and of the kept weights of every method.

    By the name of the file or folder. Raises ValueError where a checkpoint or weights that are there cannot be used.
    """
    found: dict[str, Any] = {}
    for path in sorted(out.glob("*.csv")):
        with open(path, encoding="utf-8") as file:
            found[path.name] = [_timeless(row) for row in csv.DictReader(file)]
    for path in sorted(out.glob("*.json")):
        found[path.name] = _timeless(json.loads(path.read_text(encoding="utf-8")))
    for folder in sorted((out / "checkpoints").glob("*")):
        store = Store(folder, 1, "read only")
        newest = store.newest()
        store.close()
        if newest is None or store.notices:
            raise ValueError("; ".join(store.notices) or f"{folder}: there is no checkpoint")
        found[folder.name] = {"layers": newest.layers, "losses": newest.info.losses, "step": newest.info.step}
    for path in sorted((out / "models").glob("*/*/turn*.json")):
        kept = read_json(path, KeptTurn)
        weights = load_tensors(path.parent / kept.weights.name, kept.weights.sha256)
        found[f"models/{kept.place}/{path.name}"] = {"kept": kept.model_dump(exclude={"weights"}), "layers": weights}
    return found


def differences(one: Any, two: Any, where: str = "") -> Iterator[str]:
    """Yield the places in which two outcomes differ; tensors must agree in every bit."""
    if isinstance(one, dict) and isinstance(two, dict):
        for key in dict.fromkeys([*one, *two]):
            if key not in one or key not in two:
                yield f"{where}/{key} is in one of them only"
            else:
                yield from differences(one[key], two[key], f"{where}/{key}")
    elif isinstance(one, (list, tuple)) and isinstance(two, (list, tuple)):
        if len(one) != len(two):
            yield f"{where}: {len(one)} and {len(two)} entries"
        for number, (first, second) in enumerate(zip(one, two, strict=False)):
            yield from differences(first, second, f"{where}/{number}")
    elif isinstance(one, Tensor) and isinstance(two, Tensor):
        if one.dtype != two.dtype or not torch.equal(one, two):
            yield f"{where}: the tensors differ"
    elif type(one) is not type(two) or one != two:
        yield f"{where}: {one!r} and {two!r}"


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(part) for key, part in value.items() if key not in ASIDE}
    return [_timeless(part) for part in value] if isinstance(value, list) else value
