"""A worker's thread tells for certain whether its work is over, whatever Ctrl-C strikes."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from ALPackage.stage.threads import WorkerThread, worker_settings


def test_ctrl_c_while_it_is_waited_for_does_not_make_it_finished() -> None:
    """Guards a bug: Thread.join then took it for ended, and a layer was used by two threads at once."""
    release, main = threading.Event(), threading.main_thread().ident
    assert main is not None
    one = WorkerThread(lambda: release.wait(10.0) and None, "al-test")
    one.start()
    threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        one.finished(5.0)
    assert not one.finished(0.0)
    release.set()
    assert one.finished(5.0)
    assert one.finished(0.0), "it can be asked again"
    assert not one.is_alive()


def test_a_thread_that_never_started_is_finished() -> None:
    assert WorkerThread(lambda: None, "al-test").finished(5.0)


def test_the_wait_is_bounded() -> None:
    release = threading.Event()
    one = WorkerThread(lambda: release.wait(10.0) and None, "al-test")
    one.start()
    start = time.monotonic()
    assert not one.finished(0.02)
    assert time.monotonic() - start < 5.0
    release.set()
    assert one.finished()


def test_several_threads_may_wait_for_it() -> None:
    """Guards a bug: a run and a `close` on another thread both waited, and one of them until its deadline."""
    release, seen = threading.Event(), []
    one = WorkerThread(lambda: release.wait(10.0) and None, "al-test")
    one.start()
    waiting = [threading.Thread(target=lambda: seen.append(one.finished(30.0)), daemon=True) for _ in range(3)]
    for thread in waiting:
        thread.start()
    time.sleep(0.05)
    release.set()
    for thread in waiting:
        thread.join(1.5)
    assert seen == [True] * 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_fails_is_finished() -> None:
    def fail() -> None:
        raise OSError

    one = WorkerThread(fail, "al-test")
    one.start()
    assert one.finished(5.0)


LEAVING = """
import time, torch
from ALPackage.stage.threads import WorkerThread

stopped = []

def work():
    weight = torch.randn(700, 700, requires_grad=True)
    while not stopped:
        (weight @ weight).sum().backward()

worker = WorkerThread(work, "al-test")
worker.stop = lambda: stopped.append(True)
worker.start()
time.sleep(0.3)
raise SystemExit(143)
"""


def test_the_interpreter_does_not_end_while_a_worker_is_inside_of_torch() -> None:
    """Guards a bug: a script that ended with an exception in its loop was aborted, with exit code 134."""
    ended = subprocess.run([sys.executable, "-c", LEAVING], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (143, "")


def test_a_worker_keeps_its_number_of_threads_whatever_the_caller_sets_before_its_first_operation() -> None:
    """Guards a bug: torch counted a worker's threads anew at its first operation, from what any thread set last."""
    before, set_up, go_on, seen = torch.get_num_threads(), threading.Event(), threading.Event(), []

    def work() -> None:
        with worker_settings(torch.device("cpu"), 1):
            set_up.set()
            go_on.wait(10.0)
            seen.append(torch.get_num_threads())

    worker = threading.Thread(target=work)
    worker.start()
    assert set_up.wait(10.0)
    try:
        torch.set_num_threads(2)
        go_on.set()
        worker.join(10.0)
    finally:
        torch.set_num_threads(before)
    assert seen == [1]
