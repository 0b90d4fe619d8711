"""The schedules are equal bit for bit, to each other and to two slow twins that are written out here.

The twins use none of the library's schedules: a plain loop with optimizers of its own, and the layers trained one
after another over the whole epoch. That the second is bit-equal too is the property the whole project is built on.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import nn

from ALPackage import AE, AL, ENC, ALStack, make_schedule
from ALPackage.objectives.association import Association, Reconstruction
from ALPackage.objectives.codes import OnCodes, OneHot
from ALPackage.randomness import Dropout, enter_stream
from models import adamw, build_text, build_vision

from ..hooked import ALL, CONCURRENT, SEED, Batches, State, assert_equal, losses_of, rate, snapshot, train

MODELS = ["vgg", "resnet", "lstm", "transformer", "convolutions"]
CLASSES = 4
STEPS = 21


def convolutions() -> ALStack:
    """Return a stack of one's own: convolutions with batch normalization, and dropout in f, b and g."""
    layers, channels, below = {}, 1, CLASSES
    for number, width in enumerate((4, 6, 8)):
        f = nn.Sequential(
            nn.Conv2d(channels, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(), Dropout(0.2), Dropout(0.1)
        )
        b = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), Dropout(0.1), nn.Linear(width, 5))
        g = OnCodes(nn.Sequential(nn.Linear(below, 5), Dropout(0.1), nn.Tanh()))
        ae = AE(g, OnCodes(nn.Linear(5, below)), Reconstruction("mse"))
        layers[f"conv_{number}"] = AL(ENC(f, b, Association("mse")), ae)
        channels, below = width, 5
    return ALStack(layers, target=OneHot(CLASSES))


def build(model: str) -> ALStack:
    """Return one of the four models at a tiny size, or the stack of one's own, with the same weights every time."""
    torch.manual_seed(1)
    local: dict[str, Any] = {"temperature": 0.2, "lr": 1e-3, "weight_decay": 0.01}
    if model == "convolutions":
        return convolutions()
    if model in ("vgg", "resnet"):
        shape: dict[str, Any] = {"n_classes": CLASSES, "in_channels": 1, "image_size": 16, "width": 0.05}
        association = "contrastive" if model == "vgg" else "cosine"
        stack = build_vision(model, "al", **shape, enc_dim=16, ae_dim=8, association=association, **local)
    else:
        sizes: dict[str, Any] = {"x_hid": 6, "y_hid": 8, "n_heads": 2, "dropout": 0.3, "al_layers": 3}
        association = "contrastive" if model == "lstm" else "mse"
        vectors = torch.randn(30, 8)
        stack = build_text(model, "al", n_classes=CLASSES, vectors=vectors, **sizes, association=association, **local)
    assert isinstance(stack, ALStack)
    return stack


@functools.cache
def batches(model: str) -> Batches:
    """Return the batches of an epoch, the last of which is smaller."""
    draw = torch.Generator().manual_seed(2)
    made: Batches = []
    for number in range(STEPS):
        size = 3 if number == STEPS - 1 else 6
        labels = torch.randint(CLASSES, (size,), generator=draw)
        if model in ("lstm", "transformer"):
            tokens = torch.randint(1, 30, (size, 9), generator=draw)
            made.append(((tokens, torch.randint(1, 10, (size,), generator=draw)), labels))
        else:
            made.append((torch.randn(size, 1, 16, 16, generator=draw), labels))
    return made


@functools.cache
def reference(model: str) -> tuple[State, list[list[tuple[float, float]]]]:
    """Return what the sequential schedule makes of an epoch: the state and the losses."""
    stack = build(model)
    losses = train("sequential", stack, batches(model))
    return snapshot(stack), losses


def cut(tree: Any) -> Any:
    """Detach a tensor or a tuple of tensors."""
    return tuple(cut(part) for part in tree) if isinstance(tree, tuple) else tree.detach()


@pytest.mark.parametrize("schedule", CONCURRENT)
@pytest.mark.parametrize("model", MODELS)
def test_schedules_are_equal_bit_for_bit(model: str, schedule: str) -> None:
    stack = build(model)
    start = snapshot(stack)
    losses = train(schedule, stack, batches(model))
    state, expected = reference(model)
    assert_equal(snapshot(stack), state)
    assert losses == expected
    assert len(losses) == STEPS >= 20
    changed = [name for name in start if name.startswith("parameter") and not torch.equal(start[name], state[name])]
    assert len(changed) == sum(name.startswith("parameter") for name in start), "some parameters did not train"
    assert any(name.startswith("moment") for name in state)


