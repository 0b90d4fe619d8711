"""Associated Learning on layers of your own, one batch at a time: python examples/al_on_own_layers.py"""

import sys
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from ALPackage.base import AE, AL, ENC

EPOCHS = 10


def layer(x_in: int, x_out: int, y_in: int, code: int) -> AL:
    """Return a layer from its four functions: f and b for the input, g and h for the target."""
    f = nn.Sequential(nn.Linear(x_in, x_out), nn.ReLU())
    return AL(ENC(f, b=nn.Linear(x_out, code)), AE(g=nn.Linear(y_in, code), h=nn.Linear(code, y_in)), lr=2e-3)


def predict(layers: list[AL], x: torch.Tensor) -> torch.Tensor:
    """Return the classes: f of every layer, b of the last one, then h of every layer backwards."""
    for one in layers:
        x = one.inference(x, "f")
    x = layers[-1].inference(x, "b")
    for one in reversed(layers):
        x = one.inference(x, "h")
    return x.argmax(1)


def main() -> None:
    """Train three layers on handwritten digits and print the accuracy of every depth."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # the work is small: more threads would wait for each other
    images, classes = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(classes)
    train, test = torch.randperm(len(x)).split([1500, len(x) - 1500])
    layers = [layer(64, 128, 10, 32), layer(128, 128, 32, 32), layer(128, 128, 32, 32)]

    for _ in range(EPOCHS):
        for rows in train[torch.randperm(len(train))].split(32):
            hidden, target = x[rows], nn.functional.one_hot(y[rows], 10).float()
            for one in layers:
                hidden, target = one(hidden, target)  # both are detached: no gradient crosses a layer
                one.backward_and_update()

    print("losses of the last batch:", [{k: f"{v:.4f}" for k, v in one.losses().items()} for one in layers])
    for depth in range(1, len(layers) + 1):
        accuracy = (predict(layers[:depth], x[test]) == y[test]).float().mean()
        print(f"accuracy with the first {depth} of {len(layers)} layers: {accuracy:.3f}")


if __name__ == "__main__":
    main()
