"""The helpers that the README shows: placement by the same function as the library's, and seeding."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

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
