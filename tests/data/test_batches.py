"""The division of train, and batches that depend on seed, epoch and batch number alone."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from data.batches import Batches
from data.dataset import Dataset, Split, digest, divide, make_dataset
from data.errors import DataError
from data.text.load import trim
from data.vision.augment import VisionTransform


def numbered(n: int) -> Split:
    """A split whose inputs are their own row numbers."""
    rows = torch.arange(n)
    return Split(rows, rows % 3, rows)


def plain(inputs: Tensor, _: torch.Generator | None) -> Tensor:
    return inputs


def visited(batches: Batches) -> list[int]:
    return torch.cat([inputs for inputs, _ in batches]).tolist()


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(2, 400),
    val_fraction=st.floats(0.01, 0.5),
    seed=st.integers(0, 9),
    limit=st.none() | st.integers(1, 500),
)
def test_train_and_val_are_disjoint_reproducible_and_limited(
    rows: int, val_fraction: float, seed: int, limit: int | None
) -> None:
    train, val = divide(rows, val_fraction=val_fraction, seed=seed, limit=limit)
    again = divide(rows, val_fraction=val_fraction, seed=seed, limit=limit)
    assert torch.equal(train, again[0])
    assert torch.equal(val, again[1])
    together = torch.cat([train, val])
    assert len(set(together.tolist())) == len(together)
    assert 0 <= int(together.min()) <= int(together.max()) < rows
    assert len(val) == max(1, round(val_fraction * min(rows, limit or rows)))
    assert len(train) == min(rows - len(val), limit or rows)


def test_another_seed_gives_another_division() -> None:
    assert not torch.equal(*(divide(100, val_fraction=0.1, seed=seed)[1] for seed in (0, 1)))


def test_too_few_rows_are_an_error() -> None:
    with pytest.raises(DataError, match="1 training samples are too few"):
        divide(1, val_fraction=0.1, seed=0)


def test_probe_lies_in_train_and_is_as_large_as_val() -> None:
    pairs = (torch.arange(50), torch.zeros(50, dtype=torch.long))
    made = make_dataset("sample", ["a"], pairs, pairs, val_fraction=0.2, seed=1)
    assert len(made.probe) == len(made.val) == 10
    assert set(made.probe.index.tolist()) <= set(made.train.index.tolist())
    assert len(made.test) == 50


def test_the_digest_covers_samples_labels_and_division_and_nothing_else() -> None:
    def made(seed: int = 1, **changes: Any) -> Dataset:
        given = {
            "train": (torch.arange(50), torch.arange(50) % 2),
            "test": (torch.arange(9), torch.zeros(9, dtype=torch.long)),
        }
        return make_dataset("sample", ["a", "b"], **{**given, **changes}, val_fraction=0.2, seed=seed)

    whole = digest(made())
    assert whole == digest(made())
    labels, images = torch.arange(50) % 2, torch.arange(50)
    labels[7], images[7] = 0, 8
    others = [
        digest(made(train=(torch.arange(50), labels))),
        digest(made(train=(images, torch.arange(50) % 2))),
        digest(made(test=(torch.arange(9), torch.ones(9, dtype=torch.long)))),
        digest(made(seed=2)),
        digest(made(), torch.ones(3)),
        digest(made(), torch.zeros(3)),
        digest(made(train=((torch.arange(50), torch.ones(50)), torch.arange(50) % 2))),
    ]
    assert len({whole, *others}) == 8


@pytest.mark.parametrize(
    ("samples", "batch_size", "sizes"),
    [(9, 4, [4, 5]), (10, 4, [4, 4, 2]), (8, 4, [4, 4]), (1, 4, [1]), (3, 1, [1, 2]), (5, 8, [5])],
)
def test_a_last_batch_of_one_sample_joins_its_predecessor(samples: int, batch_size: int, sizes: list[int]) -> None:
    batches = Batches(numbered(samples), batch_size, plain, seed=0)
    assert [len(labels) for _, labels in batches] == sizes
    assert len(batches) == len(sizes)
    assert sorted(visited(batches)) == list(range(samples))


def test_order_depends_on_seed_and_epoch_only() -> None:
    split = numbered(40)
    first = visited(Batches(split, 8, plain, seed=3, epoch=1))
    torch.manual_seed(0)
    torch.rand(5)
    assert visited(Batches(split, 7, plain, seed=3, epoch=1)) == first
    assert visited(Batches(split, 8, plain, seed=3, epoch=2)) != first
    assert visited(Batches(split, 8, plain, seed=4, epoch=1)) != first


def test_without_a_seed_the_order_is_that_of_the_split_and_nothing_is_random() -> None:
    drawn: list[object] = []

    def transform(inputs: Tensor, draw: torch.Generator | None) -> Tensor:
        drawn.append(draw)
        return inputs

    assert visited(Batches(numbered(10), 4, transform)) == list(range(10))
    assert drawn == [None, None, None]


def test_inputs_and_labels_stay_together() -> None:
    for inputs, labels in Batches(numbered(30), 7, plain, seed=1):
        assert torch.equal(labels, inputs % 3)


def test_text_inputs_come_as_a_tuple() -> None:
    split = Split((torch.arange(12).view(6, 2), torch.arange(6)), torch.arange(6), torch.tensor([5, 3, 1]))
    ((tokens, lengths), labels), *rest = list(Batches(split, 3, plain))
    assert rest == []
    assert tokens.tolist() == [[10, 11], [6, 7], [2, 3]]
    assert lengths.tolist() == labels.tolist() == [5, 3, 1]


def test_augmentation_has_a_stream_per_batch_that_nothing_else_advances() -> None:
    images = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8).expand(8, -1, -1, -1).contiguous()
    split = Split(images, torch.zeros(8, dtype=torch.long), torch.arange(8))
    transform = VisionTransform(torch.zeros(3), torch.ones(3), "strong")

    def batches(epoch: int) -> list[Tensor]:
        return [inputs for inputs, _ in Batches(split, 4, transform, seed=1, epoch=epoch)]

    first = batches(0)
    torch.manual_seed(9)
    torch.rand(3)
    before = torch.get_rng_state()
    again = batches(0)
    assert torch.equal(torch.get_rng_state(), before), "the process-wide generator was used"
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], batches(1)[0])


def test_a_resumed_epoch_gets_the_rest_of_its_batches() -> None:
    def noisy(inputs: Tensor, draw: torch.Generator | None) -> Tensor:
        return inputs + torch.rand(len(inputs), generator=draw)

    whole = list(Batches(numbered(23), 5, noisy, seed=3, epoch=2))
    for done in range(6):
        rest = Batches(numbered(23), 5, noisy, seed=3, epoch=2, done=done)
        assert len(rest) == 5 - done
        found = list(rest)
        assert len(found) == 5 - done
        for (x, labels), (expected, expected_labels) in zip(found, whole[done:], strict=True):
            assert torch.equal(x, expected)
            assert torch.equal(labels, expected_labels)


def test_classes_without_a_sample_are_noted() -> None:
    def made(limit: int | None) -> list[str]:
        rows, labels = torch.arange(40), torch.arange(40) % 2
        return make_dataset(
            "some", ["a", "b", "c"], (rows, labels), (rows, labels), val_fraction=0.1, seed=0, limit_train=limit
        ).notes

    assert made(None) == [f"some: 1 of 3 classes have no {part} sample: c" for part in ("training", "test")]
    assert made(1)[0].startswith("some: 2 of 3 classes have no training sample: ")


class Watched(Tensor):
    """A tensor that notes how it is moved, and stays where it is: there need not be a GPU."""

    events: ClassVar[list[object]] = []

    def pin_memory(self, *_: object) -> Watched:  # type: ignore[override]
        self.events.append("pin")
        return self

    def to(self, *target: object, **options: object) -> Watched:  # type: ignore[override]
        self.events.append((*target, options))
        return self


def watched(values: Tensor) -> Tensor:
    Watched.events.clear()
    return values.as_subclass(Watched)


def test_a_gpu_gets_its_batches_from_pinned_memory_without_waiting() -> None:
    split = Split((watched(torch.arange(6)), watched(torch.arange(6))), watched(torch.arange(6)), torch.arange(6))
    batches = list(Batches(split, 4, lambda inputs, _: inputs, device="cuda"))
    assert [labels.tolist() for _, labels in batches] == [[0, 1, 2, 3], [4, 5]]
    assert Watched.events == ["pin", (torch.device("cuda"), {"non_blocking": True})] * 6


def test_on_the_cpu_nothing_is_pinned() -> None:
    split = Split(watched(torch.arange(6)), watched(torch.arange(6)), torch.arange(6))
    list(Batches(split, 6, plain))
    assert Watched.events == [(torch.device("cpu"), {})] * 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("kind", ["none", "basic", "strong", "text"])
def test_a_batch_never_waits_for_the_gpu_and_equals_the_one_of_the_cpu(kind: str) -> None:
    rows, labels = torch.arange(40), torch.arange(40) % 3
    draw = torch.Generator().manual_seed(0)
    transform: Any = trim
    if kind == "text":
        lengths = torch.randint(1, 20, (40,), generator=draw)
        split = Split((torch.randint(1, 9, (40, 20), generator=draw, dtype=torch.int32), lengths), labels, rows)
    else:
        split = Split(torch.randint(0, 256, (40, 3, 16, 16), generator=draw, dtype=torch.uint8), labels, rows)
        transform = VisionTransform(torch.full((3,), 0.5), torch.full((3,), 0.3), kind)
    expected = list(Batches(split, 16, transform))
    list(Batches(split, 16, transform, device="cuda", seed=1))  # the constants get to the device with the first batch
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        list(Batches(split, 16, transform, device="cuda", seed=2))
        found = list(Batches(split, 16, transform, device="cuda"))
    finally:
        torch.cuda.set_sync_debug_mode(before)
    for (x, y), (wanted_x, wanted_y) in zip(found, expected, strict=True):
        torch.testing.assert_close(x, wanted_x, check_device=False)
        torch.testing.assert_close(y, wanted_y, check_device=False)
