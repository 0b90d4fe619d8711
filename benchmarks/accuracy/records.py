"""The results file: every finished run, under the command that it was."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.storage.files import atomic_write_text, exclusive_lock
from training.config.schema import RESUME_MAY_CHANGE
from training.errors import UsageError, reason

from .grid import Grid, Run

__all__ = ["Record", "Records", "asked", "lasting", "results_path", "sole_runner"]

Record = dict[str, Any]


class Records:
    """What has been run, by command; `add` writes the file anew, so that an interruption loses no finished run."""

    def __init__(self, path: Path, grid: Grid) -> None:
        self.path, self.grid = path, grid
        self.runs: dict[str, Record] = {}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            self.runs = {record["command"]: record for record in content["runs"]}
        except FileNotFoundError:
            pass
        except OSError as error:
            raise UsageError(f"{path}: cannot be read ({reason(error)})") from None
        except (ValueError, LookupError, TypeError) as error:
            raise UsageError(f"{path}: is damaged ({type(error).__name__}); mend it, or name another") from None

    def missing(self, runs: list[Run]) -> list[Run]:
        """Return those of `runs` that are not finished, each once.

        Raises `UsageError` where the command of a finished one would be another run today: the numbers would not be
        comparable with those to come.
        """
        wanted = {run.command: run for run in runs}
        for command, run in wanted.items():
            if command not in self.runs:
                continue
            then, now = self.runs[command]["asked"], asked(run)
            changed = sorted(key for key in then.keys() & now.keys() if then[key] != now[key])
            if changed:
                raise UsageError(
                    f"{self.path}: {run}: the config file has another {', '.join(changed)} now than when this was run; "
                    "set it in the grid, or take the run out of the results"
                )
        return [run for command, run in wanted.items() if command not in self.runs]

    def add(self, run: Run, facts: Record) -> None:
        """Keep a finished run. Raises OSError where the file cannot be written."""
        self.runs[run.command] = {
            "command": run.command,
            "phase": run.phase,
            "cell": run.cell.name,
            "method": run.method,
            "trial": run.trial,
            "seed": run.seed,
            **facts,
        }
        self.write()

    def content(self) -> dict[str, Any]:
        """Return what the file holds, the grid as it is now included."""
        return {"grid": self.grid.model_dump(mode="json"), "runs": list(self.runs.values())}

    def write(self) -> None:
        """Write the file, a line per run. Raises OSError."""
        content = self.content()
        runs = ",\n".join(json.dumps(record, ensure_ascii=False, allow_nan=False) for record in content["runs"])
        grid = json.dumps(content["grid"], ensure_ascii=False)
        atomic_write_text(self.path, f'{{\n"grid": {grid},\n"runs": [\n{runs}\n]\n}}\n')


def lasting(config: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a run's config that decides its numbers, and names no folder or device."""
    return {key: value for key, value in config.items() if key not in RESUME_MAY_CHANGE}


def asked(run: Run) -> dict[str, Any]:
    """Return that part of the config that the run's command comes to now, before the data decides what is "auto"."""
    return lasting(run.config().model_dump(mode="json"))


def results_path(grid: Path) -> Path:
    """Return where the results of a grid are kept: results.json for cpu.json, else a name of its own beside it."""
    return grid.with_name("results.json" if grid.stem == "cpu" else f"{grid.stem}.results.json")


@contextlib.contextmanager
def sole_runner(results: Path) -> Iterator[None]:
    """Be the only command that adds to these results. Raises `UsageError` where another one does, or none can."""
    lock = results.with_name(f".{results.name}.lock")  # the results themselves are replaced, and a lock with them
    with contextlib.ExitStack() as held:
        try:
            lock.touch()
            held.enter_context(exclusive_lock(lock, wait=False))
        except BlockingIOError:
            raise UsageError(f"{results}: another command is adding to it; wait for its end") from None
        except OSError as error:
            raise UsageError(f"{results}: cannot be written ({reason(error)}); name another with --results") from None
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
