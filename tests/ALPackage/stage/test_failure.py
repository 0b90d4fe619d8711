"""Which of several failures counts."""

from __future__ import annotations

from ALPackage import StageError
from ALPackage.stage.failure import FirstFailure


def test_the_first_failure_counts_and_every_one_stops_the_pipeline() -> None:
    stops: list[str] = []
    failure = FirstFailure(lambda: stops.append("stop"))
    assert failure.pop() is None
    first, second = StageError("a", 1, KeyError()), StageError("b", 2, KeyError())
    failure.report(first)
    failure.report(second)
    assert stops == ["stop", "stop"]
    assert failure.pop() is first
    assert failure.pop() is None, "it is forgotten, because its traceback holds tensors"
