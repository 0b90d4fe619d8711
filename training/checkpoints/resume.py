"""Where a command continues with --resume, what makes two runs the same, and what the user should know about it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise
from typing import Any

from ALPackage.placement.over_ranks import ranks_named

from ..config.earlier import in_todays_keys, is_earlier, with_objectives
from ..config.load import method_title
from ..config.objectives import FLAT, flat
from ..config.schema import RESUME_MAY_CHANGE
from ..config.spec import RunSpec
from ..config.unread import of_al_alone
from ..errors import UsageError
from .store import Checkpoint, Store, checkpoint_folder, run_name

Specs = Mapping[str, RunSpec]


def make_stores(specs: Specs) -> dict[str, Store]:
    """Return where the checkpoints of each method go: they all belong to a run that begins now."""
    run = run_name()
    return {
        method: Store(checkpoint_folder(spec.out, spec.dataset, spec.model, method), spec.config.checkpoint_keep, run)
        for method, spec in specs.items()
    }


def find_resume_points(
    specs: Specs, stores: Mapping[str, Store], since: datetime | None = None
) -> dict[str, Checkpoint | None]:
    """Return the checkpoint that each method continues from with --resume, or None where it starts anew.

    `since`: take no run for this command's that began before; and say nothing where there is none.

    A method belongs to the newest run whose command included it. If that run was interrupted before the method had a
    checkpoint, it starts anew: what is there of it is left over from an earlier run. The stores then belong to the runs
    that continue. Raises UsageError where a run was another one.
    """
    newest = {method: store.newest() for method, store in stores.items()}
    if since is not None:
        own = {method: one if one and one.run >= run_name(since) else None for method, one in newest.items()}
        if not any(own.values()):
            return own
        newest = own
    for notice in [notice for store in stores.values() for notice in store.notices]:
        print(f"note: {notice}")
    found = [checkpoint for checkpoint in newest.values() if checkpoint]
    if not found:
        print("note: there is nothing to resume; the run starts from the beginning")
    resumed: dict[str, Checkpoint | None] = {}
    for method, checkpoint in newest.items():
        # The records of the other methods count too: a run may have been interrupted before this one's turn came.
        run = max((other.run for other in found if method in other.record.methods_of_run), default=None)
        if run is not None:
            stores[method].run = run
        resumed[method] = None
        if checkpoint is not None and checkpoint.run == run:
            _check(checkpoint, specs[method])
            resumed[method] = checkpoint
            stores[method].position = checkpoint.info.position
        elif found:
            older = "; the checkpoints that are there belong to an earlier run" if checkpoint else ""
            print(f"note: {method_title(method)} starts from the beginning{older}")
    return resumed


def epochs_done(checkpoint: Checkpoint) -> int:
    """Return how many epochs of its method were recorded before the one that the checkpoint continues."""
    info = checkpoint.info
    return info.turn * info.epochs if info.turn_finished else (info.turn - 1) * info.epochs + info.epoch - 1


def note_unfinished(specs: Specs, stores: Mapping[str, Store]) -> None:
    """Print a note for every method whose last run was interrupted: without --resume it will be replaced."""
    for method, store in stores.items():
        checkpoint = store.newest(with_layers=False)
        if checkpoint is not None and not checkpoint.info.finished:
            keep = specs[method].config.checkpoint_keep
            then = "; this run replaces it once it has a checkpoint of its own" if keep else ""
            print(
                f"note: an unfinished {method_title(method)} run is there ({checkpoint.info.position}); --resume would "
                f"continue it{then}"
            )


def methods_of_run(stores: Mapping[str, Store], method: str) -> list[str]:
    """Return the methods of the command that train in the same run as this one."""
    return [other for other, store in stores.items() if store.run == stores[method].run]


def _check(checkpoint: Checkpoint, spec: RunSpec) -> None:
    """Raise UsageError where the checkpoint is not one of this command; drop tensors that nobody will need."""
    info = checkpoint.info
    saved = checkpoint.record.info["config"]
    then = with_objectives(in_todays_keys(saved), spec.task, spec.method)
    unread = set() if spec.method == FLAT else of_al_alone(spec.task, spec.model)
    check_same_run(*({key: value for key, value in one.items() if key not in unread} for one in (then, spec.resolved)))
    if is_earlier(saved):
        layers = saved["n_layers"]
        print(f"note: the saved run is from before al_layers: its n_layers={layers} is al_layers={layers} now")
    if info.turn > spec.turns:
        raise UsageError(
            f"--resume: {method_title(spec.method)} has begun turn {info.turn}, and -r asks for {spec.turns}: "
            "give at least as many turns, or leave --resume out to start anew"
        )
    if info.turn_finished:
        checkpoint.layers.clear()  # as large as the model and its moments


@contextmanager
def checkpoint_errors(checkpoint: Checkpoint) -> Iterator[None]:
    """Turn what goes wrong inside, where a checkpoint's content is taken over, into a UsageError."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        problem = str(error).partition("\n")[0]
        raise UsageError(
            f"--resume: checkpoint {checkpoint.info.position} of {method_title(checkpoint.info.method)} does not fit "
            f"this program ({type(error).__name__}: {problem}); leave --resume out to start anew"
        ) from None


