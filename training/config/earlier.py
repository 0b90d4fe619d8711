"""What a saved configuration says in today's keys, where a key has changed its meaning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .objectives import OBJECTIVES, nested
from .schema import Task, schema


def is_earlier(config: Mapping[str, Any]) -> bool:
    """Tell whether this is a resolved configuration of a text model from before there was `al_layers`."""
    return {"n_layers", "x_hid"} <= config.keys() and "al_layers" not in config


def in_todays_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a saved configuration with the meaning that its keys have now.

    Before there was `al_layers`, `n_layers` was the number of AL layers, each with one LSTM or encoder layer. Before
    there was `wire`, nothing went between processes, and before there was `sync_batchnorm`, layers had no replicas.
    Before there was `objectives`, AL had its keys where it has them now; for those of a plug-in see `with_objectives`.
    Before there was `network_layers`, no network of the user's own could be named. Before there was `grow`, all layers
    trained from the first epoch on.
    """
    layers = {"al_layers": config["n_layers"], "n_layers": 1} if is_earlier(config) else {}
    own = {"network_layers": None, "network_bridge": "auto"}
    growth = {"grow": None, "grow_lr": 1.0}
    return {"wire": "fp32", "sync_batchnorm": False, **own, **growth, **config, **layers}


def with_objectives(config: Mapping[str, Any], task: Task, method: str) -> dict[str, Any]:
    """Return the configuration of a method's run with the settings of plug-ins' objectives where they are now.

    Before there was `objectives`, they stood among the other keys, in the configuration of every method.
    """
    known, kinds = schema(task).model_fields, {entry.name: entry.settings_of(task) for entry in nested()}
    gone = {key for kind in kinds.values() for key in kind.model_fields if key not in known}
    values = {key: value for key, value in config.items() if key not in gone}
    if method in kinds and OBJECTIVES not in config:
        values[OBJECTIVES] = {method: {key: config[key] for key in kinds[method].model_fields if key in config}}
    return values
