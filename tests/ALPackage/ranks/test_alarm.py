"""What one rank says all hear, and a rank that says nothing is named and ended. One process, a store in its memory."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist

from ALPackage import RankError, StageError
from ALPackage.errors import LayerError, UnfitLayersError
from ALPackage.ranks import alarm
from ALPackage.ranks.alarm import Alarm
from ALPackage.ranks.link import PeerLost

#: Makes the alarm of a rank, and the queue of what it has heard.
Make = Callable[..., tuple[Alarm, "queue.Queue[Exception]"]]


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Note who would be killed; the ranks here are all this very process."""
    found: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda process, signum: found.append((process, signum)))
    monkeypatch.setattr(alarm, "BEAT", 0.02)
    monkeypatch.setattr(alarm, "CURIOSITY", 0.2)
    monkeypatch.setattr(alarm, "_runs", lambda process: False)
    return found


@pytest.fixture
def make(killed: list[tuple[int, int]]) -> Iterator[Make]:
    store, made = dist.HashStore(), []  # type: ignore[attr-defined]

    def one(rank: int, world: int = 2, *, lives: bool = True, patience: float = 5.0, store: Any = store) -> Any:
        heard: queue.Queue[Exception] = queue.Queue()
        new = Alarm(store, rank, world, f"conv_{rank}", heard.put, patience)
        made.append(new)
        if lives:
            new.thread.start()
        return new, heard

    yield one
    for each in made:
        each.leave()
    # None of them may outlive the patch of `os.kill`: it would kill this process.
    for thread in threading.enumerate():
        if thread.name.startswith("al-alarm"):
            thread.join(5.0)
            assert not thread.is_alive()


FAILED = "layer 'conv_1' failed"


@pytest.mark.parametrize(
    ("told", "kind", "words"),
    [
        (StageError("conv_1", 7, ValueError("bad")), StageError, f"{FAILED} on batch 7 in rank 1: ValueError: bad"),
        (StageError("conv_1", 7, LayerError("fix it")), StageError, f"{FAILED} on batch 7 in rank 1: .*fix it"),
        (StageError("conv_1", None, KeyError("x")), StageError, f"{FAILED} before its first batch in rank 1"),
        (UnfitLayersError("conv_1 draws"), UnfitLayersError, "conv_1 draws"),
        (RankError("rank 2 is gone"), RankError, "rank 2 is gone"),
    ],
)
def test_a_failure_is_heard_with_its_kind_and_words(make: Make, told: Exception, kind: type, words: str) -> None:
    _, heard = make(0)
    other, itself = make(1)
    other.tell(told)
    failure = heard.get(timeout=5.0)
    with pytest.raises(kind, match=words):
        raise failure
    time.sleep(0.1)
    assert itself.empty(), "it knows"


