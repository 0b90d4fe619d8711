"""What can go wrong in a layer or with a placement."""

from __future__ import annotations

import pickle
from typing import Any


class StageError(RuntimeError):
    """A layer failed on a batch (None: while its worker started); the original exception is the `__cause__`.

    What fails while a batch is made has the layer "loader" (the iterable of batches), "target" (the stack's) or
    "lr" (the caller's).
    """

    def __init__(self, layer: str, batch: int | None, cause: BaseException) -> None:
        when = "before its first batch" if batch is None else f"on batch {batch}"
        who = layer if layer in ("loader", "target", "lr") else f"layer {layer!r}"
        try:
            words = str(cause)
        except Exception:  # a failure that cannot even be told must still be one
            words = "(without words: its __str__ failed)"
        super().__init__(f"{who} failed {when}: {type(cause).__name__}: {words}")
        self.layer = layer
        self.batch = batch
        self.__cause__ = cause

    def __reduce__(self) -> tuple[Any, ...]:
        """Cross a process boundary: with the cause where it can be pickled, else with its words."""
        cause = self.__cause__
        try:
            pickle.loads(pickle.dumps(cause))
        except Exception:  # whatever a user's exception does when it is pickled
            cause = RuntimeError(f"{type(cause).__name__}: {cause}")
        return _rebuild, (str(self), self.layer, self.batch, cause)


def _rebuild(message: str, layer: str, batch: int | None, cause: BaseException) -> StageError:
    error = StageError(layer, batch, cause)
    error.args = (message,)
    return error


class PlacementError(ValueError):
    """A device list that does not fit the model or the machine; the message is one line and says the remedy."""
