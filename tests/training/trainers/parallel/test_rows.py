"""Every row counts once, whatever the number of ranks."""

from __future__ import annotations

import pytest

from training.trainers.parallel.rows import share
from training.trainers.parallel.upcoming import Upcoming


@pytest.mark.parametrize("least", [1, 2])
@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_the_rows_are_divided_and_their_means_weighted(world: int, least: int) -> None:
    for total in range(1, 14):
        shares = [share(total, world, rank, least) for rank in range(world)]
        counted = [rows for rows in shares if rows.weight]
        assert [row for rows in counted for row in range(rows.start, rows.stop)] == list(range(total))
        assert sum(rows.weight for rows in shares) == pytest.approx(world)
        sizes = [rows.stop - rows.start for rows in counted]
        assert sizes == sorted(sizes, reverse=True)
        assert max(sizes) - min(sizes) <= 1
        assert all(rows.stop - rows.start >= min(least, total) for rows in shares)


def test_the_batch_of_a_step_is_found_and_made_once() -> None:
    made = []

    def epoch(number: int, done: int) -> list[tuple[int, int]]:
        made.append((number, done))
        return [(number, batch) for batch in range(done, 3)]  # type: ignore[return-value]

    batches = Upcoming(epoch, 3)  # type: ignore[arg-type]
    assert batches.take(1) == (1, 1)
    batches.prepare(2)
    assert [batches.take(step) for step in (2, 3, 4)] == [(1, 2), (2, 0), (2, 1)]
    assert made == [(1, 1), (2, 0)]
    assert batches.take(0) == (1, 0), "as the first turn does after the rehearsal"
