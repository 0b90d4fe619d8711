"""The figures of a run, written after every measurement, so that an interrupted run goes on where it was."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from training.runs.provenance import collect

from .launch import WorkerError

Case = Mapping[str, Any]


class Record:
    """What one command has measured so far.

    The figures stand in a file beside `out` that is called partial, until `finish` puts them into `out`. A partial file
    of the same settings and the same commit is continued, and what failed is tried again. Another one is thrown away,
    and stderr says so.

    Args:
        out: the file with the results.
        module: the benchmark's module, for the command that the results name.
        argv: what the command was given.
        settings: what must be the same for figures to belong together.
        part: the results are one entry of `out`, under this name; its other entries stay as they are.
        device: what is measured on.
    """

    def __init__(
        self,
        out: Path,
        module: str,
        argv: Iterable[str],
        settings: dict[str, Any],
        *,
        part: str | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.out, self.part = out, part
        self.partial = out.with_name(f"{out.stem}{'.' + part if part else ''}.partial.json")
        self.results: dict[str, Any] = {
            "command": " ".join(["python -m", module, *argv]),
            "settings": settings,
            "provenance": collect(dict.fromkeys(["cpu", str(device or "cpu")])),
            "interruptions": 0,
            "runs": [],
        }
        if self.partial.exists():
            earlier = json.loads(self.partial.read_text(encoding="utf-8"))
            if _identity(earlier) == _identity(self.results):
                self.results = earlier
                self.results["interruptions"] += 1
                self.results["runs"] = [run for run in earlier["runs"] if "failed" not in run]
                say(f"going on with {self.partial}: {len(self.runs)} measurements are there")
            else:
                say(f"{self.partial} has other settings or another commit: starting anew")

    @property
    def runs(self) -> list[dict[str, Any]]:
        """Every measurement: its case, its figures, when it was made, and the load of the machine before it."""
        runs: list[dict[str, Any]] = self.results["runs"]
        return runs

    def take(self, cases: Iterable[Case], measure: Callable[..., dict[str, Any]], until: float | None = None) -> None:
        """Measure every case that has not been measured, and keep what `measure(**case)` returns.

        A process that fails costs its own figures only: the reason stands in their place.

        Args:
            until: begin no further measurement at this time of `time.monotonic()`.
        """
        for case in cases:
            if until is not None and time.monotonic() > until:
                say(f"no time left for {case} and those after it")
                return
            if any(all(run.get(key) == value for key, value in case.items()) for run in self.runs):
                continue
            before = {"load_before": os.getloadavg()[0], "when": now()}
            try:
                found = measure(**case)
            except WorkerError as error:
                found = {"failed": str(error)[-1500:]}
            self.runs.append({**case, **before, **found})
            self.keep()
            say(", ".join(f"{key} {value}" for key, value in {**case, **_short(found)}.items()))

    def keep(self) -> None:
        """Write what there is, whole or not at all."""
        _write(self.partial, self.results)

    def finish(self) -> dict[str, Any]:
        """Put the results into `out` and return all that is in it."""
        everything = self.results
        if self.part is not None:
            everything = json.loads(self.out.read_text(encoding="utf-8")) if self.out.exists() else {}
            everything[self.part] = self.results
        _write(self.out, everything)
        self.partial.unlink(missing_ok=True)
        return everything


def say(line: str) -> None:
    """Report progress on stderr; stdout is for the tables."""
    print(line, file=sys.stderr, flush=True)


def now() -> str:
    """Return the time of the clock on the wall."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _identity(results: dict[str, Any]) -> Any:
    """Return what figures that belong together have in common, as JSON has it."""
    return json.loads(json.dumps([results["settings"], results["provenance"]["git_commit"]]))


def _short(found: dict[str, Any]) -> dict[str, Any]:
    """Return the figures that fit into a line."""
    numbers = {key: value for key, value in found.items() if isinstance(value, (int, float))}
    return {key: f"{value:.4g}" for key, value in numbers.items()} or {key: str(found[key])[:300] for key in found}


def _write(path: Path, results: dict[str, Any]) -> None:
    new = path.with_suffix(".new")
    new.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    new.replace(path)
