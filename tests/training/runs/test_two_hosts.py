"""A command over two hosts: two network namespaces of this machine with a cable between them. Linux, as root."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..launched import ROOT, SMALL, epochs_in
from ..test_experiment import rows
from .test_ranks import LIMIT, alone

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: By host: its address.
HOSTS = ("10.199.77.1", "10.199.77.2")


class Cable:
    """Two hosts, and the cable between them."""

    def __init__(self, name: str) -> None:
        self.names = [f"{name}{host}" for host in (0, 1)]
        self.running: list[subprocess.Popen[str]] = []

    def lay(self) -> None:
        """Make the hosts and connect them."""
        for name in self.names:
            ip("netns", "add", name)
        ip("link", "add", self.names[0], "type", "veth", "peer", "name", self.names[1])
        for name, address in zip(self.names, HOSTS, strict=True):
            ip("link", "set", name, "netns", name)
            ip("-n", name, "addr", "add", f"{address}/24", "dev", name)
            ip("-n", name, "link", "set", "lo", "up")
        self.connect()

    def connect(self) -> None:
        """Let packets pass."""
        for name in self.names:
            ip("-n", name, "link", "set", name, "up")

    def cut(self) -> None:
        """Let no packet pass."""
        for name in self.names:
            ip("-n", name, "link", "set", name, "down")

    def unplug_the_first(self) -> None:
        """Let no packet reach the first host, and end all that runs there at once."""
        ip("-n", self.names[0], "link", "set", self.names[0], "down")
        for process in [*_children(self.running[0]), self.running[0].pid]:
            os.kill(process, signal.SIGKILL)

    def start(self, folder: Path, text: str) -> list[subprocess.Popen[str]]:
        """Start torchrun on both hosts, each with its own folder for results."""
        self.running = []
        for host, name in enumerate(self.names):
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
            torchrun += ["--node-rank", str(host), "--master-addr", HOSTS[0], "--master-port", "29577"]
            out = folder / f"host{host}"
            with open(folder / f"host{host}.txt", "w") as output:
                self.running.append(
                    subprocess.Popen(
                        ["ip", "netns", "exec", name, *torchrun, "cvmain.py", *text.split(), "--out", str(out)],
                        cwd=ROOT,
                        # Both namespaces have the host name of this machine, which leads nowhere in them.
                        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": name},
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        text=True,
                        start_new_session=True,
                    )
                )
        return self.running

    def remove(self) -> None:
        """End what runs, and remove the hosts."""
        for process in self.running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def cable() -> Iterator[Cable]:
    if shutil.which("ip") is None:
        pytest.skip("iproute2 makes the network namespaces, and there is no `ip`")
    made = Cable(f"al{os.getpid() % 10**6}x")
    try:
        made.lay()
    except subprocess.CalledProcessError as error:
        made.remove()
        pytest.skip(f"network namespaces are not permitted here: {error.stderr.strip()}")
    yield made
    made.remove()


def said(folder: Path) -> str:
    return "".join((folder / f"host{host}.txt").read_text() for host in (0, 1))


def wait_for_epochs(running: list[subprocess.Popen[str]], folder: Path, count: int) -> None:
    deadline = time.monotonic() + 90
    while epochs_in(folder / "host0") < count:
        assert time.monotonic() < deadline, said(folder)
        assert [process.poll() for process in running] == [None, None], said(folder)
        time.sleep(0.05)


def test_two_hosts_leave_what_one_process_does_on_the_first(cable: Cable, tmp_path: Path) -> None:
    command = f"{SMALL} --set epochs=2"
    alone(f"{command} --out {tmp_path / 'one'}")
    running = cable.start(tmp_path, command)
    assert [process.wait(120) for process in running] == [0, 0], said(tmp_path)
    assert rows(tmp_path / "host0" / "digits_vgg_al.csv") == rows(tmp_path / "one" / "digits_vgg_al.csv")
    assert not (tmp_path / "host1").exists()


@pytest.mark.parametrize("seconds", [5.0, None])
def test_a_cable_that_is_cut_ends_both_and_the_command_goes_on_later(
    cable: Cable, tmp_path: Path, seconds: float | None
) -> None:
    """5 s without a sign of life are too many: from the other end they look like a host that is gone."""
    command = f"{SMALL} --set epochs=12 --set checkpoint_every=3"
    alone(f"{command} --out {tmp_path / 'one'}")
    running = cable.start(tmp_path, command)
    wait_for_epochs(running, tmp_path, 2)
    cable.cut()
    cut = time.monotonic()
    if seconds is not None:
        time.sleep(seconds)
        cable.connect()
    # Alone on two cores it takes 7 to 9 s; other tests may run beside this one.
    ranks_gone = [_gone(process, cut + 2.5 * LIMIT) for process in running]
    assert ranks_gone == [True, True], said(tmp_path)
    for process in running:  # torchrun itself looks for the other host a while longer
        os.killpg(process.pid, signal.SIGTERM)
    assert all(process.wait(60) != 0 for process in running)
    assert "rank 1 (" in said(tmp_path)
    if seconds is None:
        cable.connect()
    running = cable.start(tmp_path, f"{command} --resume")
    assert [process.wait(120) for process in running] == [0, 0], said(tmp_path)
    assert rows(tmp_path / "host0" / "digits_vgg_al.csv") == rows(tmp_path / "one" / "digits_vgg_al.csv")


def test_a_first_host_that_is_gone_ends_the_second_in_time(cable: Cable, tmp_path: Path) -> None:
    """And with it rank 0, the store and the first torchrun: no word comes from there any more, not even of an end."""
    running = cable.start(tmp_path, f"{SMALL} --set epochs=500")
    wait_for_epochs(running, tmp_path, 1)
    cable.unplug_the_first()
    assert _gone(running[1], time.monotonic() + 2.5 * LIMIT), said(tmp_path)
    os.killpg(running[1].pid, signal.SIGTERM)
    assert running[1].wait(60) != 0
    lines = [line for line in (tmp_path / "host1.txt").read_text().splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, said(tmp_path)
    assert re.match(r"error: torchrun on the host of rank 0 \(.+, conv_1.*\)", lines[0])
    assert "has not answered for 4 s" in lines[0]


def _children(torchrun: subprocess.Popen[str]) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(torchrun.pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]


def _gone(torchrun: subprocess.Popen[str], deadline: float) -> bool:
    """Wait until torchrun has no process any more that trains."""
    while time.monotonic() < deadline:
        if not _children(torchrun):
            return True
        time.sleep(0.1)
    return False
