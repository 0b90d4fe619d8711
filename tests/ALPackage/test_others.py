"""Networks that nobody here wrote train alike under every schedule, and learn."""

from __future__ import annotations

import warnings

import pytest
import torch

from ALPackage import make_schedule, to_al
from ALPackage.convert import ConvertedStack

from .hooked import SEED, assert_equal, snapshot
from .others import CLASSES, NETWORKS, batches

pytestmark = pytest.mark.timeout(300)


def stack_of(name: str) -> ConvertedStack:
    make, size = NETWORKS[name]
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return to_al(make(), CLASSES, example=batches(size, 1)[0][0], lr=2e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_twenty_steps_are_the_same_under_every_schedule(name: str) -> None:
    states = []
    data = batches(NETWORKS[name][1], 20)
    for schedule in ("sequential", "al-fm", "continuous"):
        stack = stack_of(name)
        with make_schedule(schedule, stack, threads=1, seed=SEED) as one:
            assert len(list(one.run(data))) == 20
        states.append(snapshot(stack))
    assert_equal(states[0], states[1])
    assert_equal(states[0], states[2])


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_few_hundred_steps_are_better_than_chance_on_unseen_samples(name: str) -> None:
    size, stack = NETWORKS[name][1], stack_of(name)
    steps = 320
    with make_schedule("continuous", stack, threads=1, seed=SEED) as one:
        seen = batches(size, 40)
        for start in range(0, steps, len(seen)):
            list(one.run(seen[: steps - start], first=start))
    stack.eval()
    unseen = batches(size, 10, "test")
    right = sum(int((stack.inference(x).argmax(1) == y).sum()) for x, y in unseen)
    assert right > 2 * 320 / CLASSES, f"{right} of 320"
    exported = stack.export().eval()
    with torch.no_grad():
        torch.testing.assert_close(exported(unseen[0][0]), stack.inference(unseen[0][0]))
