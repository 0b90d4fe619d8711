"""How sure a prediction is. Whatever the kind, more is surer, and 0 is the least.

Legend: B rows, C classes, L depths, N samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

#: "agreement" is told from several depths, see `Streak`; the others from one.
CONFIDENCES = ("probability", "margin", "entropy", "agreement")
#: The search for a temperature: its bounds, as the logarithm of its inverse, and how often the interval is halved.
LEAST, MOST, HALVINGS = math.log(1e-3), math.log(1e4), 24


def certainty(kind: str, logits: Tensor, temperature: float) -> Tensor:
    """Return the confidence float (B,) in [0, 1] of logits (B, C); 0 where a logit is not a number.

    "probability": the largest of softmax(logits / temperature); "margin": the difference of the two largest; "entropy":
    one minus the entropy over that of C equal classes.
    """
    log_p = torch.log_softmax(logits.float() / temperature, dim=1)
    if kind == "entropy":
        entropy = torch.special.entr(log_p.exp()).sum(1)
        sure = 1.0 - entropy / math.log(logits.shape[1])
    else:
        largest = log_p.topk(2, dim=1).values.exp()
        sure = largest[:, 0] if kind == "probability" else largest[:, 0] - largest[:, 1]
    bounded: Tensor = sure.nan_to_num(nan=0.0).clamp(0.0, 1.0)
    return bounded


class Streak:
    """Of every row, how many depths in a row predict the same class, up to the last one (Zhou et al. 2020, PABEE)."""

    def __init__(self) -> None:
        self._classes: Tensor | None = None
        self._length: Tensor | None = None

    def add(self, logits: Tensor) -> Tensor:
        """Take the logits (B, C) of the next depth, and return the lengths, float (B,), at least 1."""
        classes = logits.argmax(1)
        length = torch.ones_like(classes, dtype=torch.float32)
        if self._classes is not None and self._length is not None:
            length += self._length * (classes == self._classes)
        self._classes, self._length = classes, length
        return length

    def keep(self, kept: Tensor) -> None:
        """Go on with some of the rows, bool (B,)."""
        if self._classes is not None and self._length is not None:
            self._classes, self._length = self._classes[kept], self._length[kept]


def confidences(kind: str, logits: Sequence[Tensor], temperatures: Sequence[float]) -> Tensor:
    """Return the confidence (L, N) at every depth, from logits (N, C) per depth."""
    if kind == "agreement":
        streak = Streak()
        return torch.stack([streak.add(one) for one in logits])
    return torch.stack([certainty(kind, *pair) for pair in zip(logits, temperatures, strict=True)])


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature whose softmax(logits / temperature) fits the labels best (Guo et al. 2017, section 4.2).

    That is by the mean cross-entropy, which is convex in the inverse of the temperature: the zero of its slope is found
    by halving an interval. One more sample, of all classes alike, keeps the temperature above 0 where every sample is
    right.
    """
    logits = logits.double() if logits.device.type != "mps" else logits.float()
    own = logits.gather(1, labels[:, None]).sum()
    own = own + logits.mean()
    low, high = LEAST, MOST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        expected = (torch.softmax(logits * math.exp(middle), dim=1) * logits).sum(1)
        rising = expected.sum() + expected.mean() > own
        low, high = (low, middle) if rising else (middle, high)
    return float(f"{math.exp(-(low + high) / 2):.4g}")
