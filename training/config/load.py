"""Read the configuration from a file and the command line, and derive what follows from it.

A mistake becomes a `ConfigError` of one line that says where it is, what was found and what was expected. The
expectation is put into words from the schema, so it cannot drift from what is accepted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from data.registry import entry
from models import registry
from models.settings import ModelSettings, expected, shown

from ..errors import ConfigError, remedy
from .growth import check_growth
from .json_file import IN_JSON, read_object
from .launch import Launch, ranks_of, split_rank
from .overrides import read_override
from .recipes import apply_recipe
from .schema import TASKS, CommonConfig, Config, DeviceLists, Method, Task, TextConfig, schema


def layer_names(model: str, method: Method, config: CommonConfig) -> list[str]:
    """Return the names of the layers that `model` has with this config; BP's head is a layer."""
    names = registry.model(model).layers(model_settings(config, model))
    return [*names, "head"] if method == "bp" else names


def layer_count(model: str, method: Method, config: CommonConfig) -> int:
    """Return how many layers, and so devices, `model` has with this config."""
    return len(layer_names(model, method, config))


def method_title(method: Method) -> str:
    """Return how tables and messages call a method; its name where it comes from a plug-in that is not loaded."""
    titles = {entry.name: entry.title for entry in registry.objectives()}
    return "BP" if method == "bp" else titles.get(method, method)


def model_settings(config: CommonConfig, model: str) -> BaseModel:
    """Return the model's settings as the config has them."""
    return _part(config, registry.model(model).settings)


def objective_settings(config: CommonConfig, method: Method) -> BaseModel:
    """Return the settings of the objective `method` as the config has them."""
    return _part(config, registry.objective(method).settings_of(config.task))


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


def device_list(config: CommonConfig, model: str, method: Method) -> Literal["auto"] | list[str]:
    """Return the devices that the config names for `model`, one per layer, or "auto".

    Raises `ConfigError` for a list of another length. Whether the devices exist is checked where they are used.
    """
    key = "bp_gpu_list" if method == "bp" else "al_gpu_list"
    lists: DeviceLists = getattr(config, key)
    if isinstance(lists, dict):
        lists, key = lists.get(model, "auto"), f"{key}.{model}"
    layers = layer_count(model, method, config)
    if lists != "auto" and len(lists) != layers:
        entries = "1 entry" if len(lists) == 1 else f"{len(lists)} entries"
        title, many = _with(model, method), "s" * (layers > 1)
        raise ConfigError(f'{key} has {entries}, {title} has {layers} layer{many}; give {layers}, or "auto"')
    return lists


def _with(model: str, method: Method) -> str:
    return f"{registry.model(model).title or model} with {method_title(method)}"


def check_layers_of_growth(config: CommonConfig, model: str, methods: Sequence[Method]) -> None:
    """Raise `ConfigError` where the stack of a local method cannot grow as the config says, or none would grow."""
    if config.grow is not None and list(methods) == ["bp"]:
        raise ConfigError(
            "grow: BP trains all layers from the first epoch on; add a local method, or leave grow at null"
        )
    for method in methods:
        if method != "bp":
            check_growth(config, layer_count(model, method, config), _with(model, method))


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
    origin = dict.fromkeys(values, str(path))
    set_now = set()
    for override in (read_override(text, whole) for text in overrides):
        values[override.key] = override.laid_over(values.get(override.key))
        origin[override.key] = f"--set {override.text}"
        set_now.add(override.key)
    with_recipe = apply_recipe(values, task, set_now)
    for key, value in with_recipe.items():
        if key not in values or values[key] != value:
            origin[key] = f'recipe "{values["recipe"]}"'
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
        for kind in [entry.settings for entry in registry.models(task)] + [
            entry.settings_of(task) for entry in registry.objectives()
        ]:
            _part(config, kind)
    except ValidationError as error:
        raise ConfigError(_explain(error, task, values, origin)) from None
    return config


def _explain(error: ValidationError, task: Task, values: Mapping[str, Any], origin: Mapping[str, str]) -> str:
    """Return one line about the first mistake: where it is, what was found, what was expected."""
    first = error.errors()[0]
    facts = first.get("ctx", {})
    if first["type"] == "order":
        places = dict.fromkeys(origin[key] for key in (facts["low"], facts["high"]) if key in origin)
        return f"{' with '.join(places)}: {first['msg']}"
    if not first["loc"]:  # a settings class of a plug-in may refuse a combination
        return str(facts.get("error", first["msg"]))
    key = str(first["loc"][0])
    known = schema(task).model_fields
    place = origin.get(key, "default")
    if key not in known:
        if isinstance(values.get("config"), dict):
            return (
                f'{place}: is a file of results: put its "config" into a file of its own, without limit_train, '
                "vocabulary and data_digest"
            )
        other = next((name for name in TASKS if key in schema(name).model_fields), None)
        if other:
            return f'{place}: "{key}" is a key of the {other} task, not of the {task} task: leave it out'
        return f'{place}: "{key}" is not a key: {remedy(key, known)}'
    if first["type"] == "value_error":
        return f"{place}: {key}: {facts['error']}"
    got, wanted = values.get(key), expected(schema(task), key)
    return f"{place}: {key}: got {shown(got)}; expected {wanted}{_hint(got, wanted, known)}"


def _hint(value: Any, wanted: str, known: Collection[str]) -> str:
    """Return how to write the value where it is right but for its form."""
    if isinstance(value, float) and value.is_integer() and "whole number" in wanted:
        return f": write {int(value)}"
    if not isinstance(value, str):
        return ""
    if value in IN_JSON and IN_JSON[value] in wanted:
        return f": write {IN_JSON[value]}"
    if "number" in wanted and re.fullmatch(r"-?\d+,\d+", value):
        return ": write a point in place of the comma"
    other = re.search(r"[\s,;](\w+)=", value)
    if other and other[1] in known:
        return "; give every key a --set of its own"
    if value.startswith("{"):
        return r"; where the shell has taken the quotation marks away, write \" for each"
    with suppress(ValueError):
        if isinstance(json.loads(value), (int, float, list, dict)):
            return ": write it without the quotation marks"
    return ""
