"""A command over several processes: they meet, the others do what rank 0 orders, and all end the same way.

    rank 0      the command as ever: data, training, results; before each schedule it makes, an order to the others
    the others  wait for orders, make the same schedule, and serve in it

Orders, signs of life, signals and the end go over the store at which torchrun lets the ranks meet.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
import torch.distributed as dist

from ALPackage import RankError
from ALPackage.ranks.alarm import Alarm
from ALPackage.ranks.speed import link_speed

from ..config.launch import Launch, note_cause
from ..errors import UsageError
from .exit_code import mistake_in
from .meeting import BEAT, FAREWELL, meet
from .shutdown import GracefulShutdown, ignore_signals

#: Seconds for which a rank may give no sign of life.
PATIENCE = 4.0
#: Seconds that a rank has to end by itself when another one has failed.
GRACE = 3.0
#: The same for a rank that has nothing to write, where rank 0 will know nothing more of it.
BRIEF = 1.0
#: Seconds between two looks for a signal.
LOOK = 0.2


class Ranks:
    """This process among those of a command.

    Attributes:
        launch: Which one it is.
        failure: What has happened to another rank, once it is known.
        complete: Whether rank 0 has all that it wanted of the others: what happens to them is no reason to end then.
    """

    def __init__(self, launch: Launch, store: Any, about: str) -> None:
        self.launch = launch
        self.failure: Exception | None = None
        self.complete = False
        #: Called on a thread with the number of a signal that another rank has received.
        self.signaled: Callable[[int], None] = _nothing
        self._store = store
        self._given = 0
        self._ended = threading.Event()
        gpus = torch.cuda.device_count()
        store.set(f"device/{launch.rank}", f"cuda:{launch.local_rank % gpus}" if gpus else "cpu")
        self._alarm = Alarm(store, launch.rank, launch.world, about, self._hear, PATIENCE)
        self._alarm.thread.start()
        if launch.leads:
            threading.Thread(target=self._forward_signal, name="ranks", daemon=True).start()

    @property
    def leads(self) -> bool:
        """Whether this is rank 0."""
        return self.launch.leads

    @property
    def devices(self) -> list[str]:
        """The device of each rank that "auto" means there."""
        return [str(self._store.get(f"device/{rank}").decode()) for rank in range(self.launch.world)]

    def introduce(self) -> None:
        """Learn who those ranks are that this one may have to name once they are gone; rank 0 waits until all have."""
        for rank in {0, (self.launch.rank + 1) % self.launch.world}:
            self._wait_for(f"who/{rank}")
            self._alarm.who(rank)
        self._store.set(f"introduced/{self.launch.rank}", "")
        for rank in range(self.launch.world) if self.leads else ():
            self._wait_for(f"introduced/{rank}")

    def speed(self) -> float:
        """Return the bytes per second of the slowest connection from a rank to the next; on rank 0."""
        self.order("measure the connections")
        try:
            return link_speed(list(range(self.launch.world)))
        except RuntimeError as error:  # gloo's, too
            raise self.why(error) from None

    def why(self, error: RuntimeError) -> Exception:
        """Return why something that all ranks take part in has failed: what is known of another rank, or the words."""
        deadline = time.monotonic() + PATIENCE + 1.0
        while self.failure is None and time.monotonic() < deadline:
            time.sleep(BEAT)
        return self.failure or RankError(f"a rank is gone: {str(error).strip().splitlines()[0]}")

    def order(self, what: str, **content: Any) -> None:
        """Have the other ranks do something; on rank 0."""
        self._store.set(f"order/{self._given}", json.dumps({"what": what, **content}))
        self._given += 1

    def orders(self) -> Iterator[dict[str, Any]]:
        """Yield what rank 0 orders, up to the end. Raises RankError where a rank is gone."""
        for number in range(sys.maxsize):
            order: dict[str, Any] = json.loads(self._wait_for(f"order/{number}"))
            self._given = number + 1
            yield order
            if order["what"] == "end":
                return

    def answer(self, **content: Any) -> None:
        """Answer the last order."""
        self._store.set(f"answer/{self._given}/{self.launch.rank}", json.dumps(content))

    def answers(self) -> dict[int, dict[str, Any]]:
        """Return the answers of the other ranks to the last order, by rank. Raises RankError where a rank is gone."""
        others = range(1, self.launch.world)
        return {rank: json.loads(self._wait_for(f"answer/{self._given}/{rank}")) for rank in others}

    def _wait_for(self, key: str) -> bytes:
        try:
            while not self._store.check([key]):
                if self.failure is not None:
                    raise self.failure
                time.sleep(BEAT)
            found: bytes = self._store.get(key)
        except dist.DistError as error:
            raise self.failure or self._alarm.store_lost(error) from None
        return found

    def report_signals(self, shutdown: GracefulShutdown) -> None:
        """Let rank 0 know of a signal that this rank receives; it ends the run, with a checkpoint."""

        def watch() -> None:
            while not self._ended.wait(LOOK):
                if (signum := shutdown.received) is not None:
                    with suppress(RuntimeError):
                        self._store.set("signal", str(signum))
                    return

        threading.Thread(target=watch, name="ranks", daemon=True).start()

    def fail(self, error: BaseException) -> None:
        """Let all ranks know that this one ends, and why."""
        if isinstance(error, KeyboardInterrupt):  # the signal itself ends the run then, and is no answer to anything
            with suppress(RuntimeError):
                self._store.set("interrupted", "")
        mistake = mistake_in(error)
        words = str(mistake or f"{type(error).__name__}: {error}")
        self._alarm.tell(RankError(f"{self.who()}: {words}", mistake=mistake is not None))

    def end(self, code: int, words: str) -> None:
        """On rank 0: have the others end with this code, and wait for them to know."""
        with suppress(RuntimeError):
            self.order("end", code=code, words=words)
            deadline = time.monotonic() + FAREWELL
            waiting = list(range(1, self.launch.world))
            while waiting and self.failure is None and time.monotonic() < deadline:
                time.sleep(BEAT)
                waiting = [one for one in waiting if not (self._alarm.gone(one) or self._store.check([f"ended/{one}"]))]
            for rank in waiting:
                # A signal may have been torchrun's answer to a death that nobody here had seen yet.
                if code > 2:
                    print(f"{self._alarm.who(rank)} did not answer at the end", file=sys.stderr, flush=True)
                self._alarm.end_if_stopped(rank)

    def lost(self) -> Exception | None:
        """Return what has happened to another rank, if something has; a signal may be torchrun's answer to that."""
        with suppress(RuntimeError):  # the store may be gone
            for rank in range(self.launch.world):
                if rank != self.launch.rank and (death := self._alarm.death_of(rank)) is not None:
                    return death
            if self._store.check(["interrupted"]):
                return None
        return self.failure

    def leave(self) -> None:
        """End the watch over the others, and theirs over this one."""
        self._ended.set()
        self._alarm.leave()
        with suppress(RuntimeError):
            self._store.set(f"ended/{self.launch.rank}", "")

    def describe(self, layers: Sequence[str]) -> None:
        """Say which layers this rank has, for messages."""
        self._alarm.describe(", ".join(layers))

    def who(self) -> str:
        """Return this rank's name for a message."""
        return self._alarm.who(self.launch.rank)

    def _hear(self, failure: Exception) -> None:
        """Note a failure; where this rank does not end by itself, because it is not training just now, end it."""
        self.failure = failure
        known = isinstance(failure, RankError) and not failure.mistake
        if not self._ended.wait(BRIEF if known and not self.leads else GRACE) and not self.complete:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            with suppress(OSError, ValueError):
                print(f"error: {failure}", file=sys.stderr, flush=True)
            note_cause(str(failure))
            os._exit(2 if mistake_in(failure) else 1)

    def _forward_signal(self) -> None:
        while not self._ended.wait(LOOK):
            with suppress(RuntimeError):
                if self._store.check(["signal"]):
                    self.signaled(int(self._store.get("signal")))
                    return


def _nothing(signum: int) -> None:
    """Ignore it: nothing runs yet."""


@contextmanager
def joined(launch: Launch, about: Callable[[], dict[str, Any]], timeout: float) -> Iterator[Ranks | None]:
    """Let the processes of a command meet, if there are several. Yields None for a process that is alone.

    `about`: returns what has to be the same in all of them, by name. Raises UsageError where they do not meet, or
    differ.
    """
    if launch.world == 1:
        yield None
        return
    ranks = Ranks(launch, meet(launch, about, timeout), "")
    try:
        ranks.introduce()
        yield ranks
    except BaseException as error:
        if not isinstance(error, RankError):
            ranks.fail(error)
        raise
    finally:
        # The first process to end has torchrun send the others a signal, which must not change how they end.
        ignore_signals()
        ranks.leave()


def share_mistake(launch: Launch, words: str, timeout: float = 60.0) -> None:
    """Let the other processes of a command know what is wrong with it in this one, before they wait for it in vain."""
    with suppress(UsageError), joined(launch, lambda: {"mistake": words}, timeout):
        pass
