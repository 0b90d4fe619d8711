"""Whether the networks learn: the small ones on real data, as local layers and with back-propagation; one core.

Each method has the same rates to choose from, on validation, and a network starts from the same weights under both.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ALPackage import make_schedule, to_al, to_bp
from benchmarks.record import Record
from data.storage.streams import exit_code

from .families import FAMILIES
from .small_data import CLASSES, batch_of, samples
from .table import learned

HERE = Path(__file__).resolve().parent
METHODS = ("bp", "al")
RATES = (1e-3, 3e-3)
BATCH = 32


def main(argv: Sequence[str] | None = None) -> int:
    """Train every network with both methods, all rates and seeds, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.networks.learn", description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=FAMILIES, default=list(FAMILIES), help="by default all")
    parser.add_argument("--epochs", type=int, default=10, help="the last one is reported (default 10)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each (default 3)")
    parser.add_argument("--out", type=Path, default=HERE / "learned.json")
    words = sys.argv[1:] if argv is None else list(argv)
    given = parser.parse_args(words)
    record = Record(given.out, "benchmarks.networks.learn", words, {"epochs": given.epochs, "batch": BATCH})

    def one(network: str, title: str, method: str, lr: float, seed: int) -> dict[str, Any]:
        return train(network, method, lr=lr, seed=seed, epochs=given.epochs)

    record.take(
        [
            {"network": network, "title": FAMILIES[network].title, "method": method, "lr": lr, "seed": seed}
            for network in given.networks
            for seed in range(given.seeds)
            for lr in RATES
            for method in METHODS
        ],
        one,
    )
    print(learned(record.finish()))
    return 0


def train(network: str, method: str, *, lr: float, seed: int, epochs: int) -> dict[str, Any]:
    """Train a small network for some epochs; return the share of the unseen samples that it has right, in %."""
    torch.set_num_threads(1)
    size = FAMILIES[network].small_side
    data = {split: samples(size, split) for split in ("train", "val", "test")}
    torch.manual_seed(seed)
    blocks = FAMILIES[network].blocks(CLASSES, True)
    example = batch_of(*data["train"], torch.arange(2))[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # which operations in place have become ordinary ones
        if method == "bp":
            model = to_bp(blocks, CLASSES, example=example)
            back_propagation(model, data["train"], lr, seed, epochs)
        else:
            stack = to_al(blocks, CLASSES, example=example, lr=lr)
            with make_schedule("sequential", stack, threads=1, seed=seed) as schedule:
                for number, batches in enumerate(epochs_of(data["train"], seed, epochs)):
                    for _ in schedule.run(batches, first=number * len(batches)):
                        pass
            model = stack.export()
    return {split: right(model, data[split]) for split in ("val", "test")}


def back_propagation(model: nn.Module, data: tuple[Any, Tensor], lr: float, seed: int, epochs: int) -> None:
    """Train a model with Adam on cross-entropy, as `to_al` does its layers on their losses."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for batches in epochs_of(data, seed, epochs):
        for x, labels in batches:
            F.cross_entropy(model(x), labels).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def epochs_of(data: tuple[Any, Tensor], seed: int, epochs: int) -> Iterator[list[tuple[Any, Tensor]]]:
    """Yield the batches of each epoch, in an order that follows from the seed; what fills no batch is left out."""
    draw = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(len(data[1]), generator=draw)
        yield [batch_of(*data, rows) for rows in order.split(BATCH) if len(rows) == BATCH]


def right(model: nn.Module, data: tuple[Any, Tensor]) -> float:
    """Return the share of samples that a model has right, in %."""
    model.eval()
    found = 0
    with torch.no_grad():
        for rows in torch.arange(len(data[1])).split(128):
            x, labels = batch_of(*data, rows)
            found += int((model(x).argmax(1) == labels).sum())
    return 100.0 * found / len(data[1])


if __name__ == "__main__":
    sys.exit(exit_code(main))
