"""What the settings of a model or an objective are made of. Nothing here needs torch.

A key stands once, as a field of a settings class: its type says which values are legal, its value is the default, and
the docstring under it is its help. The schema of the configuration, `--help` and the tables of the documentation are
generated from these classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Task = Literal["vision", "text"]
Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid"]
Units = Annotated[int, Field(ge=1, le=65536)]
#: Units of a layer that batch normalization or a normalization to unit length follows: one alone would say nothing.
CodeUnits = Annotated[int, Field(ge=2, le=65536)]
Share = Annotated[float, Field(ge=0, lt=1)]


class Settings(BaseModel):
    """Base of all settings. Types are strict, so "128" or true is not a number, but 1 will do for a float."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class ModelSettings(Settings):
    """Base of a model's settings."""

    def resolve(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the keys whose value "auto" stands for something else, with that value.

        `config` holds every key of the run. Raises ValueError, "key: what is wrong", where the values cannot go
        together.
        """
        return {}

    def notes(self, config: Mapping[str, Any]) -> list[str]:
        """Return what the user should know about values that `resolve` chose, one line each."""
        return []


S = TypeVar("S", bound=BaseModel)


def checked(kind: type[S], values: Mapping[str, Any]) -> S:
    """Return an instance of the settings class. Raises ValueError of one line: key, value found, values expected."""
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise ValueError(first["msg"]) from None
        key = str(first["loc"][0])
        if key not in kind.model_fields:
            raise ValueError(f'"{key}" is not a setting; expected one of {", ".join(kind.model_fields)}') from None
        raise ValueError(f"{key}: got {shown(values.get(key))}; expected {expected(kind, key)}") from None


def expected(kind: type[BaseModel], key: str) -> str:
    """Put the legal values of a key into words."""
    field = kind.model_fields[key]
    if isinstance(field.json_schema_extra, dict) and "expected" in field.json_schema_extra:
        return str(field.json_schema_extra["expected"])
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
        return "an object of settings"
    return _words(kind.model_json_schema()["properties"][key])


def shown(value: Any) -> str:
    """Return the value as JSON, cut off where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


_TYPES = {
    "integer": "a whole number",
    "number": "a number",
    "string": "a text",
    "boolean": "true or false",
    "null": "null",
    "array": "a list",
    "object": "an object",
}
_LIMITS = {
    "minimum": "of at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "multipleOf": "a multiple of {}",
    "minLength": "of at least {} character",
}


def _words(schema: Mapping[str, Any]) -> str:
    """Put the JSON schema of a field into words."""
    if "anyOf" in schema:
        return ", or ".join(_words(option) for option in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(json.dumps(choice) for choice in schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"])
    # A field of a plug-in may have a type that is only described by reference.
    words = _TYPES.get(schema.get("type", ""), "another value")
    bounds = [wording.format(schema[name]) for name, wording in _LIMITS.items() if name in schema]
    return " ".join([words, ", ".join(bounds)]).strip()
