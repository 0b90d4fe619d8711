"""A stack in the continuous pipeline, dropout included, equals the sequential schedule bit for bit.

python examples/continuous_pipeline.py
"""

import sys
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from ALPackage import AE, AL, ENC, ALStack, make_schedule
from ALPackage.randomness import Dropout

EPOCHS = 5


def stack() -> ALStack:
    """Return three layers with dropout, the same ones at every call."""
    torch.manual_seed(0)
    made = []
    for x_in, y_in in ((64, 10), (256, 32), (256, 32)):
        f = nn.Sequential(nn.Linear(x_in, 256), nn.ReLU(), Dropout(0.1))
        made.append(AL(ENC(f, b=nn.Linear(256, 32)), AE(g=nn.Linear(y_in, 32), h=nn.Linear(32, y_in)), lr=5e-3))
    return ALStack(made, target=lambda labels: nn.functional.one_hot(labels, 10).float())


def main() -> None:
    """Train under both schedules and compare weights, losses and accuracy."""
    images, classes = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(classes)
    batches = list(zip(x[:1500].split(32), y[:1500].split(32), strict=True))
    stacks = {}
    for name in ("sequential", "continuous"):
        stacks[name] = stack()
        with make_schedule(name, stacks[name], seed=0, threads=1) as schedule:
            for epoch in range(EPOCHS):
                for losses in schedule.run(batches, first=epoch * len(batches)):
                    last = losses  # a dict of losses per layer, when a batch has left the last layer
        print(f"{name}: losses of the last batch", [{k: f"{v:.5f}" for k, v in layer.items()} for layer in last])

    one, other = (made.eval() for made in stacks.values())
    same = all(torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True))
    print(f"weights equal bit for bit: {same}")
    for depth in range(1, len(other) + 1):
        accuracy = (other.inference(x[1500:], depth).argmax(1) == y[1500:]).float().mean()
        print(f"accuracy with the first {depth} of {len(other)} layers: {accuracy:.3f}")


if __name__ == "__main__":
    main()
