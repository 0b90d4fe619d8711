"""Helpers that users call directly: device placement and seeding."""

from __future__ import annotations

import os
import random

import numpy as np
import torch

from ALPackage.devices import available_devices, set_device

__all__ = ["available_devices", "set_deterministic", "set_device", "set_seed"]


def set_seed(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's process-wide generators, on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def set_deterministic() -> None:
    """Make CUDA compute the same numbers in every run; call it before the first CUDA operation.

    An operation without a deterministic implementation still runs, with a warning. The CPU needs none of this.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling costs a pass over every new tensor, and we never read one that was not written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
