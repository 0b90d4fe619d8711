"""A command over two hosts, a rank on each: network namespaces of this machine with a cable between them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.distributed.cable import ADDRESSES, Cable

from .run import Run

__all__ = ["begin", "unplug_the_first"]

PORT = "29577"


def begin(cable: Cable, folder: Path, command: Sequence[str], *, apart: bool = False) -> list[Run]:
    """Start torchrun on both hosts, each with a folder for its results, host0 and host1. `apart`: as for a run."""
    nodes = ["--nnodes", "2", "--master-addr", ADDRESSES[0], "--master-port", PORT]
    return [
        Run(
            command,
            1,
            folder / f"host{number}",
            [*nodes, "--node-rank", str(number)],
            # Both namespaces have the host name of this machine, which leads nowhere in them.
            {"GLOO_SOCKET_IFNAME": host},
            ["ip", "netns", "exec", host],
            apart,
        )
        for number, host in enumerate(cable.hosts)
    ]


def unplug_the_first(cable: Cable, runs: Sequence[Run]) -> None:
    """Let no packet reach the first host, and end all that runs there at once: no word comes of its end."""
    cable.cut()
    runs[0].kill()
