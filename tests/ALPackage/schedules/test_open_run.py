"""What the caller may not do while a run is open: change an optimizer, use the layers, or use another process."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim.lr_scheduler import ExponentialLR, LRScheduler, OneCycleLR, StepLR
from torch.optim.swa_utils import AveragedModel

from ALPackage import AL, ALStack, Snapshot, StageError, make_schedule
from ALPackage.schedules.schedule import Schedule

from ..hooked import ALL, assert_equal, snapshot
from ..one_layer import dense_batches, dense_layer

Loop = Callable[[ALStack, Schedule], None]


def stack(kind: type[AL] = AL, **options: Any) -> ALStack:
    torch.manual_seed(0)
    return ALStack([dense_layer(6, 5, 3, 4, kind, **options), dense_layer(5, 5, 4, 4, kind, **options)])


def batches(count: int = 12) -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(1)
    return dense_batches(count)


def rate(number: int) -> float:
    return 0.01 / (1 + number)


# --- optimizers -------------------------------------------------------------------------------------------------------


def schedulers(one: ALStack, kind: Callable[[Any], LRScheduler] = lambda o: ExponentialLR(o, 0.9)) -> list[Any]:
    return [kind(layer.optimizer) for layer in one]


def stepped(**options: Any) -> Loop:
    def loop(one: ALStack, schedule: Schedule) -> None:
        of_layers = schedulers(one)
        for _ in schedule.run(batches(), **options):
            for scheduler in of_layers:
                scheduler.step()

    return loop


def at(number: int, act: Callable[[ALStack], None], then_break: bool = False, **options: Any) -> Loop:
    def loop(one: ALStack, schedule: Schedule) -> None:
        for current, _ in enumerate(schedule.run(batches(), **options)):
            if current == number:
                act(one)
                if then_break:
                    break

    return loop


def halve(one: ALStack) -> None:
    one[0].set_lr(0.0321)


def decay(one: ALStack) -> None:
    one[1].optimizer.param_groups[1]["weight_decay"] = 0.5


def exchange(one: ALStack) -> None:
    one[1].optimizer = torch.optim.SGD(one[1].parameters(), 0.1)


def from_loader(one: ALStack, schedule: Schedule) -> None:
    def loader() -> Iterator[tuple[Tensor, Tensor]]:
        for number, batch in enumerate(batches()):
            if number == 5:
                halve(one)
            yield batch

    list(schedule.run(loader()))


def from_snapshot(one: ALStack, schedule: Schedule) -> None:
    list(schedule.run([*batches(3), Snapshot(lambda _: halve(one)), *batches(3)]))


CHANGES: dict[str, Loop] = {
    "a scheduler": stepped(),
    "a scheduler and lr": stepped(lr=rate),
    "set_lr": at(4, halve),
    "set_lr and lr": at(4, halve, lr=rate),
    "set_lr after the last batch": at(11, halve),
    "set_lr after the last batch and lr": at(11, halve, lr=rate),
    "weight decay": at(4, decay),
    "weight decay and lr": at(4, decay, lr=rate),
    "another optimizer": at(4, exchange),
    "set_lr, then break": at(4, halve, then_break=True),
    "in the loader": from_loader,
    "in a snapshot's callback": from_snapshot,
}


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("schedule", ALL)
def test_an_optimizer_that_changes_while_a_run_is_open_is_an_error(schedule: str, kind: str) -> None:
    """Guards a bug: the rate of a batch under way changed, and three runs had three results."""
    one = stack()
    with (
        pytest.raises(RuntimeError, match=r"the optimizer of layer 'layer_\d' was changed while a run") as caught,
        make_schedule(schedule, one, threads=1) as made,
    ):
        CHANGES[kind](one, made)
    assert r"run(lr=..)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_message_names_layer_group_and_values() -> None:
    one = stack(lr=0.5)
    with (
        make_schedule("sequential", one, threads=1) as made,
        pytest.raises(RuntimeError, match=r"'layer_2' .*\(weight_decay from 0 to 0\.5 in group 'ae'\)"),
    ):
        at(2, decay)(one, made)


@pytest.mark.parametrize("schedule", ALL)
def test_a_rate_in_a_tensor_is_watched_too(schedule: str) -> None:
    one = stack()
    for layer in one:
        for group in layer.optimizer.param_groups:
            group.update(lr=torch.tensor(0.01), foreach=False)
    with make_schedule(schedule, one, threads=1) as made:
        list(made.run(batches()))
        halve(one)
        list(made.run(batches()))
    with pytest.raises(RuntimeError, match=r"\(lr in group 'enc'\)"), make_schedule(schedule, one, threads=1) as made:
        at(4, halve)(one, made)


@pytest.mark.parametrize("kind", [lambda o: StepLR(o, 1, 0.5), lambda o: OneCycleLR(o, 0.1, total_steps=9)])
def test_between_two_runs_everything_may_change(kind: Callable[[Any], LRScheduler]) -> None:
    found = []
    for schedule in ALL:
        one = stack()
        of_layers = schedulers(one, kind)
        with make_schedule(schedule, one, threads=1) as made:
            for epoch in range(3):
                list(made.run(batches(4), first=4 * epoch))
                for scheduler in of_layers:
                    scheduler.step()
                decay(one)
        found.append(snapshot(one))
    assert_equal(found[1], found[0])
    assert_equal(found[2], found[0])


class ScheduleFree(torch.optim.SGD):
    """An optimizer from elsewhere, which keeps a count and a maximum in its groups."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["k"] = group.get("k", 0) + 1
            group["lr_max"] = max(group.get("lr_max", 0.0), group["lr"])
        super().step(closure)


