"""Where a command goes on with --resume, what makes two runs the same, and what a user should know about it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..config.arguments import Arguments
from ..config.schema import SAME_NUMBERS, Config, Method
from ..errors import UsageError
from ..runs.setting import resolved_config
from ..runs.tasks import Job
from .store import Checkpoint, Store, checkpoint_folder, run_name


def make_stores(arguments: Arguments, config: Config, out: Path) -> dict[Method, Store]:
    """Return where the checkpoints of each method go: all of them belong to a run that begins now."""
    run = run_name()
    return {
        method: Store(checkpoint_folder(out, arguments.dataset, arguments.model, method), config.checkpoint_keep, run)
        for method in arguments.methods
    }


def find_resume_points(
    arguments: Arguments, config: Config, job: Job, stores: dict[Method, Store]
) -> dict[Method, Checkpoint | None]:
    """Return where each method goes on: with --resume where its last run has left it, else nowhere.

    A method whose last command was interrupted before it had a checkpoint begins anew; what is there of it is of an
    earlier run. The stores then belong to the runs that go on, and `together` says which methods share one. Raises
    UsageError where a run was another one. Without --resume a run that was interrupted is pointed out.
    """
    if not arguments.resume:
        for method, store in stores.items():
            checkpoint = store.newest(with_state=False)
            if checkpoint is not None and not checkpoint.facts.finished:
                then = "; this run replaces it once it has a checkpoint of its own" if config.checkpoint_keep else ""
                print(
                    f"note: an unfinished {method.upper()} run is there ({checkpoint.facts.position}); --resume would "
                    f"go on with it{then}"
                )
        return dict.fromkeys(stores)
    newest = {method: store.newest() for method, store in stores.items()}
    for notice in [notice for store in stores.values() for notice in store.notices]:
        print(f"note: {notice}")
    left = [checkpoint for checkpoint in newest.values() if checkpoint]
    if not left:
        print("note: there is nothing to resume; the run starts from the beginning")
    resumed: dict[Method, Checkpoint | None] = {}
    now = resolved_config(arguments, config, job)
    for method, checkpoint in newest.items():
        last = max((other.run for other in left if method in other.facts.methods), default=None)
        resumed[method] = checkpoint if checkpoint and checkpoint.run == last else None
        if last is not None:
            stores[method].run = last
        if (found := resumed[method]) is not None:
            check_same_run(found.facts.config, now)
            if found.facts.turn > arguments.turns:
                raise UsageError(
                    f"--resume: {method.upper()} has begun turn {found.facts.turn}, and -r asks for {arguments.turns}: "
                    "give at least as many turns, or leave --resume out to start anew"
                )
            if found.facts.turn_finished:
                found.state.clear()  # it is as large as the model and its moments, and nobody needs it
        elif left:
            older = "; the checkpoints that are there are of an earlier run" if checkpoint else ""
            print(f"note: {method.upper()} starts from the beginning{older}")
    return resumed


def together(stores: Mapping[Method, Store], method: Method) -> list[str]:
    """Return the methods of the command that train in the same run as this one."""
    return [other for other, store in stores.items() if store.run == stores[method].run]


@contextmanager
def checkpoint_errors(checkpoint: Checkpoint) -> Iterator[None]:
    """Turn what goes wrong inside, where a checkpoint's content is taken over, into a UsageError."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        problem = str(error).partition("\n")[0]
        raise UsageError(
            f"--resume: checkpoint {checkpoint.facts.position} of {checkpoint.facts.method.upper()} does not fit this "
            f"program ({type(error).__name__}: {problem}); leave --resume out to start anew"
        ) from None


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
            f"--resume: the run that is there is another one: {'; '.join(differing)}; "
            "give what it was begun with, or leave --resume out to start anew"
        )


def describe(checkpoint: Checkpoint, threads: int, versions: Mapping[str, Any]) -> list[str]:
    """Return what the user should know about going on from a checkpoint: where, and what may change the last bits."""
    facts = checkpoint.facts
    lines = [
        f"{facts.method.upper()}: goes on from turn {facts.turn}, epoch {facts.epoch}/{facts.epochs}, "
        f"batch {facts.batch}/{facts.batches_per_epoch} (of {facts.date})"
    ]
    changed = [
        f"{name} {facts.versions.get(name)} then, {version} now"
        for name, version in versions.items()
        if facts.versions.get(name) != version
    ]
    if facts.threads != threads:
        changed.append(f"{facts.threads} intra-op threads per worker then, {threads} now")
    if changed:
        lines.append(f"  {'; '.join(changed)}: the last bits may differ from those of a run without an interruption")
    return lines


def _shown(config: Mapping[str, Any], key: str) -> str:
    return json.dumps(config[key]) if key in config else "not there"
