"""What a rank says of itself at the end of a run: where it is, what it holds and what it has sent."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..devices import core_share
from ..layer import LocalLayer
from .chain import Chain
from .link import Traffic


@dataclass(frozen=True)
class RankReport:
    """A rank of a distributed run. Bytes."""

    rank: int
    host: str
    layers: list[str]
    weights: int
    """Of its layers' parameters and buffers."""
    moments: int
    """Of their optimizers' state."""
    sent: dict[str, int]
    """Per training batch, by receiver: "rank1" gets what the next layer reads, "rank0" the losses; "replicas" get
    gradients."""
    replica: int = 0
    """Its number among the ranks that have the same layers."""
    cores: float = 1.0
    """Its share of its host's cores; less than one where the host has more ranks than cores."""


def report_of(chain: Chain, layers: Sequence[tuple[str, LocalLayer]], traffic: dict[str, Traffic]) -> RankReport:
    """Return the report of this rank."""
    moments = [one for _, layer in layers for one in _tensors(layer.optimizer.state_dict()["state"])]
    sent = {name: round(one.per_batch) for name, one in traffic.items()}
    names = [name for name, _ in layers]
    held, host = weights_of(layers), socket.gethostname()
    return RankReport(chain.rank, host, names, held, _bytes(moments), sent, chain.replica, core_share())


def weights_of(layers: Sequence[tuple[str, LocalLayer]]) -> int:
    """Return the bytes of the layers' parameters and buffers, each counted once."""
    held = {id(one): one for _, layer in layers for one in (*layer.parameters(), *layer.buffers())}
    return _bytes(held.values())


def _bytes(tensors: Any) -> int:
    return sum(one.numel() * one.element_size() for one in tensors)


def _tensors(state: Any) -> list[Tensor]:
    if isinstance(state, torch.Tensor):
        return [state]
    return [one for part in state.values() for one in _tensors(part)] if isinstance(state, dict) else []
