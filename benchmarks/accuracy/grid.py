"""The grid: what is run, read from a JSON file and refused where it is not fair or not clear."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.registry import model
from training.config.arguments import configure, parse
from training.config.parser import SCRIPTS
from training.config.schema import LARGEST_SEED, Config, Method, Task
from training.errors import UsageError, reason

__all__ = ["Cell", "Grid", "Run", "final_runs", "read_grid", "search_runs"]

#: What the grid says itself, or the runner.
TAKEN = ("seed", "outputpath", "checkpoint_keep")

Phase = Literal["search", "final"]
Name = Annotated[str, Field(min_length=1)]
Settings = dict[Name, Any]
Trials = Annotated[list[Settings], Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Cell(_Strict):
    """A model on a data set."""

    name: Name
    dataset: Name
    model: Literal["vgg", "resnet", "lstm", "transformer"]
    limit_train: Annotated[int, Field(ge=2)] | None = None
    settings: Settings = {}
    """Keys of the config, for both methods."""
    search: dict[Method, Trials]
    """The trials of each method: settings that are laid over those of the cell."""

    @property
    def task(self) -> Task:
        """The task whose entry point runs the model."""
        return model(self.model).task

    @model_validator(mode="after")
    def _equal(self) -> Cell:
        if len(self.search) < 2:
            raise ValueError(f"search has {len(self.search)} methods; give at least two to compare")
        (first, trials), *others = self.search.items()
        for other, more in others:
            if len(more) != len(trials):
                counts = f"{first.upper()} has {len(trials)} trials and {other.upper()} {len(more)}"
                raise ValueError(f"{counts}; give all the same number")
        return self

    @model_validator(mode="after")
    def _free(self) -> Cell:
        for settings in (self.settings, *(trial for trials in self.search.values() for trial in trials)):
            for key in TAKEN:
                if key in settings:
                    raise ValueError(f'"{key}" is not a cell\'s to set; leave it out')
        return self


class Grid(_Strict):
    """Cells, the seed on which settings are searched, and the seeds that are reported."""

    about: str
    seeds: Annotated[list[Seed], Field(min_length=3)]
    search_seed: Seed
    cells: Annotated[list[Cell], Field(min_length=1)]

    @property
    def methods(self) -> tuple[Method, ...]:
        """What is compared: BP first, then as the first cell has them."""
        return tuple(sorted(self.cells[0].search, key=lambda method: method != "bp"))

    @model_validator(mode="after")
    def _once(self) -> Grid:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: one is there twice")
        if self.search_seed in self.seeds:
            raise ValueError(f"search_seed: {self.search_seed} is among the seeds that are reported; give another")
        for cell in self.cells:
            if set(cell.search) != set(self.methods):
                raise ValueError(f"{cell.name} has other methods than {self.cells[0].name}; give all the same")
        names = [cell.name for cell in self.cells]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f'two cells have the name "{name}"')
        return self


@dataclass(frozen=True)
class Run:
    """One method on one cell with one seed."""

    cell: Cell
    method: Method
    trial: Settings
    seed: int
    phase: Phase

    @property
    def argv(self) -> list[str]:
        """The command line after the script, apart from where the data is and where the results go."""
        cell = self.cell
        limit = [] if cell.limit_train is None else ["--limit-train", str(cell.limit_train)]
        settings = {**cell.settings, **self.trial, "checkpoint_keep": 0}
        sets = [part for key in sorted(settings) for part in ("--set", f"{key}={json.dumps(settings[key])}")]
        return [cell.dataset, cell.model, "--method", self.method, "--seed", str(self.seed), *limit, *sets]

    @property
    def command(self) -> str:
        """The whole command. It is the run's identity: what is run by the same command is the same run."""
        return shlex.join(["python", SCRIPTS[self.cell.task], *self.argv])

    def config(self) -> Config:
        """Return the config that the command resolves to now. Raises `UsageError`."""
        return configure(parse(self.cell.task, self.argv))

    def __str__(self) -> str:
        settings = ", ".join(f"{key}={json.dumps(value)}" for key, value in self.trial.items())
        return f"{self.cell.name}, {self.method.upper()}, {settings or 'as the cell says'}, seed {self.seed}"


def search_runs(grid: Grid) -> list[Run]:
    """Return the trials of every cell and method, in order."""
    return [
        Run(cell, method, trial, grid.search_seed, "search")
        for cell in grid.cells
        for method in grid.methods
        for trial in cell.search[method]
    ]


def final_runs(grid: Grid, chosen: dict[tuple[str, Method], Run]) -> list[Run]:
    """Return the runs that are reported: every seed of the trial that was chosen for a cell's name and a method."""
    return [
        Run(cell, method, chosen[cell.name, method].trial, seed, "final")
        for cell in grid.cells
        for method in grid.methods
        if (cell.name, method) in chosen
        for seed in grid.seeds
    ]


def read_grid(path: Path) -> Grid:
    """Read a grid and check everything that can be known before a run. Raises `UsageError`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_unique)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({reason(error)})") from None
    except ValueError as error:  # not JSON, or not UTF-8
        raise UsageError(f"{path}: broken JSON: {error}") from None
    try:
        grid = Grid.model_validate(content)
    except ValidationError as error:
        raise UsageError(f"{path}: {_explain(error)}") from None
    for cell in grid.cells:
        for method in grid.methods:
            _check_trials(path, [run for run in search_runs(grid) if run.cell is cell and run.method == method])
    return grid


def _check_trials(path: Path, runs: list[Run]) -> None:
    """Refuse settings that there are not, and two trials that come to the same."""
    before: list[Config] = []
    for run in runs:
        try:
            config = run.config()
        except UsageError as error:
            raise UsageError(f"{path}: {run.cell.name}, {run.method.upper()}: {error}") from None
        if config in before:
            raise UsageError(f"{path}: {run}: the trial is the same as number {before.index(config) + 1}")
        before.append(config)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f'"{next(name for name in names if names.count(name) > 1)}" is there twice')
    return values


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    words = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
    return f"{place}: {words}" if place else words
