"""The examples in the library's docstrings run as they stand, and every public name has one."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from typing import Any

import pytest
import torch
from torch import nn

import ALPackage

MODULES = [
    module.name
    for module in pkgutil.walk_packages(ALPackage.__path__, "ALPackage.")
    if not module.name.endswith("__main__")
]
#: Names without a docstring of their own to hold an example.
PLAIN = {"SCHEDULES", "__version__"}
#: An exception that carries a message alone needs none.
NO_EXAMPLE = {"PlacementError"}


def globals_of_an_example() -> dict[str, Any]:
    """Return what the examples take for imported: torch, nn and the public names."""
    return {"torch": torch, "nn": nn, **{name: getattr(ALPackage, name) for name in ALPackage.__all__}}


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name: str) -> None:
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in doctest.DocTestFinder().find(module, extraglobs=globals_of_an_example()):
        report: list[str] = []
        runner.run(test, out=report.append)
        assert not report, "".join(report)


@pytest.mark.parametrize("name", sorted(set(ALPackage.__all__) - PLAIN - NO_EXAMPLE))
def test_every_public_name_has_an_example(name: str) -> None:
    thing = getattr(ALPackage, name)
    assert ">>> " in (thing.__doc__ or "")
