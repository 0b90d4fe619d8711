"""Build any registered model, for BP or for any registered objective, from the same blocks."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from torch import Tensor

from ALPackage import ALStack
from ALPackage.stage.threads import IntraOpThreads

from . import registry
from .assemble import BPModel
from .example import example_of
from .settings import Task, checked
from .shapes import ImageShape, Shape, TextShape, Training


def build_model(
    model: str,
    method: str,
    shape: Shape,
    settings: BaseModel,
    *,
    objective: BaseModel | None = None,
    training: Training | None = None,
) -> ALStack | BPModel:
    """Return a model in its BP form (method "bp") or in the form of the objective that `method` names.

    Args:
        shape: what the data looks like.
        settings: an instance of the model's settings class.
        objective: an instance of the objective's settings class; BP needs none.
        training: how the layers are trained; BP needs none.

    Every form draws its blocks' initial weights first and in the same order, so with one seed the forward networks
    start out equal. Raises ValueError for an unknown model or method, and RegistryError where other layers were built
    than the registry names.
    """
    entry = registry.model(model)
    local = None if method == "bp" else registry.objective(method)
    blocks, head = _build(f"model {model}", entry.build, shape, settings)
    names = [block.name for block in blocks] if entry.layers is None else entry.layers(settings)
    if [block.name for block in blocks] != names:
        built = ", ".join(block.name for block in blocks)
        raise registry.RegistryError(f"{model}: its entry names the layers {', '.join(names)}, but {built} were built")
    if local is None:
        return BPModel(blocks, head)
    if objective is None or training is None:
        raise ValueError(f"{method}: give the settings of the objective and of the training")
    training = replace(training, example=example_of(shape))
    stack = _build(f"objective {method}", local.build, blocks, shape.n_classes, objective, training)
    if not isinstance(stack, ALStack):
        raise registry.RegistryError(
            f"{method}: its build function returned {type(stack).__name__}; expected an ALStack"
        )
    if stack.names != names:
        raise registry.RegistryError(
            f"{method}: built the layers {', '.join(stack.names)}; expected one per block: {', '.join(names)}"
        )
    return stack


def _build(what: str, builder: registry.Builder, *arguments: Any) -> Any:
    """Call a builder; what a plug-in's raises is a mistake in the plug-in, told with its line."""
    try:
        # With one thread: initial weights that come from a decomposition, such as orthogonal ones, differ in their last
        # bits with the number of threads, and so would the same run on machines with more cores or fewer.
        with IntraOpThreads(1):
            return registry.load(builder)(*arguments)
    except registry.RegistryError:
        raise
    except Exception as error:
        if isinstance(builder, str):
            raise
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}, line {last.lineno}"
        raise registry.RegistryError(
            f"{what}: its build function raised {type(error).__name__}: {error} ({where})"
        ) from error


def build_vision(
    model: str, method: str, *, n_classes: int, in_channels: int, image_size: int, ae_dim: int = 128, **keys: Any
) -> ALStack | BPModel:
    """Return a vision model, by keywords instead of settings.

    `keys`: any keys of the task's models and of the objective, and `lr`, `weight_decay`, `label_smoothing`; those that
    this model and method do not have are ignored. Raises ValueError for a value that a key cannot have.
    """
    shape = ImageShape(n_classes=n_classes, channels=in_channels, size=image_size)
    return _by_keywords("vision", model, method, shape, ae_dim, keys)


def build_text(
    model: str, method: str, *, n_classes: int, vectors: Tensor, y_hid: int = 128, **keys: Any
) -> ALStack | BPModel:
    """Return a text model, by keywords instead of settings; the embedding starts from `vectors`, float (V, D).

    `keys`: as for `build_vision`.
    """
    return _by_keywords("text", model, method, TextShape(n_classes=n_classes, vectors=vectors), y_hid, keys)


def _by_keywords(
    task: Task, model: str, method: str, shape: Shape, code_dim: int, keys: Mapping[str, Any]
) -> ALStack | BPModel:
    if model not in registry.model_names(task):
        raise ValueError(f"model: got {model!r}; expected one of {', '.join(registry.model_names(task))}")
    if method not in registry.method_names():
        raise ValueError(f"method: got {method!r}; expected one of {', '.join(registry.method_names())}")
    kinds = [entry.settings for entry in registry.models(task)]
    kinds += [entry.settings_of(task) for entry in registry.objectives()]
    known = {"lr", "weight_decay", "label_smoothing"}.union(*(kind.model_fields for kind in kinds))
    unknown = [key for key in keys if key not in known]
    if unknown:
        raise TypeError(f"{model}: {unknown[0]!r} is not a key; expected some of {', '.join(sorted(known))}")
    settings = _take(registry.model(model).settings, keys)
    if method == "bp":
        return build_model(model, method, shape, settings)
    if "lr" not in keys:
        raise TypeError(f"{method}: give the learning rate, lr")
    training = Training(
        code_dim=code_dim, **{key: keys[key] for key in ("lr", "weight_decay", "label_smoothing") if key in keys}
    )
    objective = _take(registry.objective(method).settings_of(task), keys)
    return build_model(model, method, shape, settings, objective=objective, training=training)


def _take(kind: type[BaseModel], keys: Mapping[str, Any]) -> BaseModel:
    return checked(kind, {key: value for key, value in keys.items() if key in kind.model_fields})
