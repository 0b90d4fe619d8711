"""The handwritten digits that come with scikit-learn: 1,797 gray images of 8x8 pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ALPackage.randomness import generator

from .images import Images


def load(_root: Path, _image_size: int) -> Images:
    """Read the digits from scikit-learn. They have no official test set: a fifth of each class, always the same, is."""
    from sklearn.datasets import load_digits  # slow to import, and no other data set needs it

    bunch = load_digits()
    images = torch.from_numpy(np.rint(bunch.images * (255 / 16)).astype(np.uint8))[:, None]
    labels = torch.from_numpy(bunch.target).long()
    # A constant stream, whatever the user's seed: the test set is the same in all runs that may ever be compared.
    shuffled = torch.randperm(len(labels), generator=generator("digits", "test"))
    order = shuffled[labels[shuffled].argsort(stable=True)]
    rank_in_class = torch.cat([torch.arange(int(count)) for count in labels.bincount()])
    test = rank_in_class % 5 == 0
    return Images(
        [str(digit) for digit in bunch.target_names],
        (images[order[~test]], labels[order[~test]]),
        (images[order[test]], labels[order[test]]),
    )
