"""A thread per layer and batch, written by hand, computes what one thread does: python examples/thread_loop.py"""

import sys
import threading
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from ALPackage.base import AE, AL, ENC

WIDTH, CLASSES, BATCHES = 256, 10, 40


def layers() -> list[AL]:
    """Return three layers, the same ones at every call."""
    torch.manual_seed(0)
    made = []
    for x_in, y_in in ((64, CLASSES), (WIDTH, 32), (WIDTH, 32)):
        f = nn.Sequential(nn.Linear(x_in, WIDTH), nn.ReLU())
        made.append(AL(ENC(f, b=nn.Linear(WIDTH, 32)), AE(g=nn.Linear(y_in, 32), h=nn.Linear(32, y_in)), lr=1e-3))
    return made


def train(stack: list[AL], batches: list[tuple[Tensor, Tensor]], threaded: bool) -> None:
    """Train on the batches; with threads, each layer's backward pass overlaps the forward passes that follow."""
    for x, y in batches:
        threads = []
        for layer in stack:
            x, y = layer(x, y)  # detached, so the next layer can go on at once
            if threaded:
                threads.append(threading.Thread(target=layer.backward_and_update))
                threads[-1].start()
            else:
                layer.backward_and_update()
        for thread in threads:
            thread.join()  # before the next batch: a layer has one batch in flight


def main() -> None:
    """Train both ways and compare every weight bit for bit."""
    torch.set_num_threads(1)  # in every thread: the order of a sum depends on it
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(CLASSES, (BATCHES, 64), generator=draw)
    inputs = torch.randn(BATCHES, 64, 64, generator=draw)
    batches = [(x, nn.functional.one_hot(y, CLASSES).float()) for x, y in zip(inputs, labels, strict=True)]
    one_thread, many = layers(), layers()
    train(one_thread, batches, threaded=False)
    train(many, batches, threaded=True)
    for number, (a, b) in enumerate(zip(one_thread, many, strict=True), start=1):
        same = all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
        print(f"layer {number}: {sum(p.numel() for p in a.parameters()):,} weights, equal bit for bit: {same}")


if __name__ == "__main__":
    main()
