"""Helpers that users call directly: device placement and seeding."""

from __future__ import annotations

import random

import numpy as np
import torch

from ALPackage.placement import available_devices, set_device

__all__ = ["available_devices", "set_device", "set_seed"]


def set_seed(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's process-wide generators, on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
