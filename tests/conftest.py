"""What holds for every test: one intra-op thread, a fixed seed, Ctrl-C, and no worker thread left behind."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.small_data import build


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root that holds every data set in its official layout, small."""
    return build(tmp_path_factory.mktemp("datasets"))


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the commands use one thread per operation: on a busy machine the threads of tiny work wait for each other."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the commands draw nothing: it takes most of the time of a small run, and has tests of its own."""
    monkeypatch.setattr("training.report.gallery.draw", lambda *_: [])


#: Seconds that a worker which was told to end may still need.
GRACE = 2.0


def _workers() -> set[threading.Thread]:
    """Return the threads that the schedules started and that still run."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("al-")}


@pytest.fixture(autouse=True)
def _ctrl_c() -> Iterator[None]:
    """Have SIGINT raise KeyboardInterrupt: a runner that was started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _isolated() -> Iterator[None]:
    """Give the test its own generator state and thread count, and fail it if it leaves a worker running."""
    threads, before = torch.get_num_threads(), _workers()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)
    deadline = time.monotonic() + GRACE
    while _workers() - before and time.monotonic() < deadline:
        time.sleep(0.01)
    left = sorted(thread.name for thread in _workers() - before)
    assert not left, f"the test left worker threads running: {', '.join(left)}; close the schedule"
