"""Read the configuration from a file and the command line, and derive what follows from it.

A mistake becomes a `ConfigError` of one line; see `mistakes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from data.registry import entry
from models import registry
from models.settings import ModelSettings

from ..errors import ConfigError
from .growth import check_growth
from .json_file import read_object
from .launch import Launch, ranks_of, split_rank
from .mistakes import Origin, explain
from .objectives import FLAT, OBJECTIVES
from .overrides import read_override
from .recipes import apply_recipe
from .schema import CommonConfig, Config, DeviceLists, Method, Task, TextConfig, schema


def layer_names(
    model: str, method: Method, config: CommonConfig, built: Sequence[str] | None = None
) -> list[str] | None:
    """Return the names of the layers that `model` has with this config; BP's head is a layer.

    `built`: the names in a network of the user's, which it has once it has been built; before that there are None.
    """
    layers = registry.model(model).layers
    names = built if layers is None else layers(model_settings(config, model))
    if names is None:
        return None
    return [*names, "head"] if method == "bp" else list(names)


def layer_count(model: str, method: Method, config: CommonConfig, built: Sequence[str] | None = None) -> int | None:
    """Return how many layers, and so devices, `model` has with this config; `built` and None: as for `layer_names`."""
    names = layer_names(model, method, config, built)
    return None if names is None else len(names)


def method_title(method: Method) -> str:
    """Return how tables and messages call a method; its name where it comes from a plug-in that is not loaded."""
    titles = {entry.name: entry.title for entry in registry.objectives()}
    return "BP" if method == "bp" else titles.get(method, method)


def method_order(method: Method) -> tuple[int, str]:
    """Return a key that sorts methods: AL, BP, the others as they were registered, then those that are not loaded."""
    known = registry.method_names()
    return known.index(method) if method in known else len(known), method


def model_settings(config: CommonConfig, model: str) -> BaseModel:
    """Return the model's settings as the config has them."""
    return _part(config, registry.model(model).settings)


def objective_settings(config: CommonConfig, method: Method) -> BaseModel:
    """Return the settings of the objective `method` as the config has them."""
    if method == FLAT:
        return _part(config, registry.objective(method).settings_of(config.task))
    settings: BaseModel = getattr(getattr(config, OBJECTIVES), method)
    return settings


def _part(config: CommonConfig, kind: type[BaseModel]) -> BaseModel:
    # The keys that were given: what was not has the same default here, and the settings can tell the two apart.
    return kind.model_validate(
        {key: getattr(config, key) for key in kind.model_fields if key in config.model_fields_set}
    )


def resolve_model(config: CommonConfig, model: str) -> tuple[dict[str, Any], list[str]]:
    """Return what "auto" comes to among the model's settings, by key, and notes for the user.

    Raises `ConfigError` for values that do not go together.
    """
    settings = model_settings(config, model)
    if not isinstance(settings, ModelSettings):
        return {}, []
    values = dict(config)
    try:
        return settings.resolve(values), settings.notes(values)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def device_list(
    config: CommonConfig, model: str, method: Method, built: Sequence[str] | None = None
) -> Literal["auto"] | list[str]:
    """Return the devices that the config names for `model`, one per layer, or "auto".

    `built`: as for `layer_names`. Raises `ConfigError` for a list of another length than the model is known to have.
    Whether the devices exist is checked where they are used.
    """
    key = "bp_gpu_list" if method == "bp" else "al_gpu_list"
    lists: DeviceLists = getattr(config, key)
    if isinstance(lists, dict):
        known = registry.model(model)
        name = known.title if known.layers is None else model  # a network of the user's goes by what was typed
        lists, key = lists.get(name, "auto"), f"{key}.{name}"
    layers = layer_count(model, method, config, built)
    if lists != "auto" and layers is not None and len(lists) != layers:
        entries = "1 entry" if len(lists) == 1 else f"{len(lists)} entries"
        title, many = _with(model, method), "s" * (layers > 1)
        raise ConfigError(f'{key} has {entries}, {title} has {layers} layer{many}; give {layers}, or "auto"')
    return lists


def _with(model: str, method: Method) -> str:
    return f"{registry.model(model).title or model} with {method_title(method)}"