@pytest.mark.parametrize("model", MODELS)
def test_a_plain_loop_written_by_hand_is_equal_bit_for_bit(model: str) -> None:
    stack = build(model)
    kind = torch.optim.Adam if model == "convolutions" else functools.partial(adamw, weight_decay=0.01)
    optimizers = [kind([{"params": list(l.enc.parameters())}, {"params": list(l.ae.parameters())}]) for l in stack]  # noqa: E741
    losses: list[list[tuple[float, float]]] = []
    for step, (x, labels) in enumerate(batches(model)):
        y = (torch.eye(CLASSES), labels)
        lr = rate(step)
        both = (lr["enc"], lr["ae"]) if isinstance(lr, dict) else (lr, lr)
        losses.append([])
        for (name, layer), optimizer in zip(stack.items(), optimizers, strict=True):
            enter_stream(layer, SEED, name, step)
            for group, value in zip(optimizer.param_groups, both, strict=True):
                group["lr"] = value
            code = layer.ae.g(y)
            decoded = layer.ae.h(code)
            hidden = layer.enc.f(x)
            bridged = layer.enc.b(hidden)
            associated = layer.enc.cri(bridged, cut(code))
            autoencoder = layer.ae.cri(decoded, y)
            optimizer.zero_grad()
            torch.autograd.backward(associated)
            torch.autograd.backward(autoencoder)
            optimizer.step()
            losses[-1].append((associated.item(), autoencoder.item()))
            x, y = cut(hidden), cut(code)
    state, expected = reference(model)
    assert_equal(snapshot(stack, optimizers), state)
    assert losses == expected


@pytest.mark.parametrize("model", MODELS)
def test_layers_trained_one_after_another_are_equal_bit_for_bit(model: str) -> None:
    """Layer 1 sees the whole epoch and is done, then layer 2 sees what it handed on, and so forth."""
    stack = build(model)
    pairs = [(x, stack.target(labels)) for x, labels in batches(model)]
    by_layer = []
    for name, layer in stack.items():
        handed_on, losses = [], []
        for step, (x, y) in enumerate(pairs):
            enter_stream(layer, SEED, name, step)
            layer.set_lr(rate(step))
            handed_on.append(layer(x, y))
            losses.append(tuple(loss.item() for loss in layer.loss()))
            layer.backward_and_update()
        pairs = handed_on
        by_layer.append(losses)
    state, expected = reference(model)
    assert_equal(snapshot(stack), state)
    assert [list(one) for one in zip(*by_layer, strict=True)] == expected


@pytest.mark.parametrize("schedule", ALL)
def test_two_epochs_on_one_schedule_equal_one_longer_run(schedule: str) -> None:
    model = "convolutions"
    stack, data = build(model), batches(model)
    with make_schedule(schedule, stack, threads=1, seed=SEED) as one:
        losses = losses_of(list(one.run(data[:8], lr=rate)))
        assert list(one.run([], lr=rate)) == []
        losses += losses_of(list(one.run(iter(data[8:]), lr=rate, first=8)))
    state, expected = reference(model)
    assert_equal(snapshot(stack), state)
    assert losses == expected


@pytest.mark.parametrize("schedule", ALL)
def test_the_process_wide_generator_is_neither_read_nor_moved(schedule: str) -> None:
    model = "transformer"
    stack = build(model)
    torch.manual_seed(987)
    before = torch.get_rng_state()
    with make_schedule(schedule, stack, threads=1, seed=SEED) as one:
        for number, _ in enumerate(one.run(batches(model), lr=rate)):
            assert torch.equal(torch.get_rng_state(), before)
            torch.rand(number)
            before = torch.get_rng_state()
    assert_equal(snapshot(stack), reference(model)[0])


def test_another_seed_or_another_first_number_gives_other_masks() -> None:
    model = "convolutions"
    runs = []
    for seed, first in ((SEED, 0), (SEED + 1, 0), (SEED, 100)):
        with make_schedule("sequential", build(model), threads=1, seed=seed) as one:
            runs.append(losses_of(list(one.run(batches(model)[:1], first=first))))
    assert runs[0] != runs[1]
    assert runs[0] != runs[2]


def test_without_a_rate_the_layers_keep_their_own() -> None:
    for schedule in ALL:
        stack = build("convolutions")
        stack.set_lr({"enc": 0.25, "ae": 0.125})
        with make_schedule(schedule, stack, threads=1) as one:
            list(one.run(batches("convolutions")[:2]))
        assert [[g["lr"] for g in layer.optimizer.param_groups] for layer in stack] == [[0.25, 0.125]] * 3


@pytest.mark.parametrize("schedule", ALL)
def test_grad_mode_of_the_caller_does_not_matter(schedule: str) -> None:
    model = "convolutions"
    stack = build(model)
    with torch.no_grad():
        train(schedule, stack, batches(model))
    assert_equal(snapshot(stack), reference(model)[0])


@pytest.mark.parametrize("schedule", ALL)
def test_autocast_of_the_caller_holds_in_every_forward_pass(schedule: str) -> None:
    """A worker inherits no autocast, and one that spans updates would go on using the weights it cast at first."""
    model, count = "convolutions", 3
    stack, twin = build(model), build(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = train(schedule, stack, batches(model)[:count])
    expected: list[list[tuple[float, ...]]] = []
    for step, (x, labels) in enumerate(batches(model)[:count]):
        y = twin.target(labels)
        expected.append([])
        for name, layer in twin.items():
            enter_stream(layer, SEED, name, step)
            layer.set_lr(rate(step))
            with torch.autocast("cpu", dtype=torch.bfloat16):
                x, y = layer(x, y)
            layer.backward_and_update()
            expected[-1].append(tuple(loss.item() for loss in layer.loss()))
    assert losses == expected
    assert_equal(snapshot(stack), snapshot(twin))
