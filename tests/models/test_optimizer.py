"""The optimizer, also with a torch that has no fused form for the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models import adamw


class _OnlyOnGpu(torch.optim.AdamW):
    """AdamW as before torch 2.4: it notices at the end of its making that the weights are on the CPU."""

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, **options)
        if any(group["fused"] for group in self.param_groups):
            raise RuntimeError("`fused=True` requires all the params to be on a GPU")


def _weights() -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(3))]


def _stepped(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for weight in weights:
        weight.grad = torch.full_like(weight, 0.5)
    optimizer.step()
    return [weight.detach() for weight in weights]


def test_a_torch_without_the_fused_form_gets_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.optim, "AdamW", _OnlyOnGpu)
    # An iterator can be read once, and a group that was given is a dict that the first try writes to.
    made = {
        "iterator": adamw(iter(_weights()), lr=0.1),
        "groups": adamw([{"params": [weight], "lr": 0.1, "name": "enc"} for weight in _weights()]),
    }
    for kind, optimizer in made.items():
        assert not any(group["fused"] for group in optimizer.param_groups), kind
        assert [weight.tolist() for weight in _stepped(optimizer)] == [
            pytest.approx([0.9 - 0.1 * 0.01] * size, abs=1e-5) for size in (2, 3)
        ], kind


@pytest.mark.skipif(torch.__version__ < "2.4", reason="torch before 2.4 has the fused form for GPUs only")
def test_the_fused_form_is_taken_and_steps_alike() -> None:
    fused, plain = adamw(iter(_weights()), lr=0.1), torch.optim.AdamW(_weights(), lr=0.1)
    assert all(group["fused"] for group in fused.param_groups)
    for one, other in zip(_stepped(fused), _stepped(plain), strict=True):
        torch.testing.assert_close(one, other)
