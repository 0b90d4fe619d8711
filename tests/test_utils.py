"""The helpers that the README shows: placement by the same function as the library's, and seeding."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
import torch
import torch.utils.deterministic

import utils
from ALPackage import placement


def test_the_helpers_are_the_library_s() -> None:
    assert utils.set_device is placement.set_device
    assert utils.available_devices is placement.available_devices
    assert utils.available_devices()[0] == "cpu"


def draws() -> tuple[float, float, float]:
    """Return one number of every process-wide generator."""
    return random.random(), float(np.random.rand()), torch.rand(()).item()


@pytest.mark.parametrize("seed", [0, 1, 2**32 + 5, 2**62])
def test_a_seed_fixes_all_three_generators(seed: int) -> None:
    utils.set_seed(seed)
    first = draws()
    assert draws() != first
    utils.set_seed(seed)
    assert draws() == first
    utils.set_seed(seed + 1)
    assert not set(draws()) & set(first)


def test_deterministic_mode_is_asked_for_without_filling_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = torch.utils.deterministic.fill_uninitialized_memory
    try:
        utils.set_deterministic()
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = before
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
