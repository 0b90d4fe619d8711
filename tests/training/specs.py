"""A `RunSpec` for tests that need no command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.config.schema import VisionConfig
from training.config.spec import RunSpec


def make_spec(out: Path = Path("nowhere"), **changes: Any) -> RunSpec:
    """Return the spec of AL with four layers on one thread; `changes` of its fields, or of `config` by its keys."""
    config = VisionConfig.model_validate(
        {key: value for key, value in changes.items() if key in VisionConfig.model_fields}
    )
    values: dict[str, Any] = {
        "task": "vision",
        "dataset": "digits",
        "model": "vgg",
        "method": "al",
        "methods": ("al",),
        "config": config,
        "resolved": config.model_dump(mode="json"),
        "layers": ("conv_1", "conv_2", "conv_3", "conv_4"),
        "devices": None,
        "world": 1,
        "ranks": None,
        "threads": 1,
        "seeds": (1, 2),
        "versions": {},
        "out": out,
        "trace": None,
    }
    return RunSpec(**(values | {key: value for key, value in changes.items() if key in values}))
