"""How alike the samples of a batch are: the similarities of Nokland & Eidnes (ICML 2019, section 2), in float32.

Legend: B batch, C classes, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .association import full_precision


def similarity_matrix(features: Tensor) -> Tensor:
    """Return the cosines (B, B) of all pairs of samples of features (B, D), each less its mean over the features.

    A sample whose features are all the same has similarity 0 to every other, and gets no gradient.
    """
    with torch.autocast(features.device.type, enabled=False):
        features = full_precision(features)
        centered = features - features.mean(1, keepdim=True)
        unit: Tensor = centered / (torch.linalg.vector_norm(centered, dim=1, keepdim=True) + 1e-8)
        return (unit @ unit.T).clamp(-1, 1)


def label_similarity(labels: Tensor, n_classes: int, dtype: torch.dtype) -> Tensor:
    """Return the same (B, B) for the one-hot codes of labels int64 (B,): 1 within a class, else -1 / (C - 1)."""
    same = (labels[:, None] == labels[None]).to(dtype)
    return (same * n_classes - 1) / (n_classes - 1)


def similarity_mismatch(features: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """Return the mean squared difference, 0-d, between the similarities of the features and those of the labels."""
    found = similarity_matrix(features)
    return (found - label_similarity(labels, n_classes, found.dtype)).square().mean()
