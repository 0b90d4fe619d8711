"""A command over two hosts: two network namespaces of this machine with a cable between them. Linux, as root."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from benchmarks.distributed.cable import Cable, NoCableError
from benchmarks.faults import hosts
from benchmarks.faults.run import Run

from ..launched import SMALL, epochs_in
from ..test_experiment import rows
from .test_ranks import LIMIT, alone

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def cable() -> Iterator[Cable]:
    try:
        with Cable() as made:
            yield made
    except NoCableError as error:
        pytest.skip(f"network namespaces are not permitted here: {error}")


#: Starts a command on both hosts; what still runs at the end of the test is ended.
Begin = Callable[[str], list[Run]]


@pytest.fixture
def begin(cable: Cable, tmp_path: Path) -> Iterator[Begin]:
    begun: list[Run] = []

    def begin(text: str) -> list[Run]:
        runs = hosts.begin(cable, tmp_path, ["cvmain.py", *text.split()])
        begun.extend(runs)
        return runs

    yield begin
    for run in begun:
        run.kill()


def said(runs: Sequence[Run]) -> str:
    return "".join(run.log.read_text() for run in runs)


def wait_for_epochs(runs: Sequence[Run], count: int) -> None:
    deadline = time.monotonic() + 90
    while epochs_in(runs[0].out) < count:
        assert time.monotonic() < deadline, said(runs)
        assert [run.process.poll() for run in runs] == [None, None], said(runs)
        time.sleep(0.05)


def test_two_hosts_leave_what_one_process_does_on_the_first(begin: Begin, tmp_path: Path) -> None:
    command = f"{SMALL} --set epochs=2"
    alone(f"{command} --out {tmp_path / 'one'}")
    runs = begin(command)
    assert [run.process.wait(120) for run in runs] == [0, 0], said(runs)
    assert rows(tmp_path / "host0" / "digits_vgg_al.csv") == rows(tmp_path / "one" / "digits_vgg_al.csv")
    assert not (tmp_path / "host1").exists()


@pytest.mark.parametrize("seconds", [5.0, None])
def test_a_cable_that_is_cut_ends_both_and_the_command_goes_on_later(
    cable: Cable, begin: Begin, tmp_path: Path, seconds: float | None
) -> None:
    """5 s without a sign of life are too many: from the other end they look like a host that is gone."""
    command = f"{SMALL} --set epochs=12 --set checkpoint_every=3"
    alone(f"{command} --out {tmp_path / 'one'}")
    runs = begin(command)
    wait_for_epochs(runs, 2)
    cable.cut()
    cut = time.monotonic()
    if seconds is not None:
        time.sleep(seconds)
        cable.connect()
    assert [_gone(run, cut + LIMIT) for run in runs] == [True, True], said(runs)
    for run in runs:  # torchrun itself looks for the other host a while longer
        os.killpg(run.process.pid, signal.SIGTERM)
    assert all(run.process.wait(60) != 0 for run in runs)
    assert "rank 1 (" in said(runs)
    if seconds is None:
        cable.connect()
    runs = begin(f"{command} --resume")
    assert [run.process.wait(120) for run in runs] == [0, 0], said(runs)
    assert rows(tmp_path / "host0" / "digits_vgg_al.csv") == rows(tmp_path / "one" / "digits_vgg_al.csv")


def test_a_first_host_that_is_gone_ends_the_second_in_time(cable: Cable, begin: Begin) -> None:
    """And with it rank 0, the store and the first torchrun: no word comes from there any more, not even of an end."""
    runs = begin(f"{SMALL} --set epochs=500")
    wait_for_epochs(runs, 1)
    unplugged = time.monotonic()
    hosts.unplug_the_first(cable, runs)
    assert _gone(runs[1], unplugged + LIMIT), said(runs)
    os.killpg(runs[1].process.pid, signal.SIGTERM)
    assert runs[1].process.wait(60) != 0
    lines = [line for line in runs[1].log.read_text().splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, said(runs)
    assert re.match(r"error: torchrun on the host of rank 0 \(.+, conv_1.*\)", lines[0])
    assert "has not answered for 4 s" in lines[0]


def _gone(run: Run, deadline: float) -> bool:
    """Wait until torchrun has no process any more that trains."""
    while time.monotonic() < deadline:
        if not run.processes():
            return True
        time.sleep(0.1)
    return False
