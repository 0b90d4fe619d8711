"""How alike the samples of a batch are: the similarities of Nokland & Eidnes (ICML 2019, section 2), in float32.

Legend: B batch, C classes, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .association import full_precision

#: The length of what has no direction: a gradient would be larger by its inverse.
LEAST = 1e-6


def similarity_matrix(features: Tensor) -> Tensor:
    """Return the cosines (B, B) of all pairs of samples of features (B, D), each less its mean over the features.

    A sample whose features are all the same, up to rounding or to 1e-6 in length, has similarity 0 to every other, and
    gets no gradient.
    """
    with torch.autocast(features.device.type, enabled=False):
        features = full_precision(features)
        centered = features - features.mean(1, keepdim=True)
        same = length(centered.detach()) <= LEAST * length(features.detach()).clamp_min(1.0)
        centered = centered.masked_fill(same, 0.0)
        unit: Tensor = centered / (length(centered).masked_fill(same, 1.0) + 1e-8)
        return (unit @ unit.T).clamp(-1, 1)


def length(rows: Tensor) -> Tensor:
    """Return the lengths (B, 1) of rows (B, D)."""
    found: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return found


def label_similarity(labels: Tensor, n_classes: int, dtype: torch.dtype) -> Tensor:
    """Return the same (B, B) for the one-hot codes of labels int64 (B,): 1 within a class, else -1 / (C - 1)."""
    same = (labels[:, None] == labels[None]).to(dtype)
    return (same * n_classes - 1) / (n_classes - 1)


def similarity_mismatch(features: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """Return the mean squared difference, 0-d, between the similarities of the features and those of the labels."""
    found = similarity_matrix(features)
    return (found - label_similarity(labels, n_classes, found.dtype)).square().mean()
