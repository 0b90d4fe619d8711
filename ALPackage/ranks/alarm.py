"""One failure for all ranks: what one of them reports all hear, and a rank that does not answer is reported.

It goes over the store at which the ranks met, and not over the connections that carry the batches: these are silent
while nothing is under way, and a wait on one of them cannot be broken off without closing it.
"""

from __future__ import annotations

import builtins
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ..errors import LayerError, RankError, StageError, UnfitLayersError, words_of
from .link import PeerLost

#: Seconds between two looks at the store, and between two signs of life.
BEAT = 0.5
#: Looks at the store between two in which a rank reads anew what the others say of themselves.
RENEWAL = 4
#: Seconds for which a rank may be silent that is seen to run.
BUSY = 60.0
#: Whether torchrun itself holds the store; otherwise rank 0 does.
AGENT_STORE = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
#: Causes, besides Python's own, that are told apart in other ranks too; of the others the name and the words are kept.
KNOWN: tuple[type[Exception], ...] = (LayerError, torch.cuda.OutOfMemoryError)
#: Seconds for which a rank that has lost a connection waits to hear why.
CURIOSITY = 2.0
#: Why this process has ended another one, by its number and when it began: another alarm here may see its end first.
ENDED: dict[tuple[int, str], str] = {}


class Alarm:
    """This rank's ear at the store, and its voice: the thread `al-alarm`.

    Args:
        store: Of this schedule alone (a `PrefixStore`).
        rank, world: This rank, and how many there are.
        who: Says what this rank has, for the others' messages.
        heard: Called, once and on the alarm's thread, with the failure that ends the run.
        patience: Seconds after which a rank that has given no sign of life counts as lost.
    """

    def __init__(
        self, store: Any, rank: int, world: int, who: str, heard: Callable[[Exception], None], patience: float
    ) -> None:
        self._store, self._rank, self._world, self._heard, self._patience = store, rank, world, heard, patience
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._reported = False
        #: Whether the store has ceased to answer.
        self._mute = False
        #: The last sign of life of the rank that this one watches, and since when.
        self._beat, self._beat_since = b"", time.monotonic()
        self.describe(who)
        self._looks = 0
        self._known: dict[int, dict[str, Any]] = {}
        self.thread = threading.Thread(target=self._watch, name="al-alarm", daemon=True)

    def tell(self, error: BaseException) -> None:
        """Let all ranks hear of the failure, unless they have heard of another one; never raises."""
        if self._mute:
            return
        try:
            self._store.compare_set("failure", "", json.dumps({"rank": self._rank, **_written(error)}))
        except RuntimeError:  # the store is gone, and with it those who could hear
            return

    def cause_of(self, lost: PeerLost) -> Exception:
        """Return why a connection was lost: what another rank has reported, or that the peer is gone."""
        deadline = time.monotonic() + CURIOSITY
        gone: list[int] = []
        try:
            while not gone and time.monotonic() < deadline:
                gone = [rank for rank in lost.ranks if self.gone(rank)]  # first: it may say why, and then end
                if (failure := self._failure()) is not None:
                    return failure
                time.sleep(0.0 if gone else 0.05)
        except RuntimeError as error:
            return self.store_lost(error)
        who = " or ".join(self.who(rank) for rank in gone or lost.ranks)
        return RankError(f"{who} is gone: {lost}")

    def who(self, rank: int) -> str:
        """Return a rank's name for a message."""
        about = self._about(rank)
        told = ", ".join(about[key] for key in ("host", "what") if about.get(key))
        return f"rank {rank} ({told})" if told else f"rank {rank}"

    def gone(self, rank: int) -> bool:
        """Tell whether the process of a rank is seen to have ended; False where that cannot be seen from here."""
        about = self._known.get(rank) or self._about(rank)
        if not about or about["machine"] != _machine() or about["started"] is None:
            return False
        status = _status(about["process"])
        return status is None or status[0] in "ZX" or status[19] != about["started"]

    def death_of(self, rank: int) -> Exception | None:
        """Return what is known of a rank whose process is seen to have ended before it left; None for all others."""
        if not self.gone(rank) or self._store.check([f"left/{rank}"]):
            return None
        about = self._known[rank]
        why = ENDED.get((about["process"], about["started"]), f"{self.who(rank)} is gone: its process has ended")
        return self._failure() or RankError(why)

    def describe(self, who: str) -> None:
        """Say anew what this rank has."""
        with suppress(RuntimeError):
            own = os.getpid()
            here: dict[str, Any] = {"host": socket.gethostname(), "what": who, "machine": _machine()}
            here |= {"process": own, "started": _started(own)}
            self._store.set(f"who/{self._rank}", json.dumps(here))

    def store_lost(self, error: BaseException) -> RankError:
        """Return what to say when the store is gone, which is where torchrun is, or with rank 0."""
        self._mute = True
        return RankError(
            f"{self._holder()} is gone, and with it the store of the ranks: {str(error).strip().splitlines()[0]}"
        )

    def end_if_stopped(self, rank: int) -> None:
        """End a rank of this machine that is stopped: nobody will watch it any more, and it would stay for good."""
        about = self._about(rank)
        if about and about["machine"] == _machine() and not _runs(about["process"]):
            self._end(rank)

    def leave(self) -> None:
        """End the watch: from now on this rank's silence means nothing."""
        if self._over.is_set():
            return
        self._over.set()
        if not self._mute:
            with suppress(RuntimeError):  # the store went first
                self._store.set(f"left/{self._rank}", "")

    def _about(self, rank: int) -> dict[str, Any]:
        if not self._mute:
            with suppress(RuntimeError):  # the store may be gone
                if self._store.check([f"who/{rank}"]):  # or the rank not have come yet: nobody waits for it here
                    self._known[rank] = json.loads(self._store.get(f"who/{rank}"))
        return self._known.get(rank, {})

    def _watch(self) -> None:
        threading.Thread(target=self._watch_store, name="al-alarm-store", daemon=True).start()
        count = 0
        needed = {0, (self._rank + 1) % self._world}  # who they are cannot be asked once they are gone
        while not self._over.wait(BEAT if count else 0.0):
            # What they have changes, and one may not have come yet.
            for rank in needed if count % RENEWAL == 0 else needed - self._known.keys():
                self._about(rank)
            count += 1
            self._looks += 1
            try:
                self._store.set(f"beat/{self._rank}", str(count))
                failure = self._failure() or self._silent()
            except RuntimeError as error:
                failure = self.store_lost(error)
            if failure is not None and not self._over.is_set():
                self._report(failure)
                return

    def _report(self, failure: Exception) -> None:
        with self._lock:
            if self._reported:
                return
            self._reported = True
        self._heard(failure)

    def _watch_store(self) -> None:
        """Report a store that does not answer: whoever asks it waits, and cannot say so.

        It counts its own looks and not the time: an operation that lets no thread run silences both of them.
        """
        looks, last = 0, self._looks
        while not self._over.wait(BEAT) and not self._reported:
            looks, last = (looks + 1, last) if self._looks == last else (0, self._looks)
            if looks * BEAT > (self._patience if AGENT_STORE else self._patience_with(0)):
                self._mute = True
                if not AGENT_STORE:
                    self._end(0)
                self._report(
                    RankError(f"{self._holder()}, which holds the store, has not answered for {self._patience:.0f} s")
                )
                return

    def _holder(self) -> str:
        return f"torchrun on the host of {self.who(0)}" if AGENT_STORE else self.who(0)

    def _failure(self) -> Exception | None:
        if not self._store.check(["failure"]):
            return None
        told: dict[str, Any] = json.loads(self._store.get("failure"))
        if told.get("silent") is not None:
            self._end(told["silent"], told["words"])
        return None if told["rank"] == self._rank else _read(told)

    def _silent(self) -> Exception | None:
        """Return a failure if the rank that this one watches has ended, or has been silent for too long."""
        watched = (self._rank + 1) % self._world
        if watched == self._rank or self._store.check([f"left/{watched}"]):
            return None
        if (death := self.death_of(watched)) is not None:
            self.tell(death)
            return death
        beat = self._store.get(f"beat/{watched}") if self._store.check([f"beat/{watched}"]) else b""
        now = time.monotonic()
        if beat != self._beat:
            self._beat, self._beat_since = beat, now
        if now - self._beat_since <= self._patience_with(watched):
            return None
        silent = RankError(f"{self.who(watched)} has given no sign of life for {now - self._beat_since:.0f} s", watched)
        self.tell(silent)
        self._end(watched, str(silent))
        return silent

    def _patience_with(self, rank: int) -> float:
        """Return how long a rank may be silent: longer if it is seen to run, since a long operation silences a process.

        One of Python's own, such as reading a large file, lets no other thread of its process run meanwhile.
        """
        about = self._known.get(rank, {})
        runs = about.get("machine") == _machine() and _runs(about["process"])
        return max(BUSY, self._patience) if runs else self._patience

    def _end(self, rank: int, why: str | None = None) -> None:
        """End a silent rank if it is on this machine: a process that was stopped would otherwise stay for good."""
        about = self._about(rank)
        if rank == self._rank or not about or about["machine"] != _machine() or not hasattr(signal, "SIGKILL"):
            return
        process = about["process"]
        # It must be that very process: a number may have been given again, and some stand for groups of processes.
        if isinstance(process, int) and process > 1 and about["started"] == _started(process) is not None:
            if why is not None:
                ENDED[process, about["started"]] = why
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)


