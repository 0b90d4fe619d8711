"""Signals end a run: at once, or after the step at hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from training.runs import shutdown as stopping
from training.runs.shutdown import GracefulShutdown, Interrupted, loading

pytestmark = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals as POSIX has them")
ROOT = Path(__file__).resolve().parents[3]
CODES = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGXCPU, 128 + signal.SIGXCPU)]


@pytest.mark.parametrize(("signum", "code"), CODES)
def test_outside_of_training_it_ends_at_once(signum: signal.Signals, code: int) -> None:
    def work() -> None:
        os.kill(os.getpid(), signum)
        time.sleep(5)

    with GracefulShutdown() as stop, pytest.raises(Interrupted) as caught:
        work()
    assert caught.value.exit_code == code
    assert not stop.requested


@pytest.mark.parametrize(("signum", "code"), CODES)
def test_while_training_the_block_comes_to_its_end(signum: signal.Signals, code: int) -> None:
    steps = []

    def train(stop: GracefulShutdown) -> None:
        with stop.deferred():
            assert not stop.requested
            os.kill(os.getpid(), signum)
            while not stop.requested:
                time.sleep(0.001)
            steps.append("the rest of the step")
        steps.append("the next epoch")

    with GracefulShutdown() as stop, pytest.raises(Interrupted) as caught:
        train(stop)
    assert caught.value.exit_code == code
    assert steps == ["the rest of the step"]


def test_a_second_signal_does_not_wait() -> None:
    def train(stop: GracefulShutdown) -> None:
        with stop.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)

    begun = time.monotonic()
    with GracefulShutdown() as stop, pytest.raises(Interrupted) as caught:
        train(stop)
    assert time.monotonic() - begun < 2
    assert caught.value.exit_code == 143, "the first one says what is wanted"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2])
def test_a_signal_that_is_sent_twice_at_once_is_one(signum: signal.Signals) -> None:
    """Guards a bug: `timeout` sends SIGTERM to the process and to its group, and the step at hand was cut short."""

    def train(stop: GracefulShutdown) -> None:
        with stop.deferred():
            for _ in range(2):
                os.kill(os.getpid(), signum)
                time.sleep(0.001)  # the handler runs
            steps.append("the rest of the step")

    steps: list[str] = []
    with GracefulShutdown() as stop, pytest.raises(Interrupted) as caught:
        train(stop)
    assert steps == ["the rest of the step"]
    assert caught.value.exit_code == 128 + signum


def test_ctrl_c_again_after_a_while_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "SAME", 0.0)

    def train(stop: GracefulShutdown) -> None:
        with stop.deferred():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)

    begun = time.monotonic()
    with GracefulShutdown() as stop, pytest.raises(Interrupted):
        train(stop)
    assert time.monotonic() - begun < 2


def test_a_terminal_that_closes_never_cuts_a_step_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell and the system each send SIGHUP, at any distance."""
    monkeypatch.setattr(stopping, "SAME", 0.0)

    def train(stop: GracefulShutdown) -> None:
        with stop.deferred():
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGHUP)
                time.sleep(0.001)
            steps.append("the rest of the step")

    steps: list[str] = []
    with GracefulShutdown() as stop, pytest.raises(Interrupted) as caught:
        train(stop)
    assert steps == ["the rest of the step"]
    assert caught.value.exit_code == 129


def test_under_nohup_a_closed_terminal_ends_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with GracefulShutdown() as stop, stop.deferred():
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_that_somebody_has_a_use_for_stays_theirs() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda signum, _: seen.append(signum))
    try:
        with GracefulShutdown() as stop, stop.deferred():
            os.kill(os.getpid(), signal.SIGUSR1)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [signal.SIGUSR1]


def test_a_step_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "GRACE", 0.2)

    def train(stop: GracefulShutdown) -> None:
        with stop.deferred():
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(10)

    begun = time.monotonic()
    with GracefulShutdown() as stop, pytest.raises(Interrupted) as caught:
        train(stop)
    assert 0.2 <= time.monotonic() - begun < 3
    assert caught.value.exit_code == 130


def test_an_operation_that_python_cannot_interrupt_ends_with_the_process() -> None:
    """Guards a bug: a signal is heard of after the operation, and BP's are on the main thread."""
    script = """if True:
        import hashlib
        from training.runs import shutdown as stopping
        stopping.GRACE, stopping.LIMIT = 0.2, 0.5
        with stopping.GracefulShutdown() as stop, stop.deferred():
            print("begun", flush=True)
            hashlib.pbkdf2_hmac("sha256", b"a", b"b", 2_000_000_000)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=10)
    finally:
        process.kill()
    assert process.returncode == 143
    assert error == "interrupted: it took too long to end; --resume continues from the last checkpoint\n"


def test_an_alarm_that_is_not_needed_any_more_strikes_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "GRACE", 0.1)

    def train(stop: GracefulShutdown) -> None:
        with stop.deferred():
            os.kill(os.getpid(), signal.SIGINT)

    with GracefulShutdown() as stop:
        with pytest.raises(Interrupted):
            train(stop)
        time.sleep(0.3)


def test_the_handlers_of_before_come_back() -> None:
    before = [signal.getsignal(signum) for signum, _ in CODES]
    with GracefulShutdown():
        assert [signal.getsignal(signum) for signum, _ in CODES] != before
    assert [signal.getsignal(signum) for signum, _ in CODES] == before


def test_a_signal_that_the_process_was_begun_to_ignore_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with GracefulShutdown() as stop, stop.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            assert not stop.requested
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_ctrl_c_while_the_libraries_load_ends_without_a_word() -> None:
    with loading():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with loading():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN, "as the shell of a background job wants it"
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_on_another_thread_signals_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work() -> None:
        with GracefulShutdown() as stop, stop.deferred():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


STUCK = """
import time, torch
from ALPackage.stage.threads import WorkerThread
from training.runs.shutdown import end_process

def work():
    weight = torch.randn(700, 700, requires_grad=True)
    while True:
        (weight @ weight).sum().backward()

WorkerThread(work, "al-test").start()
time.sleep(0.3)
print("all that was printed is there")
end_process(143)
"""


def test_a_step_that_nobody_waits_for_does_not_change_the_exit_code() -> None:
    """Guards a bug: SIGTERM in a long step sometimes ended in an abort, with exit code 134."""
    ended = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (143, "all that was printed is there\n", "")


def test_after_the_last_block_signals_change_nothing() -> None:
    """Guards a bug: torchrun's signal ended rank 0 with -15 while it told the others how the run ends."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        with GracefulShutdown(last=True):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        for signum in stopping.SIGNALS:
            signal.signal(signum, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, before)


FAILING = """
import atexit, time
from training.runs.shutdown import end_process

atexit.register(time.sleep, 30)
print("all that was printed is there")
end_process(2)
"""


def test_a_rank_that_fails_ends_at_once() -> None:
    """What an interpreter gives back at its end takes seconds where ranks share the cores."""
    environment = {**os.environ, "RANK": "1", "WORLD_SIZE": "2"}
    words = [sys.executable, "-c", FAILING]
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=25, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "all that was printed is there\n", "")
