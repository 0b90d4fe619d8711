"""The models and the local objectives by name, and how to add one.

A plug-in is one Python file outside the packages (`--plugin FILE`). It adds a model with

    class Settings(VisionSettings):
        blocks: Annotated[int, Field(ge=1, le=8)] = 2
        "How many blocks the network has."

    def build(shape, settings):
        return [Block("block_1", f, bridge), ...], head

    register_model(ModelEntry(
        name="mine", task="vision", settings=Settings, build=build,
        layers=lambda settings: [f"block_{number}" for number in range(1, settings.blocks + 1)],
    ))

and an objective, which turns the blocks of any model into a stack of local layers, with `register_objective`. The
configuration has its settings in `objectives`, under its name.

This module must not import torch: the command line reads it to answer `--help` and every mistake in a key or a name.
That is why the entries below name their builders as strings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, get_args

from pydantic import BaseModel

from .objective_settings import (
    ALSettings,
    CESettings,
    DeInfoSettings,
    InfoProSettings,
    PredSimSettings,
    SCLSettings,
    TextALSettings,
)
from .settings import Task
from .text_settings import LSTMSettings, TransformerSettings, lstm_layers, transformer_layers
from .vision_settings import ResNetSettings, VGGSettings, resnet_layers, vgg_layers

Builder = Callable[..., Any] | str
WORDS = ("both", "all")
"""What `--method` takes besides the names of methods: AL and BP, and every method."""


class RegistryError(ValueError):
    """An entry that cannot be registered; the message is one line."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelEntry:
    """Everything about a model that is known before it is built."""

    name: str
    """As users type it and as files are named: lower-case letters, digits and `_ . + -`."""
    task: Task
    settings: type[BaseModel]
    """A class with a field per key, best derived from `VisionSettings`, `TextSettings` or `ModelSettings`."""
    layers: Callable[[Any], list[str]] | None
    """The names of the layers for given settings, first to last; BP adds "head". None for a network of the user's,
    whose layers are known once it has been built."""
    build: Builder
    """`build(shape, settings) -> (blocks, head)`, or "package.module:function", imported when it is first needed.

    `shape`: a `models.shapes.ImageShape` or `TextShape`. `blocks`: one `models.blocks.Block` per layer. `head`: the
    module that turns the last block's output into logits for BP.
    """
    title: str = ""
    """As messages show it; its name where it has none."""
    on_meta: bool = False
    """Whether `build` works on torch's device "meta", where tensors have no values: it reads none, and keeps no tensor
    but as a parameter or buffer. The ranks that get their weights from rank 0 then build it without memory."""

    def __post_init__(self) -> None:
        """Raise RegistryError for what could only fail later."""
        # A network of the user's is named after a function, whose letters may be capital ones.
        name = self.name if self.layers is not None else self.name.lower()
        _check(f"model {self.name!r}", name, self.build, [self.settings])
        if self.task not in get_args(Task):
            raise RegistryError(f'model {self.name!r}: task: got {self.task!r}; expected "vision" or "text"')


@dataclass(frozen=True, kw_only=True, eq=False)
class ObjectiveEntry:
    """A local objective: what every layer of any model is trained on."""

    name: str
    """As `--method` takes it: lower-case letters, digits and `_ . + -`."""
    title: str
    """As tables and messages show it."""
    settings: type[BaseModel] | Mapping[Task, type[BaseModel]]
    """A class with a field per key, or one per task where their defaults differ."""
    build: Builder
    """`build(blocks, n_classes, settings, training) -> ALStack`, or "package.module:function".

    One layer per block, under the block's name. `training`: a `models.shapes.Training`.
    """
    on_meta: bool = False
    """Whether `build` works on the device "meta", as for a model."""

    def __post_init__(self) -> None:
        """Raise RegistryError for what could only fail later."""
        kinds: list[Any] = [self.settings]
        if isinstance(self.settings, Mapping):
            kinds = [self.settings.get(task) for task in get_args(Task)]
        _check(f"objective {self.name!r}", self.name, self.build, kinds)
        if self.name in ("bp", *WORDS):
            raise RegistryError(f"objective {self.name!r}: --method has another meaning for this name; rename it")
        if hasattr(BaseModel, self.name):  # its settings are a field of this name
            raise RegistryError(f"objective {self.name!r}: pydantic has another meaning for this name; rename it")

    def settings_of(self, task: Task) -> type[BaseModel]:
        """Return the settings class for models of `task`."""
        return self.settings[task] if isinstance(self.settings, Mapping) else self.settings


_MODELS: dict[str, ModelEntry] = {}
#: Networks that a command line names as module:function.
_NETWORKS: dict[str, ModelEntry] = {}
_OBJECTIVES: dict[str, ObjectiveEntry] = {}


