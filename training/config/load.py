"""Read the configuration from a file and the command line, and derive what follows from it.

A mistake becomes a `ConfigError` of one line that says where it is, what was found and what was expected. The
expectation is put into words from the schema, so it cannot drift from what is accepted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from ALPackage.stage.threads import available_cores, default_threads
from data.registry import entry

from ..errors import ConfigError, reason, remedy
from .recipes import apply_recipe
from .schema import SCHEMAS, CommonConfig, Config, DeviceLists, Method, Task, TextConfig


def layer_count(model: str, method: Method, config: CommonConfig) -> int:
    """Return how many layers, and so devices, `model` has: BP's head is a layer, AL has none."""
    if isinstance(config, TextConfig):
        return config.n_layers + (2 if method == "bp" else 1)
    return {"vgg": 4, "resnet": 5}[model] + (1 if method == "bp" else 0)


def device_list(config: CommonConfig, model: str, method: Method) -> Literal["auto"] | list[str]:
    """Return the devices that the config names for `model`, one per layer, or "auto".

    Raises `ConfigError` for a list of another length. That the devices exist is checked where they are used.
    """
    key = f"{method}_gpu_list"
    lists: DeviceLists = getattr(config, key)
    if isinstance(lists, dict):
        lists, key = lists.get(model, "auto"), f"{key}.{model}"
    layers = layer_count(model, method, config)
    if lists != "auto" and len(lists) != layers:
        entries = "1 entry" if len(lists) == 1 else f"{len(lists)} entries"
        raise ConfigError(
            f"{key} has {entries}, but {model} with {method.upper()} has {layers} layers: "
            'give one device per layer or "auto"'
        )
    return lists


def check_workers(config: CommonConfig, model: str) -> None:
    """Raise `ConfigError` where a number of workers makes no sense for AL's layers."""
    if config.workers is None:
        return
    layers = layer_count(model, "al", config)
    if device_list(config, model, "al") != "auto":
        raise ConfigError(
            'workers: al_gpu_list says where every layer goes; leave workers out, or set al_gpu_list to "auto"'
        )
    if config.workers > layers:
        raise ConfigError(f"workers: got {config.workers}, but {model} with AL has {layers} layers: give at most that")


def resolve_heads(n_heads: int | Literal["auto"], width: int) -> tuple[int, str | None]:
    """Return the number of attention heads for a model of `width` units, and a notice where it is not 6.

    Raises `ConfigError` when an explicit number does not divide the width.
    """
    if n_heads == "auto":
        heads = max(heads for heads in range(1, 7) if width % heads == 0)
        notice = f"n_heads is {heads}: 6 does not divide the model's width of {width}" if heads != 6 else None
        return heads, notice
    if width % n_heads:
        divisors = ", ".join(str(heads) for heads in range(1, min(width, 16) + 1) if width % heads == 0)
        raise ConfigError(
            f"n_heads: got {n_heads}; expected a divisor of the model's width of {width}: "
            f'give one of {divisors}, or "auto"'
        )
    return n_heads, None


def length_limit(config: TextConfig, dataset: str) -> int:
    """Return how many tokens of a document of `dataset` are read."""
    limit = config.max_len if config.max_len != "auto" else entry(dataset, "text").max_len
    if config.min_len > limit:
        raise ConfigError(f"min_len: got {config.min_len}; expected at most max_len, which is {limit} for {dataset}")
    return limit


def count_threads(config: CommonConfig, model: str, method: Method) -> int:
    """Return the intra-op threads of an AL worker, or of BP: OMP_NUM_THREADS wins over everything.

    An AL worker takes `threads`, else an equal share of the cores; BP takes all cores. It depends on no timing, no
    schedule and no cut, because the number of threads may change the last bit of a sum.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "").strip()
    first = asked.split(",")[0].strip()
    if asked and (not first.isdecimal() or int(first) < 1):
        raise ConfigError(f'OMP_NUM_THREADS: got "{asked}"; expected a number of at least 1, or leave it unset')
    if method == "bp":
        return default_threads(1)
    if asked or config.threads is None:
        return default_threads(_worker_count(config, model))
    return config.threads


def _worker_count(config: CommonConfig, model: str) -> int:
    """Return how many CPU workers AL has at most: what `workers` says, the list's distinct ones, or one per core."""
    devices = device_list(config, model, "al")
    if devices == "auto":
        return config.workers or min(available_cores(), layer_count(model, "al", config))
    return sum(name == "cpu" for name in devices) + len({name for name in devices if name.startswith("cpu:")}) or 1


