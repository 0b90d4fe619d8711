"""The benchmark's bounds against schedules worked out by hand."""

from __future__ import annotations

import pytest

from benchmarks.pipeline.bounds import (
    Cost,
    ceiling,
    continuous,
    cuts,
    gpipe_order,
    joined,
    joined_on_devices,
    one_f_one_b_order,
    pipelined,
)

BALANCED = [Cost(1.0, 2.0), Cost(1.0, 2.0)]
UNEQUAL = [Cost(1.0, 1.0), Cost(2.0, 4.0)]


def test_cuts_are_contiguous_and_complete() -> None:
    assert cuts(4) == [[1, 3], [2, 2], [3, 1]]
    assert cuts(4, 3) == [[1, 1, 2], [1, 2, 1], [2, 1, 1]]
    assert cuts(3, 1) == [[3]]


def test_the_ceiling_is_the_sum_over_the_busiest_stage() -> None:
    layers = [Cost(1.0, 2.0, 1.0), Cost(1.0, 1.0), Cost(0.5, 0.5), Cost(0.5, 0.5)]
    assert ceiling(layers, [1, 3]) == pytest.approx(8.0 / 4.0)
    assert ceiling(layers, [2, 2]) == pytest.approx(8.0 / 6.0)


@pytest.mark.parametrize("order", [gpipe_order, one_f_one_b_order])
@pytest.mark.parametrize("micro", [2, 4, 8])
def test_balanced_stages_lose_one_micro_batch_per_stage_but_one(order, micro) -> None:
    assert pipelined(BALANCED, order, micro, 1) == pytest.approx((micro + 2 - 1) * 3.0)


def test_one_micro_batch_is_naive_model_parallelism() -> None:
    assert pipelined(BALANCED, gpipe_order, 1, 3) == pytest.approx(3 * 6.0)


def test_updates_of_later_stages_hide_behind_the_first_stage() -> None:
    costs = [Cost(1.0, 2.0, 0.5), Cost(1.0, 2.0, 0.5)]
    # Stage 0 ends its backwards at 15, updates until 15.5 and goes on; stage 1 has long updated by then.
    assert pipelined(costs, gpipe_order, 4, 2) == pytest.approx(31.0)
    # With one micro-batch the last stage is free from 4 on: its update costs nothing.
    assert pipelined(costs, gpipe_order, 1, 2) == pytest.approx(13.0)


@pytest.mark.parametrize("order", [gpipe_order, one_f_one_b_order])
def test_unequal_stages_by_hand(order) -> None:
    # Stage 1 works from 1 to 13 without a pause in either order; stage 0's last backward follows.
    assert pipelined(UNEQUAL, order, 2, 1) == pytest.approx(14.0)


def test_a_heavy_first_stage_by_hand() -> None:
    # F: stage 0 at 0-2 and 2-4, stage 1 at 2-3 and 4-5; B: stage 1 at 5-6 and 6-7, stage 0 at 6-10 and 10-14.
    assert pipelined([Cost(2.0, 4.0), Cost(1.0, 1.0)], gpipe_order, 2, 1) == pytest.approx(14.0)
    # 1F1B: stage 1 has F0 2-3, B0 3-4, F1 4-5, B1 5-6; stage 0 has B0 at 4-8 and B1 at 8-12.
    assert pipelined([Cost(2.0, 4.0), Cost(1.0, 1.0)], one_f_one_b_order, 2, 1) == pytest.approx(12.0)


def test_orders_of_one_f_one_b() -> None:
    assert one_f_one_b_order(0, 2, 3) == [("F", 0), ("F", 1), ("B", 0), ("F", 2), ("B", 1), ("B", 2)]
    assert one_f_one_b_order(1, 2, 2) == [("F", 0), ("B", 0), ("F", 1), ("B", 1)]


def test_orders_that_wait_for_each_other_are_refused() -> None:
    def backwards_first(stage: int, stages: int, micro: int) -> list[tuple[str, int]]:
        return [("B", 0), ("F", 0)] if stage == 0 else [("F", 0), ("B", 0)]

    with pytest.raises(ValueError, match="wait for each other"):
        pipelined(BALANCED, backwards_first, 1, 1)


def test_the_continuous_pipeline_pays_its_fill_once() -> None:
    # The first stage hands on after its forward (1 of 3); then both work without a pause.
    assert continuous([[Cost(1.0, 2.0)], [Cost(1.0, 2.0)]], 10) == pytest.approx(1.0 + 30.0)
    # A slow second stage: the fill is the first stage's forward. A slow first stage: stage 1 ends with the last batch.
    assert continuous([[Cost(1.0, 1.0)], [Cost(2.0, 4.0)]], 10) == pytest.approx(1.0 + 60.0)
    assert continuous([[Cost(2.0, 4.0)], [Cost(1.0, 4.0)]], 10) == pytest.approx(56.0 + 5.0)
    assert continuous([[Cost(2.0, 4.0)], [Cost(1.0, 1.0)]], 10) == pytest.approx(60.0)


def test_layers_of_a_stage_train_one_after_another() -> None:
    # The stage hands on after F B of the first layer and F of the second: 1 + 2 + 1.
    assert continuous([[Cost(1.0, 1.5, 0.5), Cost(1.0, 2.0)], [Cost(1.0, 1.0)]], 1) == pytest.approx(4.0 + 2.0)


def test_one_stage_is_the_sum() -> None:
    assert continuous([BALANCED], 5) == pytest.approx(30.0)


def test_joined_batches_by_hand() -> None:
    assert joined([Cost(1.0, 2.0)]) == pytest.approx(3.0)
    assert joined([Cost(1.0, 1.5, 0.5), Cost(1.0, 2.0)]) == pytest.approx(4.0)
    # 12 of work on two devices, one of which has nothing to do until 1: (12 + 1) / 2, which sharing reaches.
    assert joined([Cost(1.0, 3.0)] * 3) == pytest.approx(6.5)
    # The last layer's path is the longest, and nothing can be done about it.
    assert joined([Cost(1.0, 0.5), Cost(1.0, 9.0)]) == pytest.approx(11.0)
    assert joined([Cost(1.0, 2.0)] * 4, devices=1) == pytest.approx(12.0)


def test_joined_batches_tied_to_devices_by_hand() -> None:
    # Device 0 has F 0-1 and B 1-3; device 1 has F 1-2, F 2-3, then both backwards until 7.
    assert joined_on_devices([Cost(1.0, 1.5, 0.5)] + [Cost(1.0, 2.0)] * 2, [1, 2]) == pytest.approx(7.0)
    # A heavy first device: its backward at 2-8 outlasts the second one's work at 2-4.
    assert joined_on_devices([Cost(2.0, 6.0), Cost(1.0, 1.0)], [1, 1]) == pytest.approx(8.0)
    assert joined_on_devices([Cost(1.0, 2.0)] * 2, [2]) == pytest.approx(6.0)
