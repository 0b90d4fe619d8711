"""How the processes of a command meet: at a store, where they see who is there, and that all were told the same."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any
from uuid import uuid4

import torch.distributed as dist

from ALPackage.ranks.alarm import AGENT_STORE
from ALPackage.ranks.links import store_of

from ..config.launch import Launch
from ..errors import UsageError
from .shutdown import ignore_signals

#: Seconds between two looks at the store.
BEAT = 0.02
#: Seconds that a process in which something is wrong waits for the others to have read what.
FAREWELL = 2.0


def meet(launch: Launch, about: Callable[[], dict[str, Any]], timeout: float) -> Any:
    """Make the default process group, and return a part of the store for keys of the command.

    `about`: returns what has to be the same in all processes, by name, and under "mistake" what is wrong in this one.
    Raises UsageError, in all of them, where they do not meet within `timeout` seconds, or differ.
    """
    try:
        store = _begin(launch, _connect(launch, timeout), timeout)
        limit = timedelta(seconds=timeout)
        dist.init_process_group("gloo", store=store, rank=launch.rank, world_size=launch.world, timeout=limit)
        store = store_of("al/command")
        with _parting(launch, store):
            _compare(launch, store, about())
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"{_apart(launch)}: {str(error).strip().splitlines()[0]}") from None
    return store


def _apart(launch: Launch) -> str:
    return f"rank {launch.rank} of {launch.world}: the processes did not meet"


def _connect(launch: Launch, timeout: float) -> Any:
    """Return the store at which torchrun lets its processes meet; rank 0 makes it where torchrun does not."""
    host, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT", "")
    if not host or not port.isdecimal():
        raise UsageError(
            f"MASTER_ADDR={host or ''}, MASTER_PORT={port}: these are set by torchrun; start the command with it"
        )
    made: list[Any] = []

    def connect() -> None:
        options: dict[str, Any] = {"timeout": timedelta(seconds=timeout), "multi_tenant": True}
        options |= {"wait_for_workers": False}  # who is missing is told by name, see below
        try:
            leads = launch.leads and not AGENT_STORE
            made.append(dist.TCPStore(host, int(port), launch.world, leads, **options))  # type: ignore[attr-defined]
        except RuntimeError as error:
            made.append(error)

    # Where another program has the port, torch waits for its answer without a limit.
    thread = threading.Thread(target=connect, name="meeting", daemon=True)
    thread.start()
    thread.join(timeout + 1.0)
    if not made:
        raise UsageError(
            f"{_apart(launch)}: no rank 0 answers at {host}:{port}; is it started, and the port no other program's?"
        )
    if isinstance(made[0], RuntimeError):
        words = str(made[0]).strip().splitlines()[0]
        if "EADDRINUSE" in words:
            words = f"port {port} is in use; give another one with --master-port"
        raise UsageError(f"{_apart(launch)}: {words}")
    return made[0]


def _begin(launch: Launch, whole: Any, timeout: float) -> Any:
    """Return the part of the store that belongs to this start of the command, once all are there.

    torchrun may start a command again at the same store, where the words of processes that are gone still stand. So
    rank 0 makes a part with a name of its own, and tells it in answer to what only a living process can have said.
    Raises UsageError if a process is missing, is there twice, or counts otherwise.
    """
    deadline = time.monotonic() + timeout
    if launch.leads:
        name = uuid4().hex
    else:
        whole.set(f"hello/{launch.rank}", uuid4().hex)
        # Where another process says hello with this rank, both take the same answer, and are found out there.
        while not whole.check([f"answer to {(said := whole.get(f'hello/{launch.rank}').decode())}"]):
            if time.monotonic() > deadline:
                raise UsageError(f"{_apart(launch)}: rank 0 has not answered for {timeout:.0f} s")
            time.sleep(BEAT)
        name = whole.get(f"answer to {said}").decode()
    store = dist.PrefixStore(name, whole)  # type: ignore[attr-defined]
    with _parting(launch, store):
        _check_in(launch, store)
        missing, answered = list(range(launch.world)), {b""}
        while missing:
            missing = [rank for rank in missing if not store.check([f"here/{rank}"])]
            # Also those that are there: a second process of the same rank is found out once it has an answer.
            for rank in range(1, launch.world) if launch.leads else ():
                if whole.check([f"hello/{rank}"]) and (said := whole.get(f"hello/{rank}")) not in answered:
                    answered.add(said)
                    whole.set(f"answer to {said.decode()}", name)
            if store.check(["wrong"]):
                raise UsageError(store.get("wrong").decode())
            if missing and time.monotonic() > deadline:
                names = ", ".join(map(str, missing))
                raise UsageError(f"{_apart(launch)}: nothing was heard of rank {names} for {timeout:.0f} s")
            time.sleep(BEAT)
    return store


def _check_in(launch: Launch, store: Any) -> None:
    """Say that this process is there, and what does not fit."""
    rank, world = launch.rank, launch.world
    first = int(store.compare_set("world", "", str(world)))
    twice = store.add(f"here/{rank}", 1) > 1
    if first != world or twice:
        counts = f"one process was started as one of {first}, rank {rank} as one of {world}"
        wrong = f"there are two processes with rank {rank} of {world}" if first == world else counts
        store.set("wrong", f"{wrong}: each process needs a RANK of its own, and all of them the same WORLD_SIZE")


@contextmanager
def _parting(launch: Launch, store: Any) -> Iterator[None]:
    """Have a process in which something is wrong stay until the others have read what.

    The first one to end takes the store along, or has torchrun send the others a signal.
    """
    try:
        yield
    except UsageError:
        ignore_signals()
        deadline = time.monotonic() + FAREWELL
        with suppress(RuntimeError):
            store.set(f"parted/{launch.rank}", "")
            everybody = [f"parted/{rank}" for rank in range(launch.world)]
            while not store.check(everybody) and time.monotonic() < deadline:
                time.sleep(BEAT)
        raise


def _compare(launch: Launch, store: Any, about: dict[str, Any]) -> None:
    """Raise UsageError, on all ranks, if one of them has another command, configuration or version than rank 0."""
    store.set(f"about/{launch.rank}", json.dumps(about, sort_keys=True))
    everybody: list[dict[str, Any]] = [json.loads(store.get(f"about/{rank}")) for rank in range(launch.world)]
    for rank, other in enumerate(everybody):
        if other["mistake"] is not None:
            here = other["mistake"] == everybody[launch.rank]["mistake"]
            where = "" if here else f" (in rank {rank})"
            raise UsageError(f"{other['mistake']}{where}")
    first = everybody[0]
    for rank, other in enumerate(everybody):
        for name in sorted({*first, *other}):
            if first.get(name) != other.get(name):
                raise UsageError(
                    f"{name}: rank {rank} has {json.dumps(other.get(name))}, rank 0 has {json.dumps(first.get(name))}; "
                    "all ranks need the same command, configuration and versions"
                )