class WithScheduler(AL):
    """A layer that steps a scheduler of its own, which changes nothing for some batches."""

    def __init__(self, *parts: Any, **options: Any) -> None:
        super().__init__(*parts, **options)
        self.scheduler = StepLR(self.optimizer, 5, 0.5)

    def update(self) -> None:
        super().update()
        self.scheduler.step()


class Decaying(AL):
    """A layer whose update changes its own rate."""

    def update(self) -> None:
        super().update()
        for group in self.optimizer.param_groups:
            group["lr"] *= 0.9


class WithSchedulers(AL):
    """A layer that keeps its schedulers in a list."""

    def __init__(self, *parts: Any, **options: Any) -> None:
        super().__init__(*parts, **options)
        self.schedulers = [StepLR(self.optimizer, 5, 0.5)]

    def update(self) -> None:
        super().update()
        for scheduler in self.schedulers:
            scheduler.step()


def scheduled_by_hooks() -> ALStack:
    """Return layers whose optimizers step a scheduler after their own step."""
    one = stack()
    for layer in one:
        scheduler = StepLR(layer.optimizer, 5, 0.5)
        layer.optimizer.register_step_post_hook(lambda *_, scheduler=scheduler: scheduler.step())
    return one


@pytest.mark.parametrize(
    "make",
    [
        lambda: stack(optimizer=ScheduleFree),
        lambda: stack(WithScheduler),
        lambda: stack(WithSchedulers),
        lambda: stack(Decaying),
        scheduled_by_hooks,
    ],
)
def test_what_a_layer_changes_by_itself_is_its_own_business(make: Callable[[], ALStack]) -> None:
    found = []
    for schedule in ALL:
        one = make()
        with make_schedule(schedule, one, threads=1) as made:
            for first in (0, 12):
                assert len(list(made.run(batches(), first=first))) == 12
        found.append(snapshot(one))
    assert_equal(found[1], found[0])
    assert_equal(found[2], found[0])


# --- layers -----------------------------------------------------------------------------------------------------------

USES: dict[str, Callable[[ALStack], object]] = {
    "a layer's inference": lambda one: one[0].inference(batches(1)[0][0], "f"),
    "an average of the weights": lambda one: AveragedModel(stack()).update_parameters(one),
    "eval": lambda one: one.eval(),
    "a layer's eval": lambda one: one[0].eval(),
    "inference": lambda one: one.inference(batches(1)[0][0]),
    "inference_by_depth": lambda one: one.inference_by_depth(batches(1)[0][0]),
    "forward": lambda one: one(*batches(1)[0]),
    "state_dict": lambda one: one.state_dict(),
    "a layer's state_dict": lambda one: one[0].state_dict(),
    "load_state_dict": lambda one: one.load_state_dict({}),
    "a layer's load_state_dict": lambda one: one[0].load_state_dict({}),
    "requires_grad_": lambda one: one.requires_grad_(False),
    "a layer's requires_grad_": lambda one: one[0].requires_grad_(False),
    "half": lambda one: one.half(),
    "a layer's to": lambda one: one[0].to(torch.float64),
    "reset_optimizer": lambda one: one[0].reset_optimizer(),
    "deepcopy": copy.deepcopy,
    "pickle": pickle.dumps,
    "another schedule": lambda one: list(make_schedule("sequential", one, threads=1).run(batches(1))),
}


@pytest.mark.parametrize("kind", USES)
def test_layers_that_other_threads_train_cannot_be_used_meanwhile(kind: str) -> None:
    """Guards a bug: predictions, states and modes were a mixture that depended on timing."""
    one = stack()
    with make_schedule("continuous", one, threads=1) as made:
        run = made.run(batches())
        next(run)
        with pytest.raises(RuntimeError, match=r"a run of the continuous schedule is open.*Snapshot") as caught:
            USES[kind](one)
        assert "\n" not in str(caught.value)
        run.close()
    if "load" not in kind:
        USES[kind](one)


def test_where_no_layer_is_at_work_meanwhile_they_can() -> None:
    for schedule in ("sequential", "al-fm"):
        one = stack()
        with make_schedule(schedule, one, threads=1) as made:
            for _ in made.run(batches(2)):
                one.eval().inference(batches(1)[0][0])
                one.train().state_dict()


def test_layers_exchanged_since_the_schedule_was_made_are_refused() -> None:
    one = stack()
    with make_schedule("continuous", one, threads=1) as made:
        one.layers["layer_2"] = dense_layer(5, 5, 4, 4)
        with pytest.raises(RuntimeError, match="other layers than when this schedule was made"):
            list(made.run(batches(1)))


