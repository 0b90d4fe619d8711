"""A snapshot among the batches holds the state between them, under every schedule, and nobody waits for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ALPackage import SCHEDULES, Snapshot, StageError, make_schedule
from ALPackage.base import AL
from tests.ALPackage.stage.test_cuda_graph import data, eager, stack

from ..hooked import SEED, assert_equal, losses_of, rate, snapshot

TAKEN = 3
IN_ONE_PROCESS = [name for name in SCHEDULES if name != "distributed"]


def with_snapshot(batches: list[Any], one: Snapshot, after: int = TAKEN) -> Iterator[Any]:
    """Yield the batches, and the snapshot after `after` of them."""
    for number, batch in enumerate(batches):
        if number == after:
            yield one
        yield batch


@pytest.mark.parametrize(
    ("schedule", "options"),
    [("sequential", {}), ("al-fm", {}), *(("continuous", {"workers": n}) for n in range(1, 5))],
)
def test_it_holds_the_state_between_two_batches_and_a_run_can_go_on_from_it(
    schedule: str, options: dict[str, Any]
) -> None:
    batches, expected = data(), stack()
    losses = eager(expected, batches[:TAKEN])
    held: dict[str, Tensor] = snapshot(expected)
    taken, seen = Snapshot(lambda one: seen.append((one.number, len(found)))), []
    found: list[Any] = []
    one = stack()
    with make_schedule(schedule, one, threads=1, seed=SEED, **options) as trainer:
        for pair in trainer.run(with_snapshot(batches, taken), lr=rate):
            found.append(pair)
    assert losses_of(found[:TAKEN]) == losses
    assert len(found) == len(batches)
    assert seen == [(TAKEN, TAKEN)], "it was not ready between the batches that it stands between"
    resumed = stack()
    for name, layer in resumed.items():
        layer.load_state_dict(taken.state[name]["layer"])
        layer.optimizer.load_state_dict(taken.state[name]["optimizer"])
    assert_equal(snapshot(resumed), held)
    assert taken.number == TAKEN
    with make_schedule("sequential", resumed, threads=1, seed=SEED) as trainer:
        rest = losses_of(list(trainer.run(batches[TAKEN:], lr=rate, first=taken.number)))
    assert rest == losses_of(found[TAKEN:])
    assert_equal(snapshot(resumed), snapshot(one))


def test_no_layer_waits_for_another_to_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first layer trains on, and past, the next batch while the last one has not even seen the snapshot."""
    one, batches = stack(2), data()
    taken, ahead = Snapshot(), threading.Event()
    first, last = list(one)
    updates = seen = 0
    update, forward = first.update, last.forward

    def counted() -> None:
        nonlocal updates
        update()
        updates += 1
        if updates == TAKEN + 1:
            ahead.set()

    def held_back(x: Any, y: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == TAKEN:  # on the batch before the snapshot; earlier, the channel between them would be full
            assert ahead.wait(10), "the first layer waited for the last one"
        return forward(x, y)

    # The check before training would call the layers' new methods, which copies share, one time more.
    monkeypatch.setattr("ALPackage.schedules.schedule.check_layers", lambda *_, **__: None)
    monkeypatch.setattr(first, "update", counted)
    monkeypatch.setattr(last, "forward", held_back)
    with make_schedule("continuous", one, workers=2, threads=1, seed=SEED) as trainer:
        list(trainer.run(with_snapshot(batches, taken), lr=rate))
    assert set(taken.state) == {"layer_1", "layer_2"}


def test_the_first_thing_or_the_last_or_nothing_else_may_be_a_snapshot() -> None:
    batches = data()
    for items in ([Snapshot(), *batches, Snapshot()], [Snapshot()], [Snapshot(), Snapshot()]):
        for schedule in IN_ONE_PROCESS:
            with make_schedule(schedule, stack(2), threads=1) as trainer:
                count = len(list(trainer.run(items, first=5)))
            made = [item for item in items if isinstance(item, Snapshot)]
            assert count == len(items) - len(made)
            assert [one.number for one in made] == ([5, 5 + count] if len(made) == 2 else [5])
            assert all(set(one.state) == {"layer_1", "layer_2"} for one in made)


def test_the_copies_are_the_snapshot_s_own() -> None:
    one = stack(1)
    taken = Snapshot()
    taken.take("layer_1", one[0])
    before = taken.state["layer_1"]["layer"]["enc.b.weight"].clone()
    with torch.no_grad():
        one[0].enc.b.weight.add_(1.0)
    assert torch.equal(taken.state["layer_1"]["layer"]["enc.b.weight"], before)
    assert isinstance(one[0].enc.b, nn.Linear)


@pytest.mark.parametrize("schedule", IN_ONE_PROCESS)
def test_a_state_that_cannot_be_taken_is_a_failure_of_its_layer(schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = stack(2)

    def broken(self: AL, *arguments: Any, **options: Any) -> Any:
        raise OSError("no room")

    monkeypatch.setattr(one[1], "state_dict", broken.__get__(one[1]))
    with make_schedule(schedule, one, threads=1) as trainer, pytest.raises(StageError) as caught:
        list(trainer.run(with_snapshot(data(), Snapshot())))
    assert (caught.value.layer, caught.value.batch) == ("layer_2", TAKEN)
    assert isinstance(caught.value.__cause__, OSError)
