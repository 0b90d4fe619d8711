"""Behind the last layer of a rank: the thread that sends on what has passed.

On the board it is one layer more, which takes one item at a time and before which no more than `depth` wait: so a slow
receiver holds up the layers before it, and what is under way stays bounded.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import RankError, StageError
from .batch import Marker
from .board import Board, Item
from .channel import Closed
from .failure import FirstFailure
from .threads import WorkerThread


class Exit:
    """The thread `al-exit`, which takes what has passed the layers.

    Args:
        worker: Its number among the board's workers.
        layer: Its number among the board's layers.
        name: The layer before it, whose name a failure has.
        board: Where it takes things from.
        failure: What hears of it when sending fails.
        leave: Sends an item, and returns whether the caller gets it too.
    """

    def __init__(
        self, worker: int, layer: int, name: str, board: Board, failure: FirstFailure, leave: Callable[[Item], bool]
    ) -> None:
        self._worker, self._layer, self._name = worker, layer, name
        self._board, self._failure, self._leave = board, failure, leave
        self.thread = WorkerThread(self._work, "al-exit")
        self.thread.stop = failure.stop

    def _work(self) -> None:
        done: int | None = None
        item: Item = None
        try:
            while True:
                done, item, _ = self._board.take(self._worker, done)
                if self._leave(item):
                    self._board.hand_on(self._layer, item)
                item = None  # it may hold a whole layer's state
        except Closed:
            pass
        except (StageError, RankError) as error:
            self._failure.report(error)
        except BaseException as error:  # whatever it is, the caller must hear of it, or it would wait for ever
            number = None if item is None or isinstance(item, Marker) else item.number
            self._failure.report(StageError(self._name, number, error))
