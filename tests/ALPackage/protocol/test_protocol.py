"""Files in the protocol of the earlier public code run unchanged and compute what plain autograd and two Adams do.

The four model files beside this one are written as users of that code wrote theirs. The reference is written out here
without the library: f, b, g, h of each layer, both losses, and a `torch.optim.Adam` per side.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ALPackage import ALStack, make_schedule

from .lstm import LSTM
from .model import Model
from .resnet import ResNet
from .transformer import Transformer
from .vgg import VGG

STEPS, CLASSES = 4, 4
Batch = tuple[Tensor, Tensor]
Parts = dict[str, Any]
#: (layer number, parts, x, y) -> (associated loss, auto-encoder loss, x, y), all with their graphs.
Plain = Callable[[int, Parts, Any, Tensor], tuple[Tensor, Tensor, Any, Tensor]]


def images() -> list[Batch]:
    draw = torch.Generator().manual_seed(3)
    return [(torch.randn(6, 3, 8, 8, generator=draw), one_hot(draw)) for _ in range(STEPS)]


def texts() -> list[Batch]:
    draw = torch.Generator().manual_seed(4)
    batches = []
    for _ in range(STEPS):
        tokens = torch.randint(1, 11, (6, 5), generator=draw).float()
        tokens[::2, 3:] = 0
        batches.append((tokens, one_hot(draw)))
    return batches


def one_hot(draw: torch.Generator) -> Tensor:
    return F.one_hot(torch.randint(CLASSES, (6,), generator=draw), CLASSES).float()


# --- the reference: every layer written out -------------------------------------------------------------------------


def plain_vgg(number: int, p: Parts, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    code, hidden = p["g"](y), p["f"](x)
    return F.mse_loss(p["b"](hidden), code.detach()), F.mse_loss(p["h"](code), y), hidden, code


def plain_resnet(number: int, p: Parts, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    code, hidden = p["g"](y), p["f"](x)
    decoded = p["h"](code)
    ae = F.cross_entropy(decoded, y.argmax(1)) if number == 0 else F.mse_loss(decoded, y)
    return F.l1_loss(p["b"](hidden.flatten(2).mean(2)), code.detach()), ae, hidden, code


def plain_lstm(number: int, p: Parts, x: Any, y: Tensor) -> tuple[Tensor, Tensor, Any, Tensor]:
    code = p["g"](y)
    decoded = p["h"](code)
    if number == 0:
        hidden = p["f"](x.long())
        assoc = F.mse_loss(p["b"](hidden.mean(1)), code.detach())
        return assoc, F.cross_entropy(decoded, y.argmax(1)), hidden, code
    out, (h, c) = p["f"](x) if number == 1 else p["f"](*x)
    return F.mse_loss(p["b"](h[-1]), code.detach()), F.mse_loss(decoded, y), (out, (h, c)), code


def plain_transformer(number: int, p: Parts, x: Any, y: Tensor) -> tuple[Tensor, Tensor, Any, Tensor]:
    code = p["g"](y)
    ae = 2 * F.mse_loss(p["h"](code), y)
    if number == 0:
        hidden = p["f"](x.long())
        return F.mse_loss(p["b"](hidden.mean(1)), code.detach()), ae, (hidden, x == 0), code
    sequence, mask = x
    hidden = p["f"](sequence, src_key_padding_mask=mask)
    real = (~mask).unsqueeze(-1)
    assoc = F.mse_loss(p["b"]((hidden * real).sum(1) / real.sum(1)), code.detach())
    return assoc, ae, (hidden, mask), code


def cut(tree: Any) -> Any:
    if isinstance(tree, tuple):
        return tuple(map(cut, tree))
    return tree.detach()


def train_by_hand(model: Model, plain: Plain, batches: list[Batch], rates: list[tuple[float, float]]) -> list[Parts]:
    """Train copies of the model's functions and return them: plain autograd, and two Adams per layer."""
    layers: list[Parts] = []
    for one in model.layers:
        parts = {"f": one.enc.f, "b": one.enc.b, "g": one.ae.g, "h": one.ae.h}
        layers.append(copy.deepcopy(parts))
    adams = [
        [torch.optim.Adam([*parts[one].parameters(), *parts[other].parameters()]) for one, other in ("fb", "gh")]
        for parts in layers
    ]
    for (x, y), step in zip(batches, rates, strict=True):
        for number, (parts, pair) in enumerate(zip(layers, adams, strict=True)):
            assoc, ae, out, code = plain(number, parts, x, y)
            for adam, loss, rate in zip(pair, (assoc, ae), step, strict=True):
                adam.zero_grad()
                loss.backward()
                adam.param_groups[0]["lr"] = rate
                adam.step()
            x, y = cut(out), code.detach()
    return layers


