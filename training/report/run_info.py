"""What is known about a method's run before it starts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """What stands in the JSON of a run, and beside its checkpoints, from which a finished run is recorded again."""

    config: dict[str, Any]
    """The resolved configuration."""
    seeds: list[int]
    """The seed of each turn."""
    train_samples: int
    """Samples that one epoch trains on."""
    parameters_training: int
    """Weights that are trained."""
    parameters_inference: int
    """Weights that inference with all layers uses."""
    threads: int
    """Intra-op threads of a worker."""
    schedule: str | None
    """None for BP, which has no choice."""
    devices: list[str]
    """The device of each layer."""
    losses: dict[str, list[str]]
    """The names of the losses by layer; a network with one loss is the layer ""."""
    run: str | None = None
    """When the run began: the name of the folders of its checkpoints and weights; None before that was recorded."""
    processes: int = 1
    """How many processes trained together."""
    bp_parallel: str | None = None
    """How BP used several processes: `ddp`, the name of a pipeline, or `none`; None where there was one."""
    loss_titles: dict[str, str] = field(default_factory=dict)
    """How pictures call a loss, where that is not its name."""
    plan: dict[str, Any] | None = None
    """The measured cost of each layer and what follows from it, from `ALPackage.placement.Plan.to_json`."""
    network: dict[str, Any] | None = None
    """Of a network of the user's: its function and file, the blocks of each layer, and their share of the work."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Versions, platform and commit, from `training.runs.provenance.collect`."""
    notes: list[str] = field(default_factory=list)
    """What the reader of the figures should know, one line each."""

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values, from which `RunInfo(**values)` makes the same again."""
        return asdict(self)
