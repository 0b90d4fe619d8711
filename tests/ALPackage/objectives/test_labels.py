"""Labels of another kind are refused with the way to mend them, by every objective, before anything is trained."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ALPackage import StageError, make_schedule, to_al
from ALPackage.objectives.by_name import OBJECTIVES
from ALPackage.objectives.labels import checked_labels


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        (torch.zeros(4), TypeError, r"got float32 \(4,\); expected int64 \(B,\).*labels\.long\(\)"),
        (torch.zeros(4, dtype=torch.int32), TypeError, r"got int32 \(4,\).*labels\.long\(\)"),
        (torch.eye(4), TypeError, r"got float32 \(4, 4\).*labels\.argmax\(1\)"),
        (torch.zeros(4, 1, dtype=torch.int64), ValueError, r"got int64 \(4, 1\).*labels\.flatten\(\)"),
        (torch.tensor(3), ValueError, r"got int64 \(\); expected int64 \(B,\)"),
        (torch.tensor([1, 4]), ValueError, "got numbers from 1 to 4; expected 0 to 3, as there are 4 classes"),
        (torch.tensor([-100, 3]), ValueError, "got numbers from -100 to 3; expected 0 to 3"),
        ([0, 1], TypeError, "got an object of type list; expected a tensor"),
    ],
)
def test_others_are_refused(labels: Tensor, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"^labels: {words}"):
        checked_labels(labels, 4)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("schedule", ["sequential", "continuous"])
def test_by_every_objective_with_the_weights_as_they_were(objective: str, schedule: str) -> None:
    torch.manual_seed(0)
    network = [nn.Sequential(nn.Linear(6, 8), nn.ReLU()), nn.Sequential(nn.Linear(8, 8), nn.ReLU())]
    stack = to_al(network, 3, example=torch.randn(2, 6), objective=objective)
    before = {name: value.clone() for name, value in stack.state_dict().items()}
    batch = torch.randn(4, 6), torch.tensor([0.0, 1.0, 2.0, 1.0])
    refused = pytest.raises(StageError, match=r"^target failed on batch 0: TypeError: labels: got float32")
    with make_schedule(schedule, stack, threads=1) as one, refused:
        list(one.run([batch]))
    assert all(torch.equal(value, before[name]) for name, value in stack.state_dict().items())