MODELS: dict[str, tuple[type[Model], Plain, Callable[[], list[Batch]]]] = {
    "vgg": (VGG, plain_vgg, images),
    "resnet": (ResNet, plain_resnet, images),
    "lstm": (LSTM, plain_lstm, texts),
    "transformer": (Transformer, plain_transformer, texts),
}


def made(name: str) -> tuple[Model, list[Batch]]:
    kind, _, batches = MODELS[name]
    torch.manual_seed(1)
    return kind(CLASSES), batches()


# --- ways of training -----------------------------------------------------------------------------------------------


def sequential(model: Model, batch: Batch) -> None:
    model(*batch)
    model.backward()
    model.update()


def in_one(model: Model, batch: Batch) -> None:
    model(*batch)
    for layer in model.layers:
        layer.backward_and_update()


def recorded(model: Model, batch: Batch) -> None:
    model(*batch)
    for layer in model.layers:
        layer.record_backward_and_update()


def threaded(model: Model, batch: Batch) -> None:
    model.threaded_step(*batch)


@pytest.mark.parametrize("way", [sequential, in_one, recorded, threaded], ids=lambda way: way.__name__)
@pytest.mark.parametrize("name", MODELS)
def test_weights_after_four_steps_are_those_of_plain_autograd_and_two_adams(name: str, way: Any) -> None:
    model, batches = made(name)
    rates = [(1e-3, 1e-3), (5e-3, 5e-3), (5e-3, 2e-3), (4e-3, 2e-3)]
    expected = train_by_hand(model, MODELS[name][1], batches, rates)
    before = copy.deepcopy(model)
    model.set_lr(["enc", "ae"], 1e-3)
    for number, batch in enumerate(batches):
        if number == 1:
            model.set_lr(["enc", "ae"], 5e-3)
        elif number == 2:
            model.set_lr(["ae"], 2e-3)
        elif number == 3:
            for layer in model.layers:
                layer.enc_opt.param_groups[0]["lr"] = 4e-3
        way(model, batch)
    compare(model, expected)
    assert not any(torch.equal(new, old) for new, old in zip(model.parameters(), before.parameters(), strict=True))
    for loss in (loss for pair in model.loss() for loss in pair):
        assert loss.shape == ()
        assert loss.isfinite()
        assert not loss.requires_grad


def compare(model: Model, expected: list[Parts]) -> None:
    for layer, parts in zip(model.layers, expected, strict=True):
        for name, part in parts.items():
            found = getattr(layer.enc if name in "fb" else layer.ae, name).state_dict()
            for key, value in part.state_dict().items():
                torch.testing.assert_close(found[key], value, rtol=0, atol=1e-6, msg=f"{name} {key}")


@pytest.mark.filterwarnings("ignore:training and inference")
@pytest.mark.parametrize("schedule", ["sequential", "al-fm", "continuous"])
@pytest.mark.parametrize("name", MODELS)
def test_a_stack_of_such_layers_runs_in_every_schedule(name: str, schedule: str) -> None:
    model, batches = made(name)
    expected = train_by_hand(model, MODELS[name][1], batches, [(1e-3, 1e-3)] * STEPS)
    model.set_lr(["enc", "ae"], 1e-3)
    with make_schedule(schedule, ALStack(model.layers), threads=1) as made_:
        losses = list(made_.run(batches))
    compare(model, expected)
    assert all(set(one) == {"assoc", "ae"} for batch in losses for one in batch)


@pytest.mark.parametrize("name", MODELS)
def test_the_models_predict_in_their_own_way(name: str) -> None:
    model, batches = made(name)
    for batch in batches:
        sequential(model, batch)
    prediction = model.eval().inference(batches[0][0])
    assert prediction.shape == (6, CLASSES)
    assert not prediction.requires_grad


# --- the calls of the protocol --------------------------------------------------------------------------------------


