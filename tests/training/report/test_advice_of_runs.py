"""Something is slowed down in a real run of the continuous schedule, and the sentence after it names that."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ALPackage import AE, AL, ENC, ALStack, make_schedule, set_device
from training.report.utilization import Utilization, measure_utilization

# The layers train nothing, which is meant.
pytestmark = pytest.mark.filterwarnings("ignore:no loss has a gradient", "ignore:training and inference disagree")


class Sleeper(AL):
    """A layer that only takes its time."""

    def __init__(self, ms: float) -> None:
        super().__init__(ENC(nn.Linear(1, 1), nn.Identity()), AE(nn.Identity(), nn.Identity()))
        self.ms = ms

    def forward(self, x: Any, y: Any) -> tuple[Any, Any]:
        time.sleep(0.4e-3 * self.ms)
        return x, y

    def losses(self) -> dict[str, Tensor]:
        return {"assoc": torch.zeros(()), "ae": torch.zeros(())}

    def backward_and_update(self) -> None:
        time.sleep(0.6e-3 * self.ms)


def run(
    layers: Sequence[float],
    *,
    loader: float = 0.0,
    places: Sequence[str] = (),
    batches: int = 20,
    epochs: int = 1,
    cores: int = 2,
    workers: int | None = None,
) -> Utilization:
    """Train layers of so many ms on batches that take `loader` ms each, as if the machine had so many cores."""
    stack = ALStack(Sleeper(ms) for ms in layers)
    set_device(stack, list(places) or ["cpu"] * len(layers))
    x, seconds = torch.zeros(1), 0.0

    def load() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(batches):
            time.sleep(loader / 1e3)
            yield x, x

    tied = any(":" in place for place in places)
    count = None if tied and not workers else workers or cores
    with make_schedule("continuous", stack, workers=count, threads=1) as schedule:
        schedule.prepare((x, x))
        for _ in range(epochs):
            begun = time.perf_counter()
            for _ in schedule.run(load()):
                pass
            seconds += time.perf_counter() - begun
        return measure_utilization(
            schedule.usage(),
            seconds,
            dict(zip(stack.names, stack.placement, strict=True)),
            schedule="continuous",
            batches=batches * epochs,
            epochs=epochs,
            cores=cores,
        )


def told(pattern: str, times: Sequence[float], **options: Any) -> Utilization:
    """Return a run after which the sentence is as expected: the first, unless something else slowed that one down."""
    for _ in range(5):
        found = run(times, **options)
        if re.match(f"advice: {pattern}", found.advice):
            return found
    pytest.fail(f"{found.advice}\n{found.text()}")


@pytest.mark.parametrize("slow", [0, 1, 2])
def test_a_layer_that_is_slowed_down_is_named(slow: int) -> None:
    times = [2.0, 2.0, 2.0]
    times[slow] = 25.0
    name = f"layer_{slow + 1}"
    found = told(rf"{name} is \d\d % of the work: more than two workers cannot help", times, batches=12)
    assert found.layers[slow].layer == found.bottleneck == name
    assert found.at_work <= found.ceiling < 2


def test_a_loader_that_is_slowed_down_is_named() -> None:
    found = told(r"the 2 workers wait \d\d % of their time for data", [2.0, 2.0, 2.0], loader=12.0)
    assert max(row.data for row in found.rows) > 15


def test_layers_that_are_tied_to_one_worker_are_named() -> None:
    sentence = r"layer_1, layer_2 and layer_3 with \d\d % of the work are tied to cpu:0"
    found = told(sentence, [4.0] * 4, places=["cpu:0", "cpu:0", "cpu:0", "cpu"], workers=2)
    assert [row.layers for row in found.rows] == [["layer_1", "layer_2", "layer_3", "layer_4"], ["layer_4"]]
    assert found.at_work <= found.ceiling < 2


def test_a_short_run_waits_for_its_own_layers_and_not_for_data() -> None:
    """Guards a fault: at both ends of a run workers waited for each other, which was taken for a wait for data."""
    places = [f"cpu:{number}" for number in range(4)]
    sentence = "an epoch has only 3 batches, so filling and draining weigh"
    found = told(sentence, [8.0] * 4, places=places, batches=3, epochs=2, cores=4)
    assert max(row.data for row in found.rows) < 15
    assert all(row.busy + row.idle + row.data + row.copy == pytest.approx(100) for row in found.rows)


def test_the_wait_for_the_first_batch_of_an_epoch_is_one_for_data() -> None:
    found = told("the 2 workers wait", [4.0] * 3, loader=40.0, batches=1, epochs=3)
    assert max(row.data for row in found.rows) > 30


def test_every_layer_is_found_on_the_workers_that_ran_it() -> None:
    found = run([4.0, 3.0, 3.0], batches=15)
    for one in found.layers:
        assert sum(one.workers.values()) == pytest.approx(100)
        assert set(one.workers) == {row.device for row in found.rows if one.layer in row.ran}
    assert sum(one.share for one in found.layers) == pytest.approx(100)
    assert found.layers[0].ms_per_batch >= 4.0
    assert 0 < found.at_work <= found.ceiling <= 2
