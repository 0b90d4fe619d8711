"""The registry: its entries agree with what is built, torch-free, and wrong entries are refused in one line."""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from models import ModelEntry, ObjectiveEntry, Settings, build_text, build_vision, registry
from models.settings import checked, expected

ROOT = Path(__file__).parents[2]


def layer_settings() -> list[tuple[str, dict[str, Any]]]:
    """Return every model with every combination of the settings that decide its layers."""
    cases: list[tuple[str, dict[str, Any]]] = []
    for task in get_args(registry.Task):
        for entry in registry.models(task):
            fields = entry.settings.model_fields
            values: dict[str, list[Any]] = {}
            if "cut" in fields:
                values["cut"] = list(get_args(fields["cut"].annotation))
            if "al_layers" in fields:
                values |= {"al_layers": [1, 3], "n_layers": [1, 2]}
            cases += [(entry.name, dict(zip(values, choice, strict=True))) for choice in product(*values.values())]
    return cases


@pytest.mark.parametrize("method", ["al", "bp"])
@pytest.mark.parametrize(("model", "keys"), layer_settings())
def test_an_entry_names_the_layers_that_are_built(model: str, keys: dict[str, Any], method: str) -> None:
    """Guards a bug: the number of layers stood in a table that knew nothing of `cut`."""
    entry = registry.model(model)
    names = entry.layers(checked(entry.settings, keys))
    if entry.task == "vision":
        built: Any = build_vision(
            model, method, n_classes=3, in_channels=1, image_size=16, width=0.05, enc_dim=4, ae_dim=4, lr=0.1, **keys
        )
    else:
        built = build_text(model, method, n_classes=3, vectors=torch.zeros(5, 6), x_hid=2, y_hid=4, lr=0.1, **keys)
    assert list(built.layers) == names + ["head"] * (method == "bp")


def test_the_layers_of_the_design() -> None:
    """The lengths of the device lists: VGG 4 AL layers, ResNet 5, LSTM 4, Transformer 4."""
    counts = {entry.name: len(entry.layers(entry.settings())) for entry in map(registry.model, registry._MODELS)}
    assert counts == {"vgg": 4, "resnet": 5, "lstm": 4, "transformer": 4}


def test_models_and_their_settings_are_known_without_torch() -> None:
    code = "import sys, models, models.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_every_setting_has_help_and_words_for_its_values() -> None:
    for task in get_args(registry.Task):
        kinds = [entry.settings for entry in registry.models(task)]
        for kind in [*kinds, *(entry.settings_of(task) for entry in registry.objectives())]:
            for key, field in kind.model_fields.items():
                assert field.description, f"{kind.__name__}.{key} has no docstring"
                assert "another value" not in expected(kind, key)


def test_wrong_keywords_are_one_line() -> None:
    settings: dict[str, Any] = {"n_classes": 3, "in_channels": 1, "image_size": 16, "lr": 0.1}
    with pytest.raises(TypeError, match="'widht' is not a key"):
        build_vision("vgg", "al", widht=0.5, **settings)
    with pytest.raises(ValueError, match=r"^width: got 0; expected a number above 0, at most 4$"):
        build_vision("vgg", "al", width=0, **settings)
    with pytest.raises(TypeError, match="al: give the learning rate, lr"):
        build_vision("vgg", "al", n_classes=3, in_channels=1, image_size=16)


class One(Settings):
    """A plug-in's settings."""

    own: int = 1
    """A number."""


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "vgg"}, "model 'vgg': there is a vision model of this name"),
        ({"name": "My Net"}, "model 'My Net': a name consists of lower-case letters"),
        ({"task": "audio"}, 'task: got \'audio\'; expected "vision" or "text"'),
        ({"build": "mine.py"}, "build: got 'mine.py'; expected a function or"),
        ({"settings": {"own": 1}}, "settings: got {'own': 1}; expected a class derived from models.Settings"),
    ],
)
def test_a_wrong_model_is_refused(entry: dict[str, Any], message: str) -> None:
    right: dict[str, Any] = {"name": "mine", "task": "vision", "settings": One, "layers": lambda _: [], "build": print}
    with pytest.raises(registry.RegistryError, match=message):
        registry.register_model(ModelEntry(**right | entry))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("al", "objective 'al': there is an objective of this name"),
        ("bp", "objective 'bp': --method has another meaning"),
        ("both", "objective 'both': --method has another meaning"),
        ("all", "objective 'all': --method has another meaning"),
        ("copy", "objective 'copy': pydantic has another meaning"),
        ("a,b", "objective 'a,b': a name consists of"),
    ],
)
def test_a_wrong_objective_is_refused(name: str, message: str) -> None:
    with pytest.raises(registry.RegistryError, match=message):
        registry.register_objective(ObjectiveEntry(name=name, title="X", settings=One, build=print))


def test_an_objective_needs_settings_for_every_task() -> None:
    with pytest.raises(registry.RegistryError, match="settings: got None; expected a class"):
        ObjectiveEntry(name="half", title="X", settings={"vision": One}, build=print)


@pytest.mark.parametrize("builder", ["no_such_package:build", "models.vgg:no_such_function"])
def test_a_builder_that_cannot_be_imported_is_one_line(builder: str) -> None:
    with pytest.raises(registry.RegistryError, match=f"{builder}: cannot be imported"):
        registry.load(builder)
