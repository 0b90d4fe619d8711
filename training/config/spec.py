"""Everything that is known of a method's run before it starts: resolved once, and asked by everybody."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .bp_parallel import BPParallel
from .schema import Config, Task


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One method of a command.

    It needs neither torch nor data to be read: whoever makes it has looked at the machine and at the data.
    """

    task: Task
    dataset: str
    """The data set's name as it is displayed and used in file names."""
    model: str
    method: str
    """"al", "bp", or the name of another objective."""
    methods: tuple[str, ...]
    """All methods of the command, in the order in which they run."""
    config: Config
    resolved: dict[str, Any]
    """The config as it is used, with what was derived from the data and the machine, ready for JSON."""
    layers: tuple[str, ...]
    """The names of the layers, first to last."""
    devices: tuple[str, ...] | None
    """A device per layer that this machine has, or None for "auto"."""
    world: int = 1
    """How many processes the command has."""
    bp_parallel: BPParallel = "none"
    """How BP uses them."""
    ranks: tuple[int, ...] | None = None
    """The process of every layer, where the config says so."""
    threads: int
    """Intra-op threads of a worker, or of BP."""
    seeds: tuple[int, ...]
    """The seed of each turn."""
    versions: dict[str, str | None]
    """The versions that figures depend on."""
    out: Path
    """The folder of the results."""
    trace: Path | None
    """Where the timeline of the first turn goes."""
    network: dict[str, Any] | None = None
    """Of a network of the user's: its function and how it is cut, ready for JSON."""

    @property
    def schedule(self) -> str:
        """The schedule of a local method: over several processes there is one of its own."""
        return "distributed" if self.world > 1 else self.config.schedule

    @property
    def over_ranks(self) -> bool:
        """Whether the method trains in several processes."""
        return self.world > 1 and (self.method != "bp" or self.bp_parallel != "none")

    @property
    def replicated(self) -> bool:
        """Whether several processes divide the rows of a batch among themselves."""
        return self.method != "bp" and self.over_ranks and max(self.config.stage_replicas or [1]) > 1

    @property
    def turns(self) -> int:
        """How many turns there are."""
        return len(self.seeds)
