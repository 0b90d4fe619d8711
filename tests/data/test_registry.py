"""The names, the entries, and what the registry must not import. No network, no GPU."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import data
from data import DataError, DatasetEntry, canonical, entry, match, register_dataset
from data.download import OTHERS, resource_names
from data.registry import entries, resolve
from data.resource import Resource

ROOT = Path(__file__).resolve().parents[2]


def load_nothing(*_: object) -> None:
    """Stand in for a loader."""


def test_names_match_in_any_case_and_the_nearest_is_suggested() -> None:
    assert canonical(" TinyImageNet ", "vision") == "tinyImageNet"
    assert canonical("AGNEWS", "text") == "agnews"
    assert match("DIGITS", data.VISION) == "digits"
    with pytest.raises(DataError, match=r"unknown vision data set 'tinyimagnet': did you mean tinyImageNet\? Known: "):
        canonical("tinyimagnet", "vision")
    with pytest.raises(DataError, match=r"Known: agnews, dbpedia, imdb, docstrings$"):
        canonical("xyz", "text")
    with pytest.raises(DataError, match=r"agnews is not a vision data set: use nlpmain\.py"):
        canonical("agnews", "vision")


def test_every_data_set_can_be_loaded_and_is_embedded_or_has_a_resource() -> None:
    for each in entries():
        assert callable(resolve(each.load, each.name))
        assert each.embedded == (each.resource is None)
        if each.resource is not None:
            resource = resolve(each.resource, each.name)
            assert isinstance(resource, Resource)
            assert resource.name == each.name
    assert [*data.VISION] == ["tinyImageNet", "cifar10", "cifar100", "fashionMNIST", "digits"]
    assert [*data.TEXT] == ["agnews", "dbpedia", "imdb", "docstrings"]
    embedded = {"digits", "docstrings"}
    assert {*data.VISION, *data.TEXT} - embedded == set(resource_names()) - set(OTHERS)


def test_defaults_that_depend_on_the_data_set_stand_in_its_entry() -> None:
    sizes = {name: entry(name, "vision").image_size for name in data.VISION}
    assert sizes == {"tinyImageNet": 32, "cifar10": 32, "cifar100": 32, "fashionMNIST": 32, "digits": 16}
    lengths = {name: entry(name, "text").max_len for name in data.TEXT}
    assert lengths == {"agnews": 128, "dbpedia": 128, "imdb": 256, "docstrings": 128}
    assert (entry("Digits", "vision").augmentation, entry("fashionmnist", "vision").augmentation) == ("none", "basic")


@pytest.mark.usefixtures("forget_plugins")
def test_a_registered_data_set_is_known_at_once() -> None:
    register_dataset(DatasetEntry("Pets", "vision", "cats and dogs", load_nothing))
    assert data.VISION["Pets"] == "cats and dogs"
    assert [*data.VISION][-1] == "Pets"
    assert "Pets" not in data.TEXT
    assert canonical("pets", "vision") == "Pets"
    assert (entry("pets", "vision").augmentation, entry("pets", "vision").image_size) == ("strong", 32)
    with pytest.raises(DataError, match="Pets is not a text data set"):
        canonical("pets", "text")


@pytest.mark.usefixtures("forget_plugins")
def test_a_taken_name_is_refused_but_the_same_data_set_may_come_twice() -> None:
    register_dataset(DatasetEntry("pets", "vision", "cats and dogs", load_nothing))
    register_dataset(DatasetEntry("pets", "vision", "dogs and cats", load_nothing))
    assert data.VISION["pets"] == "dogs and cats"
    with pytest.raises(DataError, match="'Agnews': there is already a text data set agnews; rename it"):
        register_dataset(DatasetEntry("Agnews", "vision", "pictures of newspapers", load_nothing))
    with pytest.raises(DataError, match="'digits': there is already a vision data set digits"):
        register_dataset(DatasetEntry("digits", "vision", "other digits", load_nothing))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": "my pets"}, "a name consists of letters"),
        ({"name": "../pets"}, "a name consists of letters"),
        ({"task": "audio"}, 'task: got \'audio\'; expected "vision" or "text"'),
        ({"load": "my_module"}, "load: got 'my_module'; expected a function or"),
        ({"augmentation": "auto"}, "augmentation: got 'auto'; expected one of none, basic, strong"),
        ({"image_size": 0}, "must be at least 1"),
    ],
)
def test_an_entry_that_could_only_fail_later_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        DatasetEntry(**{"name": "pets", "task": "vision", "about": "pets", "load": load_nothing, **changes})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", ["no_such_module:load", "data.errors:no_such_name"])
def test_a_loader_that_cannot_be_imported_is_named(target: str) -> None:
    with pytest.raises(DataError, match=f"pets: cannot import {target} "):
        resolve(target, "pets")


def test_the_names_are_known_without_any_slow_import() -> None:
    slow = "{'torch', 'numpy', 'pandas', 'requests', 'pooch', 'tqdm', 'PIL', 'sklearn'}"
    code = (
        f"import sys, data, data.registry, data.errors; data.entry('imdb', 'text'); print(*{slow} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ran.stdout.strip() == ""


def test_imports_within_data_run_one_way() -> None:
    """Level by level: a module that imports only modules of lower levels is taken away, until none is left."""
    package = ROOT / "data"
    imports: dict[str, set[str]] = {}
    for file in package.rglob("*.py"):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        folder = module if file.name == "__init__.py" else module.rpartition(".")[0]
        imports[module] = set()
        for node in ast.parse(file.read_text(encoding="utf-8")).body:  # `if TYPE_CHECKING` is no import
            if isinstance(node, ast.ImportFrom) and node.level:
                base = ".".join([*folder.split(".")[: len(folder.split(".")) - node.level + 1], node.module or ""])
                imports[module].add(base.rstrip("."))
    left = set(imports)
    while free := {module for module in left if not imports[module] & left}:
        left -= free
    assert left == set()
    # A data set knows what is below it: not the code that loads it, nor another data set. What reads inputs of the
    # user's is above that code, whose functions it calls.
    knowing = {module for module, used in imports.items() if {"data.text.load", "data.vision.load"} & used}
    assert knowing == {"data.text.unseen", "data.vision.unseen"}