class SilentError(Exception):
    """An exception that cannot describe itself."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("cause", [UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), SilentError()])
def test_a_cause_of_any_kind_is_heard(cause: Exception, make: Make) -> None:
    _, heard = make(0)
    other, _ = make(1)
    other.tell(StageError("conv_1", 3, cause))
    failure = heard.get(timeout=5.0)
    assert isinstance(failure, StageError)
    assert type(failure.__cause__).__name__ == type(cause).__name__


def test_the_first_failure_is_the_one_that_all_hear(make: Make) -> None:
    _, heard = make(0, 3)
    one, _ = make(1, 3)
    other, _ = make(2, 3)
    one.tell(RankError("the first"))
    other.tell(RankError("the second"))
    assert str(heard.get(timeout=5.0)) == "the first"


def test_memory_that_is_missing_elsewhere_is_known_as_such(make: Make) -> None:
    _, heard = make(0)
    other, _ = make(1)
    other.tell(StageError("conv_1", 3, torch.cuda.OutOfMemoryError("too much")))
    cause = heard.get(timeout=5.0).__cause__
    assert isinstance(cause, torch.cuda.OutOfMemoryError)


def test_a_mistake_elsewhere_is_known_as_such(make: Make) -> None:
    _, heard = make(0)
    other, _ = make(1)
    other.tell(RankError("there is no such file", mistake=True))
    failure = heard.get(timeout=5.0)
    assert isinstance(failure, RankError)
    assert failure.mistake


def test_a_silent_rank_is_named_and_killed_and_one_that_has_left_is_not(make: Make, killed: list[Any]) -> None:
    _, heard = make(0, 3, patience=0.3)
    make(1, 3, lives=False)
    third, third_heard = make(2, 3, patience=0.3)
    failure = heard.get(timeout=5.0)
    assert isinstance(failure, RankError)
    assert str(failure).startswith("rank 1 (")
    assert "conv_1) has given no sign of life for 0 s" in str(failure)
    assert str(third_heard.get(timeout=5.0)) == str(failure), "all hear of it"
    assert set(killed) == {(os.getpid(), signal.SIGKILL)}
    third.leave()


def test_who_has_left_may_be_silent(make: Make) -> None:
    _, heard = make(0, patience=0.2)
    other, _ = make(1, lives=False)
    other.leave()
    time.sleep(0.6)
    assert heard.empty()


def test_a_lost_connection_is_explained_by_what_the_peer_said_or_by_its_end(make: Make) -> None:
    first, _ = make(0)
    other, _ = make(1)
    lost = PeerLost(1, RuntimeError("[/src/pair.cc:545] Connection reset by peer. This is typically caused by bugs."))
    assert str(first.cause_of(lost)).endswith("conv_1) is gone: Connection reset by peer")
    other.tell(StageError("conv_1", 2, ValueError("bad")))
    assert isinstance(first.cause_of(lost), StageError)


def test_a_store_that_is_gone_or_does_not_answer_is_a_failure(make: Make, killed: list[Any]) -> None:
    class Store:
        """A store that at some point raises, or blocks."""

        def __init__(self, ends: Callable[[], None]) -> None:
            self.inner, self.ends, self.over = dist.HashStore(), ends, False  # type: ignore[attr-defined]

        def __getattr__(self, name: str) -> Any:
            if self.over:
                self.ends()
            return getattr(self.inner, name)

    def refuse() -> None:
        raise RuntimeError("Broken pipe")

    release = threading.Event()
    for ends, words in (
        (refuse, "is gone, and with it the store"),
        (lambda: release.wait(10.0), "has not answered for"),
    ):
        store = Store(ends)
        _, heard = make(1, store=store, patience=0.3)
        make(0, store=store)
        time.sleep(0.1)
        store.over = True
        failure = heard.get(timeout=5.0)
        assert isinstance(failure, RankError)
        assert words in str(failure)
    release.set()


def test_a_rank_that_is_seen_to_run_may_be_silent_for_longer(
    make: Make, monkeypatch: pytest.MonkeyPatch, killed: list[Any]
) -> None:
    """Such as while it reads a large file: Python then lets none of its threads run."""
    monkeypatch.setattr(alarm, "_runs", lambda process: True)
    make(1, lives=False)
    _, heard = make(0, patience=0.2)
    time.sleep(0.6)
    assert heard.empty()
    monkeypatch.setattr(alarm, "BUSY", 0.1)
    assert "has given no sign of life" in str(heard.get(timeout=5.0))
    assert killed


def test_only_a_rank_that_is_stopped_is_ended_when_all_is_over(
    make: Make, monkeypatch: pytest.MonkeyPatch, killed: list[Any]
) -> None:
    """Guards a bug: one that was stopped after training stayed for good, and torchrun waited for it."""
    first, _ = make(0)
    make(1, lives=False)
    monkeypatch.setattr(alarm, "_runs", lambda process: True)
    first.end_if_stopped(1)
    assert killed == []
    monkeypatch.setattr(alarm, "_runs", lambda process: False)
    first.end_if_stopped(1)
    assert killed == [(os.getpid(), signal.SIGKILL)]


def test_what_a_rank_has_is_known_when_the_store_is_gone(make: Make) -> None:
    """Guards a bug: it was read once, before rank 0 had said it."""
    first, _ = make(0)
    second, _ = make(1)
    first.describe("conv_7")
    time.sleep(0.3)
    assert "conv_7) is gone, and with it the store" in str(second.store_lost(RuntimeError("Broken pipe")))


def test_a_process_runs_unless_it_is_stopped_or_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        try:
            assert alarm._runs(process.pid)
            process.send_signal(signal.SIGSTOP)
            deadline = time.monotonic() + 5.0
            while alarm._runs(process.pid) and time.monotonic() < deadline:
                time.sleep(0.01)
            assert not alarm._runs(process.pid)
        finally:
            process.kill()
    assert not alarm._runs(process.pid)


def test_a_rank_that_came_later_has_its_name_when_the_store_is_gone(make: Make) -> None:
    """Guards a bug: who rank 0 is was asked once, at the start, and a busy machine had not let it say so yet."""
    first, _ = make(1)
    time.sleep(0.1)
    make(0)
    time.sleep(0.3)
    first.store_lost(RuntimeError("Connection reset by peer"))
    assert "conv_0" in first.who(0)


@pytest.mark.parametrize("leaves", [False, True])
def test_a_rank_whose_process_has_ended_is_named_at_once_unless_it_has_left(
    make: Make, monkeypatch: pytest.MonkeyPatch, leaves: bool
) -> None:
    """Guards seconds: all waited until its silence was long enough, and torchrun's signal came before the reason."""
    _, heard = make(0, 3)
    third, third_heard = make(2, 3)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(os, "getpid", lambda: process.pid)
            second, _ = make(1, 3, lives=False)
        time.sleep(0.2)
        assert heard.empty(), "it lives"
        assert third.death_of(1) is None
        if leaves:
            second.leave()
    if leaves:
        time.sleep(0.2)
        assert (heard.empty(), third.death_of(1)) == (True, None)
        return
    words = str(heard.get(timeout=2.0))
    assert words.startswith("rank 1 (")
    assert words.endswith("conv_1) is gone: its process has ended")
    assert str(third_heard.get(timeout=2.0)) == str(third.death_of(1)) == words


def test_what_a_rank_has_said_before_its_end_is_why_it_is_gone(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = make(0, lives=False)
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(os, "getpid", lambda: process.pid)
            elsewhere.setattr(alarm, "_started", lambda process: "7")
            second, _ = make(1, lives=False)
    second.tell(StageError("conv_1", 2, ValueError("bad")))
    assert isinstance(first.death_of(1), StageError)
    assert isinstance(first.cause_of(PeerLost(1, RuntimeError("Broken pipe"))), StageError)


def test_a_rank_that_was_ended_for_its_silence_is_gone_for_that(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where another alarm of the rank that has ended it sees its end first: a schedule has one of its own."""
    _, heard = make(0, patience=0.2)
    watching, _ = make(0, lives=False, store=(other := dist.HashStore()))  # type: ignore[attr-defined]
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(os, "getpid", lambda: process.pid)
            for store in ({}, {"store": other}):
                make(1, lives=False, **store)
        words = str(heard.get(timeout=5.0))
    assert "has given no sign of life" in words
    assert str(watching.death_of(1)) == words
