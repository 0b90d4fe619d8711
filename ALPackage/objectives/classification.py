"""The AL layer of a classifier, whose target is a table with one code per class, and the labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..base import AL, means_over_rows
from ..randomness import Dropout, dropouts
from ..rows import join_rows, take_rows
from .association import Association, Reconstruction
from .codes import TABLE


class ClassifierAL(AL):
    """An AL layer with the losses of `objectives.association`: its target is (table (C, d), labels (B,)).

    Replicas divide the labels among themselves; each has the whole table, and computes the same codes from it.
    """

    takes = hands_on = TABLE

    @property
    def row_separable(self) -> bool:  # type: ignore[override]
        """Whether both criteria are means over rows, as those of `objectives.association` are."""
        pairs = ((self.enc.cri, Association), (self.ae.cri, Reconstruction))
        return self.unchanged and all(type(cri) is kind or means_over_rows(cri) for cri, kind in pairs)

    def row_dropouts(self) -> list[Dropout]:
        """Return the `Dropout`s of the input side; those of g and h see the table."""
        return dropouts(self.enc)

    def probabilities(self, prediction: Tensor) -> Tensor:
        """Return a prediction (B, C) of a stack whose first layer this is as probabilities, float (B, C).

        The auto-encoder loss knows how (see `Reconstruction.probabilities`); one that does not leaves it to softmax.
        """
        read = getattr(self.ae.cri, "probabilities", None)
        return torch.softmax(prediction.float(), dim=1) if read is None else read(prediction)

    def split(self, x: Any, y: Any, start: int, stop: int) -> tuple[Any, Any]:
        """Return the rows from `start` to before `stop` of the input and the labels, with the whole table."""
        if y is not None:
            table, labels = y
            y = table, take_rows(labels, start, stop, self.rows(x))
        return take_rows(x, start, stop, self.rows(x)), y

    def join(self, parts: Sequence[tuple[Any, Any]]) -> tuple[Any, Any]:
        """Return the input and the target with the rows of all parts."""
        x = join_rows([x for x, _ in parts])
        if parts[0][1] is None:
            return x, None
        return x, (parts[0][1][0], join_rows([labels for _, (_, labels) in parts]))