def test_a_target_that_would_never_train_is_refused() -> None:
    one = ALStack([dense_layer(6, 5, 3, 4)], target=torch.nn.Linear(3, 3))
    data = batches(1)
    with make_schedule("continuous", one, threads=1) as made:
        with pytest.raises(ValueError, match=r"the stack's target: weight would never train.*requires_grad_\(False\)"):
            list(made.run(data))
        assert isinstance(one.target, torch.nn.Module)
        one.target.requires_grad_(False)
        assert len(list(made.run(data))) == 1


def test_weights_tied_since_the_stack_was_made_are_refused() -> None:
    one = stack()
    one[1].enc.f[1] = one[0].enc.b
    with make_schedule("continuous", one, threads=1) as made, pytest.raises(ValueError, match=r"share 'enc\.b\.w"):
        list(made.run(batches(1)))
    two = stack()
    two[0].ae.g.weight = two[0].ae.h.weight = torch.nn.Parameter(torch.zeros(3, 3))
    two[0].enc.b.weight = two[0].ae.h.weight
    with make_schedule("sequential", two, threads=1) as made, pytest.raises(ValueError, match="one weight"):
        list(made.run(batches(1)))


# --- loaders ----------------------------------------------------------------------------------------------------------


def test_a_loader_that_writes_into_an_array_it_has_handed_on_is_refused() -> None:
    """Guards a bug: the array behind a tensor changes without a trace in its version, and results were random."""
    slots, data = np.zeros((7, 7, 6), np.float32), batches(12)

    def loader(ring: int) -> Iterator[tuple[Tensor, Tensor]]:
        for number, (x, y) in enumerate(data):
            slots[number % ring] = x.numpy()
            yield torch.from_numpy(slots[number % ring]), y

    for ring in (2, 6):  # two stages may hold six batches
        with (
            make_schedule("continuous", stack(), threads=1) as made,
            pytest.raises(StageError, match=rf"loader failed on batch {ring}: .*changed the memory of a batch"),
        ):
            list(made.run(loader(ring)))
    with make_schedule("continuous", stack(), threads=1) as made:
        assert len(list(made.run(loader(7)))) == 12, "when memory is used again, nobody reads it any more"
    with make_schedule("continuous", stack(), threads=1) as made:
        for batch in data:
            slots[0] = batch[0].numpy()
            list(made.run([(torch.from_numpy(slots[0]), batch[1])]))  # nobody reads the last run's any more


class Fields(dict[str, Tensor]):
    """A batch as tokenizers make them."""


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"x": 1, "y": 2}, r"a dict with the keys 'x', 'y'; expected a pair \(x, y\).*for batch in loader"),
        (Fields(input_ids=torch.zeros(1), labels=torch.zeros(1)), "a Fields with the keys 'input_ids', 'labels'"),
        ((1, 2.0, "a"), r"a tuple of 3 \(int, float, str\)"),
        ([torch.zeros(2)], r"a list of 1 \(Tensor\)"),
        (torch.zeros(2, 6), r"a tensor of shape \(2, 6\)"),
        ("ab", "an object of type str"),
    ],
)
def test_a_batch_that_is_no_pair_is_described(item: Any, words: str) -> None:
    """Guards a bug: what has two parts by chance, such as a dict of two, was taken apart."""
    with make_schedule("continuous", stack(), threads=1) as made:
        with pytest.raises(TypeError, match=f"the loader yielded {words}"):
            made.prepare(item)
        with pytest.raises(StageError, match=f"loader failed on batch 1: TypeError: the loader yielded {words}"):
            list(made.run([batches(1)[0], item]))


# --- processes --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_schedule_with_threads_ends_at_once_in_a_forked_process() -> None:
    """Guards a bug: the child waited for ever for threads that only its parent has."""
    made = make_schedule("continuous", stack(), threads=1)
    run = made.run(batches(30))
    next(run)
    answers: Any = multiprocessing.get_context("fork").SimpleQueue()

    def child() -> None:
        for call in (lambda: list(run), lambda: list(made.run(batches(1))), lambda: made.prepare(batches(1)[0])):
            try:
                call()
            except BaseException as error:
                answers.put(f"{type(error).__name__}: {error}")
        made.close()
        answers.put("closed")

    process = multiprocessing.get_context("fork").Process(target=child, daemon=True)
    process.start()
    process.join(10)
    alive = process.is_alive()
    process.kill()
    assert not alive
    found = [answers.get() for _ in range(4)]
    assert all("make the schedule in the process that uses it" in answer for answer in found[:3]), found
    assert found[3] == "closed"
    assert len(list(run)) == 29, "the parent goes on"
    made.close()


@pytest.mark.parametrize("schedule", ALL)
def test_a_schedule_is_neither_copied_nor_pickled(schedule: str) -> None:
    with make_schedule(schedule, stack(), threads=1) as made:
        for call in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match=f"a {schedule} schedule cannot be copied or pickled"):
                call(made)