def _runs(process: int) -> bool:
    """Tell whether a process of this machine exists and is not stopped; False where that is unknown."""
    status = _status(process)
    return status is not None and status[0] not in "TtZX"


def _started(process: int) -> str | None:
    """Return when a process of this machine began, in the system's own unit; None where that is unknown."""
    status = _status(process)
    return None if status is None else status[19]


def _status(process: int) -> list[str] | None:
    """Return what Linux says of a process, from its state on."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


@cache
def _machine() -> str:
    """Return what tells apart systems whose processes have numbers of their own: machines and containers."""
    about = [socket.gethostname()]
    with suppress(OSError):
        about += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(about)


def _written(error: BaseException) -> dict[str, Any]:
    if isinstance(error, StageError):
        cause = error.__cause__ or error
        return {
            "kind": "stage",
            "layer": error.layer,
            "batch": error.batch,
            "type": type(cause).__name__,
            "words": words_of(cause),
        }
    if isinstance(error, UnfitLayersError):
        return {"kind": "unfit", "words": str(error)}
    told = RankError(str(error)) if not isinstance(error, RankError) else error
    return {"kind": "rank", "words": str(told), "silent": told.silent, "mistake": told.mistake}


def _read(told: dict[str, Any]) -> Exception:
    if told["kind"] == "stage":
        name = told["type"]
        kind = {one.__name__: one for one in KNOWN}.get(name) or getattr(builtins, name, None)
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            kind = type(name, (RuntimeError,), {})
        try:
            cause = kind(told["words"])
        except TypeError:  # it takes other arguments
            cause = type(name, (RuntimeError,), {})(told["words"])
        return StageError(told["layer"], told["batch"], cause, told["rank"])
    if told["kind"] == "unfit":
        return UnfitLayersError(told["words"])
    return RankError(told["words"], mistake=told["mistake"])
