"""Two hosts on this machine: network namespaces that are joined by a pair of interfaces, as fast as one wishes."""

from __future__ import annotations

import os
import shutil
import subprocess
from types import TracebackType

ADDRESSES = ("10.199.78.1", "10.199.78.2")
#: What may pass at once, and how long a packet may wait, in a slowed cable.
BURST, LATENCY = "64kb", "400ms"


class NoCableError(RuntimeError):
    """Network namespaces cannot be made here; in one line, why."""


class Cable:
    """Two hosts for the time of a `with`. Linux, as root, with iproute2.

    Attributes:
        hosts: The names of both, which are also those of their interfaces.

    Raises:
        NoCableError: On entry, where the system does not permit it.
    """

    def __init__(self) -> None:
        self.hosts = [f"albench{os.getpid() % 10**6}{end}" for end in "ab"]

    def __enter__(self) -> Cable:
        """Make the hosts and connect them."""
        if shutil.which("ip") is None or shutil.which("tc") is None:
            raise NoCableError("`ip` and `tc` are needed, which are in the package iproute2")
        try:
            for host in self.hosts:
                _call("ip", "netns", "add", host)
            _call("ip", "link", "add", self.hosts[0], "type", "veth", "peer", "name", self.hosts[1])
            for host, address in zip(self.hosts, ADDRESSES, strict=True):
                _call("ip", "link", "set", host, "netns", host)
                _call("ip", "-n", host, "addr", "add", f"{address}/24", "dev", host)
                _call("ip", "-n", host, "link", "set", "lo", "up")
            self.connect()
        except NoCableError:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the hosts, and with them the cable."""
        for host in self.hosts:
            subprocess.run(["ip", "netns", "del", host], check=False, capture_output=True)

    def connect(self) -> None:
        """Let packets pass."""
        for host in self.hosts:
            _call("ip", "-n", host, "link", "set", host, "up")

    def cut(self) -> None:
        """Let no packet pass."""
        for host in self.hosts:
            _call("ip", "-n", host, "link", "set", host, "down")

    def limit(self, rate: str | None) -> None:
        """Let no more than `rate`, such as "100mbit", pass in either direction; None: as fast as it is."""
        for host in self.hosts:
            subprocess.run(["tc", "-n", host, "qdisc", "del", "dev", host, "root"], check=False, capture_output=True)
            if rate is not None:
                limit = ["root", "tbf", "rate", rate, "burst", BURST, "latency", LATENCY]
                _call("tc", "-n", host, "qdisc", "add", "dev", host, *limit)


def _call(*words: str) -> None:
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        raise NoCableError(f"`{' '.join(words[:4])} ..`: {(done.stderr.strip() or 'failed').splitlines()[0]}")
