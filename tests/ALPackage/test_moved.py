"""Earlier import paths keep working, and are looked up late."""

from __future__ import annotations

import importlib
import pickle
import re
from types import ModuleType

import pytest
import torch

import ALPackage
from ALPackage import _moved


def test_what_earlier_files_import_is_what_there_is_now() -> None:
    from ALPackage.continuous import Continuous
    from ALPackage.losses import Association, ClassCodes, OneHot, Reconstruction, UnitNorm, similarity
    from ALPackage.pipeline import ALFM, SCHEDULES, Sequential, make_schedule
    from ALPackage.placement.devices import al_layers, set_device
    from ALPackage.snapshot import Snapshot
    from ALPackage.trace import Trace, Usage

    from ALPackage import objectives, placement
    from ALPackage.randomness import Dropout
    from ALPackage.schedules.distributed import Distributed

    codes = importlib.import_module("ALPackage.objectives.codes")
    association = importlib.import_module("ALPackage.objectives.association")
    assert objectives is not None
    assert (OneHot, ClassCodes, UnitNorm) == (codes.OneHot, codes.OnCodes, codes.UnitNorm)
    assert (Association, Reconstruction) == (association.Association, association.Reconstruction)
    assert similarity is association.similarity
    assert set(SCHEDULES.values()) == {Sequential, ALFM, Continuous, Distributed}
    assert make_schedule is ALPackage.make_schedule
    assert set_device is ALPackage.set_device is placement.set_device
    assert al_layers(torch.nn.Linear(1, 1)) == []
    assert Snapshot is ALPackage.Snapshot
    assert Dropout.__module__ == "ALPackage.randomness"
    assert {Trace.__module__, Usage.__module__} == {"ALPackage.stage.trace"}


@pytest.mark.parametrize("path", _moved.MOVED)
def test_every_earlier_module_can_be_imported_and_lists_its_names(path: str) -> None:
    module = importlib.import_module(f"ALPackage.{path}")
    targets = [importlib.import_module(f"ALPackage.{target}") for target in _moved.MOVED[path]]
    names = module.__all__
    assert names
    for name in names:
        assert any(getattr(target, _moved.RENAMED.get(name, name), None) is getattr(module, name) for target in targets)
    found: dict[str, object] = {}
    exec(f"from ALPackage.{path} import *", found)
    assert set(names) <= set(found)
    with pytest.raises(AttributeError, match=f"ALPackage.{path}.*no attribute 'nothing'"):
        _ = module.nothing
    assert not hasattr(module, "__wrapped__")


def test_the_earlier_modules_are_attributes_of_the_package() -> None:
    assert ALPackage.losses.OneHot(3).table.shape == (3, 3)  # type: ignore[attr-defined]
    assert ALPackage.placement.devices.resolve(["cpu"], 1) == [torch.device("cpu")]  # type: ignore[attr-defined]


def test_an_object_pickled_under_an_earlier_path_is_loaded() -> None:
    old = b"cALPackage.losses\nUnitNorm\n."
    assert pickle.loads(old).__module__ == "ALPackage.objectives.codes"


def test_an_earlier_path_that_nobody_asks_for_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def note(name: str) -> ModuleType:
        asked.append(name)
        return ALPackage

    monkeypatch.setattr(_moved, "import_module", note)
    earlier = _moved._Moved("ALPackage.losses", ("objectives.codes",))
    assert asked == []
    assert earlier.AL is ALPackage.AL
    assert asked == ["ALPackage.objectives.codes"]


def test_every_public_name_is_there_and_so_is_the_version() -> None:
    assert [name for name in ALPackage.__all__ if not hasattr(ALPackage, name)] == []
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", ALPackage.__version__)