def load_config(task: Task, path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read the JSON file at `path`, lay its recipe and then the `key=value` overrides over it, and check the whole.

    A value of an override is read as JSON and, where it is none, taken as text; `key.part=value` sets a part of
    an object. Raises `ConfigError` with a message of one line.
    """
    schema = SCHEMAS[task]
    values = _read(path)
    origin = dict.fromkeys(values, str(path))
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {override}: expected key=value, for example --set epochs=3")
        key, dot, part = key.partition(".")
        value = _value(override, text)
        if dot:
            whole = values.get(key)
            value = {**(whole if isinstance(whole, dict) else {}), part: value}
        values[key] = value
        origin[key] = f"--set {override}"
    set_now = {override.partition("=")[0].partition(".")[0] for override in overrides}
    before, values = values, apply_recipe(values, task, set_now)
    origin |= {key: f'recipe "{before["recipe"]}"' for key in values if key not in before or values[key] != before[key]}
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(error, task, values, origin)) from None


def _read(path: Path) -> dict[str, Any]:
    """Return the object that the file holds; refuse what JSON's reader would let pass."""
    try:
        # Editors on Windows put a byte order mark in front.
        values = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_unique, parse_constant=_refuse)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file; name another with --config") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({reason(error)}); name a JSON file with --config") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not text in UTF-8 (byte {error.start}); save it as UTF-8") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: line {error.lineno}, column {error.colno}: broken JSON: {error.msg}") from None
    except RecursionError:
        raise ConfigError(f"{path}: is nested too deeply; expected an object of plain values") from None
    except ValueError:
        raise ConfigError(f"{path}: holds a number of thousands of digits; give a shorter one") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f'{path}: holds {_show(values)}; expected an object such as {{"epochs": 20}}')
    return values


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ConfigError(f'"{key}" is there twice; leave one of them out')
        values[key] = value
    return values


def _refuse(constant: str) -> None:
    raise ConfigError(f"{constant} is not a number in JSON; give a finite number")


def _value(override: str, text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text
    except ConfigError as error:
        raise ConfigError(f"--set {override}: {error}") from None


def _explain(error: ValidationError, task: Task, values: dict[str, Any], origin: dict[str, str]) -> str:
    """Return one line about the first mistake: where it is, what was found, what was expected."""
    first = error.errors()[0]
    facts = first.get("ctx", {})
    if first["type"] == "order":
        places = dict.fromkeys(origin[key] for key in (facts["low"], facts["high"]) if key in origin)
        return f"{' with '.join(places)}: {first['msg']}"
    key = str(first["loc"][0])
    known = SCHEMAS[task].model_fields
    if key not in known:
        other = next((name for name, schema in SCHEMAS.items() if key in schema.model_fields), None)
        if other:
            return f'{origin[key]}: "{key}" is a key of the {other} task, not of the {task} task: leave it out'
        return f'{origin[key]}: "{key}" is not a key: {remedy(key, known)}'
    if first["type"] == "value_error":
        return f"{origin[key]}: {key}: {facts['error']}"
    expected = _expected(SCHEMAS[task].model_json_schema()["properties"][key])
    return f"{origin[key]}: {key}: got {_show(values[key])}; expected {expected}"


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _expected(schema: dict[str, Any]) -> str:
    """Put a field's JSON schema into words."""
    if "description" in schema:
        return str(schema["description"])
    if "anyOf" in schema:
        return ", or ".join(_expected(option) for option in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(json.dumps(choice) for choice in schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"])
    words = {
        "integer": "a whole number",
        "number": "a number",
        "string": "a text",
        "boolean": "true or false",
        "null": "null",
    }[schema["type"]]
    limits = {
        "minimum": "of at least {}",
        "exclusiveMinimum": "above {}",
        "maximum": "at most {}",
        "exclusiveMaximum": "below {}",
        "multipleOf": "a multiple of {}",
        "minLength": "of at least {} character",
    }
    bounds = [wording.format(schema[name]) for name, wording in limits.items() if name in schema]
    return " ".join([words, ", ".join(bounds)]).strip()
