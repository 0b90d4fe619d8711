"""What is done once before training: by `prepare`, or by the first batch of `run`; it changes no number."""

from __future__ import annotations

import time
import traceback
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ALPackage import AE, AL, ENC, ALStack, make_schedule
from ALPackage.schedules import schedule as module

from ..hooked import ALL, SEED, Broken, assert_equal, hooked, losses_of, nothing, pairs, plain, rate, snapshot, workers
from .test_schedules import batches, build, reference


class Residual(ENC):
    """Trains one network and predicts with another."""

    def forward(self, x: Any, code: Any) -> tuple[Tensor, Any]:
        hidden = self.f(x) + x
        return self.cri(self.b(hidden), code), hidden


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return the options of every check of the layers that is made."""
    made: list[dict[str, Any]] = []
    check = module.check_layers

    def recorded(stack: ALStack, batch: Any, **options: Any) -> None:
        made.append(options)
        check(stack, batch, **options)

    monkeypatch.setattr(module, "check_layers", recorded)
    return made


@pytest.mark.parametrize("schedule", ALL)
def test_the_layers_are_checked_once_whoever_asks_first(schedule: str, checks: list[dict[str, Any]]) -> None:
    for prepared in (True, False):
        del checks[:]
        stack = hooked(nothing)
        with make_schedule(schedule, stack, threads=1, seed=SEED) as one:
            if prepared:
                one.prepare(pairs(1)[0])
                one.prepare(pairs(1)[0])
                assert len(checks) == 1
            list(one.run(pairs(2), lr=rate))
            list(one.run(pairs(4)[2:], lr=rate, first=2))
        (options,) = checks
        assert options["concurrent"] == (schedule != "sequential")
        assert options["seed"] == SEED
        assert_equal(snapshot(stack), plain(4))


@pytest.mark.parametrize("schedule", ALL)
@pytest.mark.parametrize("model", ["vgg", "lstm", "convolutions"])
def test_preparing_changes_no_number(model: str, schedule: str) -> None:
    stack = build(model)
    before, generator = snapshot(stack), torch.get_rng_state()
    with make_schedule(schedule, stack, threads=1, seed=SEED) as one:
        one.prepare(batches(model)[0])
        assert_equal(snapshot(stack), before)
        assert torch.equal(torch.get_rng_state(), generator)
        losses = losses_of(list(one.run(batches(model), lr=rate)))
    state, expected = reference(model)
    assert_equal(snapshot(stack), state)
    assert losses == expected


@pytest.mark.parametrize("schedule", ALL)
def test_the_check_runs_under_the_callers_autocast(schedule: str, checks: list[dict[str, Any]]) -> None:
    stack = hooked(nothing)
    with torch.autocast("cpu", dtype=torch.bfloat16), make_schedule(schedule, stack, threads=1) as one:
        one.prepare(pairs(1)[0])
    with checks[0]["context"]():
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("schedule", ALL)
def test_a_layer_that_predicts_with_another_network_is_refused_before_it_trains(schedule: str) -> None:
    """Guards a bug: a layer trained one network and predicted with another."""
    for ask in ("prepare", "run"):
        torch.manual_seed(1)
        layer = AL(Residual(nn.Linear(4, 4), nn.Linear(4, 3)), AE(nn.Linear(3, 3), nn.Linear(3, 3)))
        stack = ALStack([layer])
        before = snapshot(stack)
        with make_schedule(schedule, stack, threads=1) as one, pytest.raises(ValueError, match="layer_1"):
            one.prepare(pairs(1)[0]) if ask == "prepare" else list(one.run(pairs(2)))
        assert_equal(snapshot(stack), before)
        assert not workers()


def test_preparing_while_a_run_is_open_is_an_error() -> None:
    with make_schedule("sequential", hooked(nothing), threads=1) as one:
        run = one.run(pairs(2))
        next(run)
        with pytest.raises(RuntimeError, match="open run"):
            one.prepare(pairs(1)[0])
        assert len(list(run)) == 1


def test_from_a_run_to_the_optimizer_there_are_four_frames() -> None:
    """run, _run, backward_and_update, update: whoever debugs a step sees little else than the step."""
    stack = hooked(nothing)
    frames: list[str] = []

    def step(*_: Any) -> None:
        frames.extend(frame.name for frame in traceback.extract_stack() if "/ALPackage/" in frame.filename)
        raise Broken

    stack[0].optimizer.register_step_pre_hook(step)
    with make_schedule("sequential", stack, threads=1) as one, pytest.raises(Exception, match="Broken"):
        list(one.run(pairs(1)))
    own = [name for name in frames if not name.startswith("test_") and name != "step"]
    assert own == ["run", "_run", "backward_and_update", "update"]


@pytest.mark.parametrize("schedule", ALL)
def test_the_busy_time_of_every_layer_is_known(schedule: str) -> None:
    """From these the ceiling of a run follows from times inside the run."""

    def hook(layer: int, batch: int, phase: str) -> None:
        if layer == 1:
            time.sleep(0.005)

    stack = hooked(hook)
    with make_schedule(schedule, stack, threads=1) as one:
        list(one.run(pairs(5)))
        usages = one.usage()
    busy, batches = Counter[str](), Counter[str]()
    for usage in usages:
        busy.update(usage.layer_busy)
        batches.update(usage.layer_batches)
    assert list(busy) == stack.names
    assert batches == dict.fromkeys(stack.names, 5)
    assert sum(usage.batches for usage in usages) == 3 * 5
    assert busy["layer_2"] > 10 * 0.005
    assert min(busy.values()) > 0
    for usage in usages:
        assert 0.8 * usage.busy <= sum(usage.layer_busy.values()) <= 1.001 * usage.busy