def test_losses_are_reported_as_the_subclass_has_them() -> None:
    for name in MODELS:
        model, batches = made(name)
        model(*batches[0])
        plain = MODELS[name][1]
        layer = model.layers[0]
        parts = {"f": layer.enc.f, "b": layer.enc.b, "g": layer.ae.g, "h": layer.ae.h}
        enc_loss, ae_loss, _, _ = plain(0, copy.deepcopy(parts), *batches[0])
        scale = {"resnet": (100, 100), "transformer": (1, 0.5)}.get(name, (1, 1))
        found = layer.loss()
        assert found[0].item() == pytest.approx(scale[0] * enc_loss.item(), rel=1e-5)
        assert found[1].item() == pytest.approx(scale[1] * ae_loss.item(), rel=1e-5)
        assert [one.item() for one in layer.losses().values()] == [one.item() for one in found]


def test_learning_rates_of_one_or_both_sides() -> None:
    layer = made("vgg")[0].layers[0]

    def rates() -> list[float]:
        return [group["lr"] for group in layer.optimizer.param_groups]

    layer.set_lr(["enc", "ae"], 0.25)
    assert rates() == [0.25, 0.25]
    layer.set_lr(["ae"], 0.5)
    assert rates() == [0.25, 0.5]
    layer.set_lr("enc", 0.125)
    assert rates() == [0.125, 0.5]
    with pytest.raises(ValueError, match="learning rate"):
        layer.set_lr(["dec"], 0.5)
    with pytest.raises(ValueError, match="learning rate"):
        layer.set_lr(["ae"], float("nan"))
    assert rates() == [0.125, 0.5]


def test_numbers_of_parameters() -> None:
    layer = made("vgg")[0].layers[0]
    assert layer.getParam() == {"f": 3 * 4 * 9 + 4, "b": 4 * 16 * 6 + 6, "g": 4 * 6 + 6, "h": 6 * 4 + 4}


def test_the_two_optimizers_are_one_seen_from_each_side() -> None:
    model, batches = made("vgg")
    layer = model.layers[0]
    sides = {"enc": (layer.enc_opt, layer.enc), "ae": (layer.ae_opt, layer.ae)}
    for optimizer, side in sides.values():
        (group,) = optimizer.param_groups
        assert {id(one) for one in group["params"]} == {id(one) for one in side.parameters()}
        assert group["lr"] == 1e-3
    layer(*batches[0])
    layer.backward()
    before = {name: [p.detach().clone() for p in side.parameters()] for name, (_, side) in sides.items()}
    layer.ae_opt.step()
    layer.ae_opt.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(layer.enc.parameters(), before["enc"], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(layer.ae.parameters(), before["ae"], strict=True))
    assert all(p.grad is None for p in layer.ae.parameters())
    assert all(p.grad is not None for p in layer.enc.parameters())
    layer.enc_opt.step()
    layer.enc_opt.zero_grad(set_to_none=False)
    assert not any(torch.equal(a, b) for a, b in zip(layer.enc.parameters(), before["enc"], strict=True))
    assert all(p.grad is not None and not p.grad.any() for p in layer.enc.parameters())
    assert len(layer.optimizer.param_groups) == 2


def test_the_recorded_step_shows_in_the_profile() -> None:
    model, batches = made("vgg")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        recorded(model, batches[0])
    counts = {event.key: event.count for event in profile.key_averages()}
    assert counts["backward"] == counts["update"] == model.num_layers


def test_star_import_brings_what_those_files_use() -> None:
    names: dict[str, Any] = {}
    exec("from ALPackage.base import *", names)
    assert {"ENC", "AE", "AL", "torch", "nn"} <= set(names)
    assert names["nn"] is nn


def test_parts_have_the_names_of_the_protocol() -> None:
    layer = made("vgg")[0].layers[0]
    assert isinstance(layer.enc.cri, nn.MSELoss)
    code = layer.ae.g(torch.eye(CLASSES))
    loss, enc_y = layer.ae(torch.eye(CLASSES))
    assert torch.equal(enc_y, code)
    assert loss.requires_grad
    loss, enc_x = layer.enc(torch.randn(CLASSES, 3, 8, 8), code.detach())
    assert loss.requires_grad
    assert enc_x.requires_grad
    assert loss.shape == ()
