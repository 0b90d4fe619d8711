"""Where a command goes on with --resume, what makes two runs the same, and what a user should know about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .arguments import Arguments
from .checkpoint import Checkpoint, Store, checkpoint_folder, run_name
from .config import Config, Method
from .errors import UsageError
from .schema import SAME_NUMBERS
from .setting import resolved_config
from .tasks import Job

__all__ = ["check_same_run", "describe", "look_back", "make_stores"]


def make_stores(arguments: Arguments, config: Config, out: Path) -> dict[Method, Store]:
    """Return where the checkpoints of each method go: all of them belong to a run that begins now."""
    run = run_name()
    return {
        method: Store(checkpoint_folder(out, arguments.dataset, arguments.model, method), config.checkpoint_keep, run)
        for method in arguments.methods
    }


def look_back(
    arguments: Arguments, config: Config, job: Job, stores: dict[Method, Store]
) -> dict[Method, Checkpoint | None]:
    """Return where each method goes on: with --resume where the last run has left it, if that had begun with it.

    The stores then belong to that run. Raises UsageError where it was another one. Without --resume nothing goes on,
    and a run that was interrupted is pointed out.
    """
    newest = {method: store.newest() for method, store in stores.items()}
    if not arguments.resume:
        for method, checkpoint in newest.items():
            if checkpoint is not None and not checkpoint.finished:
                print(
                    f"note: an unfinished {method.upper()} run is there ({checkpoint.position}); --resume would go on "
                    "with it; this run replaces it once it has a checkpoint of its own"
                )
        return dict.fromkeys(newest)
    for notice in [notice for store in stores.values() for notice in store.notices]:
        print(f"note: {notice}")
    last = max((checkpoint.run for checkpoint in newest.values() if checkpoint), default=None)
    if last is None:
        print("note: there is nothing to resume; the run starts from the beginning")
        return newest
    resumed = {method: point if point and point.run == last else None for method, point in newest.items()}
    now = {**resolved_config(arguments, config, job), "training samples": len(job.data.train)}
    for method, checkpoint in resumed.items():
        stores[method].run = last
        if checkpoint is None:
            continue
        check_same_run({**checkpoint.facts["config"], "training samples": checkpoint.facts["train_samples"]}, now)
        if checkpoint.position.turn > arguments.turns:
            raise UsageError(
                f"--resume: the run has begun turn {checkpoint.position.turn}, and -r asks for {arguments.turns}: "
                "give at least as many turns, or leave --resume out to start anew"
            )
    return resumed


def check_same_run(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise UsageError with every key that changes what is computed and differs."""
    keys = [key for key in dict.fromkeys([*then, *now]) if key not in SAME_NUMBERS]
    differing = [
        f"{key} was {_shown(then, key)} and is {_shown(now, key)}"
        for key in keys
        if (key in then) != (key in now) or then.get(key) != now.get(key)
    ]
    if differing:
        raise UsageError(
            f"--resume: the run that was interrupted is another one: {'; '.join(differing)}; "
            "give what it was begun with, or leave --resume out to start anew"
        )


def describe(checkpoint: Checkpoint, threads: int, versions: Mapping[str, Any]) -> list[str]:
    """Return what the user should know about going on from a checkpoint: where, and what may change the last bits."""
    facts = checkpoint.facts
    lines = [
        f"{facts['method'].upper()}: goes on from turn {checkpoint.position.turn}, "
        f"epoch {checkpoint.position.epoch}/{facts['epochs']}, "
        f"batch {checkpoint.position.batch}/{facts['batches_per_epoch']} (of {facts['date']})"
    ]
    changed = [
        f"{name} {facts['versions'].get(name)} then, {version} now"
        for name, version in versions.items()
        if facts["versions"].get(name) != version
    ]
    if facts["threads"] != threads:
        changed.append(f"{facts['threads']} intra-op threads per worker then, {threads} now")
    if changed:
        lines.append(f"  {'; '.join(changed)}: the last bits may differ from those of a run without an interruption")
    return lines


def _shown(config: Mapping[str, Any], key: str) -> str:
    return json.dumps(config[key]) if key in config else "not there"