def check_layers_of_growth(
    config: CommonConfig, model: str, methods: Sequence[Method], built: Sequence[str] | None = None
) -> None:
    """Raise `ConfigError` where the stack of a local method cannot grow as the config says, or none would grow.

    `built`: as for `layer_names`.
    """
    if config.grow is not None and list(methods) == ["bp"]:
        raise ConfigError(
            "grow: BP trains all layers from the first epoch on; add a local method, or leave grow at null"
        )
    for method in methods:
        if method != "bp":
            check_growth(config, layer_count(model, method, config, built), _with(model, method))


def check_ranks(config: CommonConfig, model: str, method: Method, launch: Launch) -> tuple[int, ...] | None:
    """Return the process of every layer that the config names, None for "auto" or for a command of one process.

    Raises `ConfigError` where the config does not go with how the command was launched.
    """
    devices = device_list(config, model, method)
    ranks = None if devices == "auto" else ranks_of("al_gpu_list", devices, launch)
    if launch.world > 1 and config.schedule != "continuous":
        raise ConfigError(
            f"schedule: got {config.schedule}; over several processes layers are trained by the continuous schedule "
            "alone: leave it out, or start one process"
        )
    if launch.world > 1 and getattr(config, "compile", False):
        raise ConfigError("compile: not over several processes; leave compile at false, or start one process")
    if config.cuda_graph == "on" and max(config.stage_replicas or [1]) > 1:
        raise ConfigError(
            'cuda_graph: got "on" with stage_replicas; what replicas average goes through the host, which no CUDA '
            'graph can capture: leave it at "auto"'
        )
    return ranks


def check_workers(config: CommonConfig, model: str, method: Method = "al") -> None:
    """Raise `ConfigError` where a number of CPU workers does not go with the devices of a local method's layers."""
    devices = device_list(config, model, method)
    if config.workers is None or devices == "auto":
        return
    devices = [split_rank(name)[1] or "cpu" for name in devices]
    on_cpu = [name for name in devices if name.startswith("cpu")]
    if not on_cpu:
        raise ConfigError(
            'workers: al_gpu_list has no layer on the CPU; leave workers out, or set al_gpu_list to "auto"'
        )
    tied = list(dict.fromkeys(name for name in on_cpu if name.startswith("cpu:")))
    if len(tied) > config.workers:
        raise ConfigError(
            f"workers: got {config.workers}, but al_gpu_list ties layers to {len(tied)} of them ({', '.join(tied)}): "
            f'give at least {len(tied)}, or "cpu" for a layer that any worker may run'
        )


def length_limit(config: TextConfig, dataset: str) -> int:
    """Return how many tokens of a document of `dataset` are read."""
    limit = config.max_len if config.max_len != "auto" else entry(dataset, "text").max_len
    if config.min_len > limit:
        raise ConfigError(f"min_len: got {config.min_len}; expected at most max_len, which is {limit} for {dataset}")
    return limit


def load_config(task: Task, path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read the JSON file at `path`, lay its recipe and then the `key=value` overrides over it, and check the whole.

    Raises `ConfigError`.
    """
    values, whole = read_object(path), schema(task)
    origin = Origin()
    for key in values:
        origin.note((key,), str(path))
    set_now = set()
    for override in (read_override(text, whole) for text in overrides):
        values = override.laid_over(values)
        origin.note(override.path, f"--set {override.text}")
        set_now.add(override.key)
    with_recipe = apply_recipe(values, task, set_now)
    for key, value in with_recipe.items():
        if key not in values or values[key] != value:
            origin.note((key,), f'recipe "{values["recipe"]}"')
    values = with_recipe
    layers = whole.model_fields.get("al_layers")
    given = "al_layers" in set_now or (layers and values.get("al_layers", layers.default) != layers.default)
    if "n_layers" in set_now and not given:
        # The shipped file holds every key: beside an `n_layers` that is typed now, the default there does not show that
        # the user knows of `al_layers`, and the model's note is due.
        values.pop("al_layers", None)
    try:
        config = whole.model_validate(values)
        # A settings class may have validators of its own, which the composed class has not.
        for kind in [entry.settings for entry in registry.models(task)] + [registry.objective(FLAT).settings_of(task)]:
            _part(config, kind)
    except ValidationError as error:
        raise ConfigError(explain(error, task, values, origin)) from None
    return config
