"""The progress bar of an epoch."""

from __future__ import annotations

import time
from collections.abc import Mapping

from torch import Tensor
from tqdm import tqdm

from data.batches import Batches


class ProgressBar:
    """Shows samples/s and the last layer's losses; silent where stderr is no terminal.

    Losses are read from the device twice a second at most, because each reading makes the host wait.
    """

    def __init__(self, label: str, batches: Batches) -> None:
        sizes = [stop - start for start, stop in batches.bounds]
        self._sizes = iter(sizes[batches.done :])
        self._bar = tqdm(
            total=len(batches.split),
            # What an earlier process trained counts as done.
            initial=sum(sizes[: batches.done]),
            desc=label,
            unit=" samples",
            leave=False,
            disable=None,
        )
        self._shown = 0.0

    def __call__(self, losses: Mapping[str, Tensor]) -> None:
        self._bar.update(next(self._sizes))
        if not self._bar.disable and time.monotonic() - self._shown > 0.5:
            self._shown = time.monotonic()
            self._bar.set_postfix({name: f"{float(loss):.3f}" for name, loss in losses.items()})

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