def register_model(entry: ModelEntry) -> None:
    """Add a model to those that the commands know. Raises RegistryError where its name is taken."""
    if entry.name in _MODELS:
        raise RegistryError(
            f"model {entry.name!r}: there is a {_MODELS[entry.name].task} model of this name; rename it"
        )
    _MODELS[entry.name] = entry


def register_network(entry: ModelEntry) -> None:
    """Make a network known by its name without listing it among the models; of two with one name the last counts."""
    _NETWORKS[entry.name] = entry


def register_objective(entry: ObjectiveEntry) -> None:
    """Add an objective to those that the commands know. Raises RegistryError where its name is taken."""
    if entry.name in _OBJECTIVES:
        raise RegistryError(f"objective {entry.name!r}: there is an objective of this name; rename it")
    _OBJECTIVES[entry.name] = entry


def models(task: Task) -> list[ModelEntry]:
    """Return the models of a task, in the order of registration."""
    return [entry for entry in _MODELS.values() if entry.task == task]


def model_names(task: Task) -> list[str]:
    """Return the names of the models of a task, in the order of registration."""
    return [entry.name for entry in models(task)]


def model(name: str) -> ModelEntry:
    """Return the entry of a model. Raises ValueError, which lists the known ones."""
    known = {**_NETWORKS, **_MODELS}
    if name not in known:
        raise ValueError(f"model: got {name!r}; expected one of {', '.join(_MODELS)}")
    return known[name]


def objectives() -> list[ObjectiveEntry]:
    """Return the objectives, in the order of registration; "al" is the first."""
    return list(_OBJECTIVES.values())


def objective(name: str) -> ObjectiveEntry:
    """Return the entry of an objective. Raises ValueError, which lists the known methods."""
    if name not in _OBJECTIVES:
        raise ValueError(f"method: got {name!r}; expected one of {', '.join(method_names())}")
    return _OBJECTIVES[name]


def method_names() -> list[str]:
    """Return every method: "al", "bp", then the other objectives."""
    first, *others = _OBJECTIVES
    return [first, "bp", *others]


def load(builder: Builder) -> Callable[..., Any]:
    """Return a builder, imported if it is named as "package.module:function".

    Raises RegistryError if it cannot be imported.
    """
    if callable(builder):
        return builder
    module, _, name = builder.partition(":")
    try:
        function: Callable[..., Any] = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise RegistryError(
            f"{builder}: cannot be imported ({error}); install what is missing, or correct it"
        ) from error
    return function


def _check(who: str, name: str, build: Builder, settings: Sequence[Any]) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.+-]*", name):
        raise RegistryError(f"{who}: a name consists of lower-case letters, digits and _ . + -; rename it")
    if not callable(build) and ":" not in str(build):
        raise RegistryError(f'{who}: build: got {build!r}; expected a function or "package.module:function"')
    for kind in settings:
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            raise RegistryError(f"{who}: settings: got {kind!r}; expected a class derived from models.Settings")


register_model(
    ModelEntry(
        name="vgg",
        title="VGG",
        task="vision",
        settings=VGGSettings,
        layers=vgg_layers,
        build="models.vgg:vgg",
        on_meta=True,
    ),
)
register_model(
    ModelEntry(
        name="resnet",
        title="ResNet",
        task="vision",
        settings=ResNetSettings,
        layers=resnet_layers,
        build="models.resnet:resnet",
        on_meta=True,
    ),
)
register_model(
    ModelEntry(
        name="lstm",
        title="LSTM",
        task="text",
        settings=LSTMSettings,
        layers=lstm_layers,
        build="models.lstm:lstm",
        on_meta=True,
    ),
)
register_model(
    ModelEntry(
        name="transformer",
        title="Transformer",
        task="text",
        settings=TransformerSettings,
        layers=transformer_layers,
        build="models.transformer:transformer",
        on_meta=True,
    ),
)
register_objective(
    ObjectiveEntry(
        name="al",
        title="AL",
        settings={"vision": ALSettings, "text": TextALSettings},
        build="models.assemble:build_local",
        on_meta=True,
    )
)
register_objective(
    ObjectiveEntry(name="ce", title="CE", settings=CESettings, build="models.assemble:build_local", on_meta=True),
)
register_objective(
    ObjectiveEntry(name="scl", title="SCL", settings=SCLSettings, build="models.assemble:build_local", on_meta=True),
)
register_objective(
    ObjectiveEntry(
        name="predsim", title="PredSim", settings=PredSimSettings, build="models.assemble:build_local", on_meta=True
    ),
)
register_objective(
    ObjectiveEntry(
        name="deinfo", title="DeInfoReg", settings=DeInfoSettings, build="models.assemble:build_local", on_meta=True
    ),
)
register_objective(
    ObjectiveEntry(
        name="infopro", title="InfoPro", settings=InfoProSettings, build="models.assemble:build_local", on_meta=True
    ),
)
