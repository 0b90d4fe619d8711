"""The JSON files beside the weights that are kept: what the network is, and which epoch of a turn they are from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from ..checkpoints.info import Count, StoredFile, TensorFile
from ..config.schema import Task

RUN_FILE = "run.json"


class KeptRun(StoredFile):
    """`run.json`: the network of all turns, and what it takes in and gives out."""

    task: Task
    info: dict[str, Any]
    """`training.report.run_info.RunInfo`: configuration, seeds, layers with their losses, versions."""
    shape: dict[str, Any]
    """What the network is built for, as `training.runs.tasks.shape_to_json` writes it."""
    classes: list[str]
    """The name of every class, in the order of the outputs."""
    inputs: dict[str, Any]
    """What an input goes through before the network: `data.vision.unseen.Pictures` or `data.text.unseen.Texts`."""


class KeptTurn(StoredFile):
    """`turn1.json`: the epoch of a turn that its weights are from."""

    turn: Count
    seed: Annotated[int, Field(ge=0)]
    epoch: Count
    val_acc: float
    """Accuracy in percent, on which the epoch was chosen."""
    test_acc: list[float]
    """Accuracy in percent by depth, the full depth last; BP has one depth."""
    weights: TensorFile
    """A state dict per layer, by its name."""


def models_folder(out: Path, dataset: str, model: str, method: str) -> Path:
    """Return where the weights of a method are, in a folder for each run."""
    return out / "models" / f"{dataset}_{model}_{method}"


def turn_path(folder: Path, turn: int) -> Path:
    """Return the JSON of a turn in the folder of a run."""
    return folder / f"turn{turn}.json"


def before_path(folder: Path, turn: int) -> Path:
    """Return the JSON of the epoch that was a turn's best before; it goes once the results name the later one."""
    return folder / f"turn{turn}.before.json"
