"""What a saved configuration says in today's keys, where a key has changed its meaning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def is_earlier(config: Mapping[str, Any]) -> bool:
    """Tell whether this is a resolved configuration of a text model from before there was `al_layers`."""
    return {"n_layers", "x_hid"} <= config.keys() and "al_layers" not in config


def in_todays_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a saved configuration with the meaning that its keys have now.

    Before there was `al_layers`, `n_layers` was the number of AL layers, each with one LSTM or encoder layer. Before
    there was `wire`, nothing went between processes; before there was `sync_batchnorm`, layers had no replicas; before
    there was `grow`, all layers trained from the first epoch on.
    """
    layers = {"al_layers": config["n_layers"], "n_layers": 1} if is_earlier(config) else {}
    added = {"wire": "fp32", "sync_batchnorm": False, "grow": None, "grow_lr": 1.0}
    return {**added, **config, **layers}
