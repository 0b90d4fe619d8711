"""What the schedules accept: layers of the user's own, numbers of threads, and modules whose randomness is shared."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ALPackage import AE, AL, ENC, SCHEDULES, ALStack, StageError, make_schedule
from ALPackage.stage.threads import process_threads, worker_threads

from ..hooked import (
    ALL,
    CONCURRENT,
    Broken,
    assert_equal,
    break_at,
    hooked,
    nothing,
    pairs,
    plain,
    rate,
    snapshot,
    train,
    workers,
)


class Whole(AL):
    """Replaces forward, backward and loss wholly and uses nothing of the base class but the optimizer."""

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        hidden, code = self.enc.f(x), self.ae.g(y)
        self.own = F.l1_loss(self.enc.b(hidden), code.detach()), F.l1_loss(self.ae.h(code), y)
        return hidden.detach(), code.detach()

    def loss(self) -> tuple[Tensor, Tensor]:
        return self.own[0].detach(), self.own[1].detach()

    def backward(self) -> None:
        sum(self.own).backward()  # type: ignore[union-attr]


class Counted(AL):
    """Counts the calls of every method that a schedule may call."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.calls: dict[str, int] = {"backward": 0, "update": 0, "backward_and_update": 0}

    def backward(self) -> None:
        self.calls["backward"] += 1
        super().backward()

    def update(self) -> None:
        self.calls["update"] += 1
        super().update()

    def backward_and_update(self) -> None:
        self.calls["backward_and_update"] += 1
        super().backward_and_update()


@pytest.mark.parametrize("schedule", ALL)
def test_a_wholly_replaced_layer_trains_in_every_schedule_and_reports_its_own_losses(schedule: str) -> None:
    """Guards a bug: the engine needed private attributes of the base class."""
    stack, twin = hooked(nothing, kind=Whole), hooked(nothing, kind=Whole)
    losses = train(schedule, stack, pairs())
    expected: list[list[tuple[float, ...]]] = []
    for step, (x, y) in enumerate(pairs()):
        expected.append([])
        for layer in twin:
            layer.set_lr(rate(step))
            x, y = layer(x, y)
            expected[-1].append(tuple(loss.item() for loss in layer.loss()))
            layer.backward_and_update()
    assert losses == expected
    assert_equal(snapshot(stack), snapshot(twin))


@pytest.mark.parametrize("schedule", ALL)
def test_overrides_of_every_step_are_called_once_per_batch(schedule: str) -> None:
    stack = hooked(nothing, kind=Counted)
    train(schedule, stack, pairs(4))
    assert [layer.calls for layer in stack] == [dict.fromkeys(("backward", "update", "backward_and_update"), 4)] * 3
    assert_equal(snapshot(stack), plain(4))


def test_an_unknown_schedule_lists_the_right_ones() -> None:
    assert list(SCHEDULES) == [*ALL, "distributed"]  # which needs a process group
    with pytest.raises(ValueError, match="sequential, al-fm, continuous"):
        make_schedule("gpipe", hooked(nothing))


class LastOf(nn.Module):
    """A recurrent network as f: (B, 4) as a sequence of one position."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.rnn = nn.LSTM(4, 4, num_layers=2, dropout=dropout, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.rnn(x[:, None])[0][:, 0]
        return out


class SelfAttention(nn.Module):
    """Attention as f: (B, 4) as one sequence."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, dropout=dropout)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.attention(x, x, x)[0]
        return out


def with_f(f: nn.Module) -> ALStack:
    """Return a stack of two layers, the second of which has this f."""
    first = AL(ENC(nn.Linear(4, 4), nn.Linear(4, 3)), AE(nn.Linear(3, 3), nn.Linear(3, 3)))
    return ALStack([first, AL(ENC(f, nn.Linear(4, 3)), AE(nn.Linear(3, 3), nn.Linear(3, 3)))])


