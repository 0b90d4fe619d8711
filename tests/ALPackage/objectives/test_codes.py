"""Class codes: the table of the target is copied to a device once."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor

from ALPackage.objectives.codes import OneHot


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """Return the list of the devices that tensors get copied to."""
    made: list[torch.device] = []
    to = Tensor.to

    def counting(self: Tensor, device: torch.device) -> Tensor:
        if torch.device(device) != self.device:
            made.append(torch.device(device))
        return to(self, device)

    monkeypatch.setattr(Tensor, "to", counting)
    return made


def test_labels_on_another_device_cost_one_copy_in_all(copies: list[torch.device]) -> None:
    """Guards a bug: the table went from host memory to the GPU with every batch."""
    target = OneHot(4)
    labels = torch.tensor([1, 3])
    away = torch.zeros(2, dtype=torch.int64, device="meta")  # a device that every machine has
    tables = [target(away)[0] for _ in range(3)]
    assert copies == [torch.device("meta")]
    assert all(table is tables[0] for table in tables)
    assert tables[0].device == away.device
    table, same = target(labels)
    assert torch.equal(table, torch.eye(4))
    assert table.data_ptr() == target(labels)[0].data_ptr() == target.table.data_ptr()
    assert same is labels
    assert copies == [torch.device("meta")]


def test_a_cast_or_a_move_drops_the_copies() -> None:
    target = OneHot(4)
    away = torch.zeros(2, dtype=torch.int64, device="meta")
    assert target(away)[0].dtype == torch.float32
    target.to(torch.float64)
    assert target(away)[0].dtype == torch.float64
    target.to("meta")
    assert target(away)[0] is target.table


def test_the_copies_are_no_state() -> None:
    target = OneHot(4)
    target(torch.zeros(2, dtype=torch.int64, device="meta"))
    assert not target.state_dict()
    assert list(dict(target.named_buffers())) == ["table"]
    for again in (copy.deepcopy(target), pickle.loads(pickle.dumps(target))):
        assert not again._copies
        assert torch.equal(again(torch.tensor([0]))[0], torch.eye(4))
    assert target._copies