def check_same_run(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise UsageError with every key that changes what is computed and differs."""
    then, now = flat(then), flat(now)
    # A key may be new in this version, or gone: then nobody knows whether the numbers are the same.
    keys = [key for key in dict.fromkeys([*then, *now]) if key not in RESUME_MAY_CHANGE]
    differing = [
        f"{key} was {_shown(then, key)} and is {_shown(now, key)}"
        for key in keys
        if (key in then) != (key in now) or then.get(key) != now.get(key)
    ]
    if differing:
        raise UsageError(
            f"--resume: the saved run had other settings: {'; '.join(differing)}; "
            "give those that it was started with, or leave --resume out to start anew"
        )


def describe(checkpoint: Checkpoint, spec: RunSpec, devices: Sequence[str] = ()) -> list[str]:
    """Return what the user should know about resuming: where it continues, and what may change the last bits.

    `devices`: of every layer by name, as the run goes on.
    """
    info, before = checkpoint.info, checkpoint.record.info
    lines = [
        f"{method_title(info.method)}: continues from turn {info.turn}, epoch {info.epoch}/{info.epochs}, "
        f"batch {info.batch}/{info.batches_per_epoch} (of {info.date})"
    ]
    versions = before["provenance"]["versions"]
    changed = [
        f"{name} {versions.get(name)} then, {version} now"
        for name, version in spec.versions.items()
        if versions.get(name) != version
    ]
    if before["threads"] != spec.threads:
        changed.append(f"intra-op threads per worker: {before['threads']} then, {spec.threads} now")
    if changed:
        lines.append(f"  {'; '.join(changed)}: the last bits may differ from those of an uninterrupted run")
    then = _of_bp(before.get("processes", 1), before.get("bp_parallel"))
    now = _of_bp(spec.world if spec.over_ranks else 1, spec.bp_parallel)
    if spec.method == "bp" and then != now:
        lines.append(f"  BP: {then} then, {now} now: the numbers are not those of an uninterrupted run")
    replicas_then, replicas_now = _replicas(before.get("devices", ())), _replicas(devices)
    if spec.method != "bp" and replicas_then != replicas_now:
        lines.append(
            f"  {method_title(spec.method)}: {replicas_then or 'no replicas'} then, {replicas_now or 'none'} now: the "
            "numbers are those of an uninterrupted run but for rounding and what a batch normalization counts"
        )
    then, now = (
        _rounded(config.get("wire"), places)
        for config, places in ((before["config"], before.get("devices", ())), (vars(spec.config), devices))
    )
    if spec.method != "bp" and then != now:
        lines.append(
            f"  {method_title(spec.method)}: rounded to bf16 {then or 'nowhere'} then, {now or 'nowhere'} now: the "
            "numbers are not those of an uninterrupted run"
        )
    return [*lines, *(f"  note: {note}" for note in network_notes(checkpoint, spec))]


def network_notes(checkpoint: Checkpoint, spec: RunSpec) -> list[str]:
    """Return a note for the results where the file of a network of the user's is not as it was before.

    It may go on: what has changed may be a comment, or a function that this network does not need.
    """
    then, now, info = checkpoint.record.info.get("network"), spec.network, checkpoint.info
    if then is None or now is None or then["sha256"] == now["sha256"]:
        return []
    return [
        f"{now['file']} changed after turn {info.turn}, epoch {info.epoch}, batch {info.batch} "
        f"(SHA-256 {then['sha256']} then, {now['sha256']} now): what the network computes may be something else"
    ]


def _replicas(devices: Sequence[str]) -> str:
    """Return which layers have replicas, and how many, for a message; nothing where none has."""
    counts = [len(ranks_named(name)) for name in devices]
    return ", ".join(f"layer {layer} in {count} replicas" for layer, count in enumerate(counts, 1) if count > 1)


def _rounded(wire: str | None, devices: Sequence[str]) -> str:
    """Return behind which layers what is sent is rounded, for a message; nothing where nothing is."""
    ranks = [ranks_named(name) for name in devices]
    behind = [str(layer) for layer, (one, other) in enumerate(pairwise(ranks), 1) if one != other]
    return f"behind layer {', '.join(behind)}" if wire == "bf16" and behind else ""


def _of_bp(processes: int, way: str | None) -> str:
    return "one process" if processes == 1 else f"{way} over {processes} processes"


def _shown(config: Mapping[str, Any], key: str) -> str:
    return json.dumps(config[key]) if key in config else "not there"
