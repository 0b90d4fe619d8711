"""The labels that a classifier's target begins as."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor


class OfLabels:
    """Base of the objectives whose target is the labels themselves."""

    def target(self, n_classes: int) -> Callable[[Tensor], Tensor]:
        """Return what checks the labels, and hands them on."""
        return partial(checked_labels, n_classes=n_classes)


def checked_labels(labels: Tensor, n_classes: int) -> Tensor:
    """Return labels int64 (B,), each from 0 to n_classes - 1, as they are.

    Raises TypeError for another dtype or no tensor, and ValueError for another shape or number. On a GPU the numbers
    are not looked at: the host would wait for the answer.
    """
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels: got an object of type {type(labels).__name__}; expected a tensor, int64 (B,)")
    got = f"labels: got {str(labels.dtype).removeprefix('torch.')} {tuple(labels.shape)}; expected int64 (B,)"
    if labels.dtype != torch.int64:
        rows = labels.is_floating_point() and labels.dim() == 2
        raise TypeError(f"{got}: the number of each sample's class, as labels.{'argmax(1)' if rows else 'long()'}")
    if labels.dim() != 1:
        raise ValueError(f"{got}: one number per sample, as labels.flatten() or labels.argmax(1)")
    if labels.device.type == "cpu" and len(labels):
        least, most = int(labels.min()), int(labels.max())
        if least < 0 or most >= n_classes:
            raise ValueError(
                f"labels: got numbers from {least} to {most}; expected 0 to {n_classes - 1}, as there are {n_classes} "
                "classes"
            )
    return labels