class Functional(nn.Module):
    """A dropout as f that no list of module types would find."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


@pytest.mark.parametrize(
    "make", [lambda p: nn.Sequential(nn.Linear(4, 4), nn.Dropout(p)), LastOf, SelfAttention, Functional]
)
def test_shared_randomness_is_refused_where_layers_train_at_once(make: Callable[[float], nn.Module]) -> None:
    """Guards a bug: what draws from the process-wide generator is found by its draws, before anything trains."""
    for schedule in CONCURRENT:
        for call in (lambda one: one.prepare(pairs(1)[0]), lambda one: list(one.run(pairs(2)))):
            stack = with_f(make(0.1))
            before = snapshot(stack)
            with make_schedule(schedule, stack, threads=1) as one, pytest.raises(ValueError, match="layer_2") as caught:
                call(one)
            assert "\n" not in str(caught.value)
            assert 'schedule="sequential"' in str(caught.value)
            assert not workers()
            assert_equal(snapshot(stack), before)
        with make_schedule(schedule, with_f(make(0.0)), threads=1) as one:
            assert len(list(one.run(pairs(2)))) == 2
    with make_schedule("sequential", with_f(make(0.1)), threads=1) as one:
        one.prepare(pairs(1)[0])
        assert len(list(one.run(pairs(2)))) == 2


@pytest.mark.parametrize(
    ("asked", "threads"),
    [(None, None), ("3", 3), (" 6 ", 6), ("4,2", 4), ("", None), ("0", None), ("many", None), ("-1", None)],
)
def test_threads_are_those_that_were_asked_for_or_one_per_worker_and_all_for_a_process(
    asked: str | None, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if asked is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert worker_threads() == (threads or 1)
    assert process_threads() == (threads or 8)


def test_a_schedule_takes_the_default_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert make_schedule("sequential", hooked(nothing)).threads == 3
    assert make_schedule("sequential", hooked(nothing), threads=2).threads == 2


@pytest.mark.parametrize("schedule", ALL)
def test_every_layer_works_with_the_same_number_of_threads(schedule: str) -> None:
    seen: set[tuple[str, int]] = set()

    def hook(layer: int, batch: int, phase: str) -> None:
        seen.add((phase, torch.get_num_threads()))

    with make_schedule(schedule, hooked(hook), threads=2) as one:
        list(one.run(pairs(3)))
    assert seen == {("forward", 2), ("backward", 2)}


@pytest.mark.parametrize("end", ["end", "break", "failure", "loader"])
@pytest.mark.parametrize("schedule", ALL)
def test_the_callers_thread_count_is_restored(schedule: str, end: str) -> None:
    hook = break_at(1, 1, "forward", Broken()) if end == "failure" else nothing
    data: Any = [*pairs(2), None] if end == "loader" else pairs(3)
    torch.set_num_threads(1)
    with make_schedule(schedule, hooked(hook), threads=2) as one:
        try:
            for _ in one.run(data):
                if end == "break":
                    break
        except (StageError, TypeError):
            assert end in ("failure", "loader")
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("schedule", ALL)
def test_the_caller_keeps_its_thread_count_between_batches(schedule: str) -> None:
    """Guards a bug: a suspended run had changed the count for everyone else."""
    torch.set_num_threads(1)
    with make_schedule(schedule, hooked(nothing), threads=2) as one:
        for _ in one.run(pairs(3)):
            assert torch.get_num_threads() == 1
            torch.set_num_threads(3)
            break
        assert torch.get_num_threads() == 3, "what the caller sets meanwhile is its own"
        torch.set_num_threads(1)
        assert [torch.get_num_threads() for _ in one.predict([x for x, _ in pairs(2)])] == [1, 1]


@pytest.mark.parametrize("first_closed", [0, 1])
def test_runs_that_overlap_leave_the_thread_count_as_it_was(first_closed: int) -> None:
    """Guards a bug: two runs, the first closed before the second, left one thread for good."""
    seen: list[set[int]] = [set(), set()]
    torch.set_num_threads(4)
    try:
        runs: list[Any] = []
        for number, threads in enumerate((1, 2)):
            stack = hooked(lambda *_, number=number: seen[number].add(torch.get_num_threads()))
            runs.append(make_schedule("sequential", stack, threads=threads).run(pairs(4)))
        for _ in range(2):
            for run in runs:
                next(run)
        runs[first_closed].close()
        next(runs[1 - first_closed])
        runs[1 - first_closed].close()
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(1)
    assert seen == [{1}, {2}], "a run computed with the other's count, so its sums had another order"


@pytest.mark.parametrize("threads", [0, -1])
@pytest.mark.parametrize("schedule", ALL)
def test_an_impossible_number_of_threads_is_refused_at_once(schedule: str, threads: int) -> None:
    with pytest.raises(ValueError, match="threads"):
        make_schedule(schedule, hooked(nothing), threads=threads)
    assert not workers()
