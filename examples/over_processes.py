"""A stack over two processes equals the same stack in one, bit for bit.

torchrun --nproc-per-node 2 examples/over_processes.py
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from ALPackage import AE, AL, ENC, ALStack, make_schedule

EPOCHS = 5


def stack() -> ALStack:
    """Return three layers, the same ones at every call."""
    torch.manual_seed(0)
    made = []
    for x_in, y_in in ((64, 10), (256, 32), (256, 32)):
        f = nn.Sequential(nn.Linear(x_in, 256), nn.ReLU())
        made.append(AL(ENC(f, b=nn.Linear(256, 32)), AE(g=nn.Linear(y_in, 32), h=nn.Linear(32, y_in)), lr=5e-3))
    return ALStack(made, target=lambda labels: nn.functional.one_hot(labels, 10).float())


def train(name: str, made: ALStack) -> float | None:
    """Train and return the accuracy of all layers together; None in a process that serves another one."""
    images, classes = load_digits(return_X_y=True)  # the processes behind the first one need no data
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(classes)
    batches = list(zip(x[:1500].split(32), y[:1500].split(32), strict=True))
    with make_schedule(name, made, seed=0, threads=1) as schedule:
        if not getattr(schedule, "leads", True):
            schedule.serve()  # until rank 0 closes its schedule
            return None
        for epoch in range(EPOCHS):
            for _ in schedule.run(batches, first=epoch * len(batches)):
                pass
        made.eval()
        [depths] = schedule.predict([x[1500:]])
        return (depths[-1].argmax(1) == y[1500:]).float().mean().item()


def main() -> None:
    """Train over the processes that torchrun has started, then in one, and compare."""
    dist.init_process_group("gloo")
    spread = train("distributed", stack())
    if spread is not None:
        alone = train("sequential", stack())
        print(f"accuracy over {dist.get_world_size()} processes: {spread:.4f}, in one: {alone:.4f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
