"""The AL and the BP form of one network: equal blocks, decoders that start as inverses, and naive model parallelism."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from ALPackage import ALStack, PlacementError
from ALPackage import devices as placement
from ALPackage.objectives.association import ASSOCIATIONS
from models import BPModel, build_text, build_vision, model_names
from models.blocks import ACTIVATIONS, activation
from models.objective_settings import ALSettings
from models.settings import Activation

VISION_MODELS = model_names("vision")
MODELS = (*VISION_MODELS, *model_names("text"))
CODES = get_args(ALSettings.model_fields["codes"].annotation)


def build(model: str, method: str, **options: Any) -> Any:
    """Return a model at a tiny size, of which `options` changes some, from the seed 11."""
    settings: dict[str, Any] = {"n_classes": 5, "association": "contrastive", "temperature": 0.2}
    settings |= {"lr": 1e-3, "weight_decay": 0.0}
    if model in VISION_MODELS:
        settings |= {"in_channels": 3, "image_size": 16, "width": 0.05, "enc_dim": 16, "ae_dim": 8}
        torch.manual_seed(11)
        return build_vision(model, method, **settings | options)
    settings |= {"vectors": torch.ones(20, 8), "x_hid": 6, "y_hid": 8, "n_heads": 2}
    torch.manual_seed(11)
    return build_text(model, method, **settings | options)


def inputs(model: str) -> Any:
    """Return three samples."""
    if model in VISION_MODELS:
        return torch.randn(3, 3, 16, 16)
    return torch.randint(1, 20, (3, 6)), torch.tensor([6, 1, 4])


@pytest.mark.parametrize("model", MODELS)
def test_both_forms_start_with_the_same_forward_network(model: str) -> None:
    al, bp = build(model, "al"), build(model, "bp")
    assert isinstance(al, ALStack)
    assert isinstance(bp, BPModel)
    blocks = list(bp.layers.values())[:-1]
    assert len(blocks) == len(al)
    for layer, block in zip(al, blocks, strict=True):
        assert repr(layer.enc.f) == repr(block)
        one, other = layer.enc.f.state_dict(), block.state_dict()
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("model", MODELS)
def test_a_bridge_hangs_on_the_shape_that_its_block_returns(model: str) -> None:
    al = build(model, "al")
    al.eval()
    x = inputs(model)
    for layer in al:
        x = layer.inference(x, "f")
        assert layer.inference(x, "b").shape == (3, 8)


@pytest.mark.parametrize("model", MODELS)
def test_bp_returns_logits_that_nothing_bounds(model: str) -> None:
    """Guards a bug, bounded logits, and the sigmoid that the thesis's BP head ended in."""
    bp = build(model, "bp").eval()
    x = inputs(model)
    plain = bp(x)
    assert plain.shape == (3, 5)
    last = [m for m in bp.layers["head"].modules() if isinstance(m, nn.Linear)][-1]
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.mul_(1000.0)
    torch.testing.assert_close(bp(x), 1000.0 * plain, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("association", ASSOCIATIONS)
@pytest.mark.parametrize("model", MODELS)
def test_al_returns_logits_that_nothing_bounds(model: str, association: str) -> None:
    """Guards faults 7 and 8: a sigmoid, or tanh, on the decoder's output."""
    al = build(model, "al", association=association)
    al.eval()
    x = inputs(model)
    plain = al.inference_by_depth(x)
    with torch.no_grad():
        for parameter in al[0].ae.h.parameters():
            parameter.mul_(1000.0)
    for before, after in zip(plain, al.inference_by_depth(x), strict=True):
        torch.testing.assert_close(after, 1000.0 * before, rtol=1e-4, atol=1e-3)
        assert after.abs().max() > 10.0


def ranked(al: ALStack, n_classes: int) -> list[list[int]]:
    """Return, per depth, the class that h_1(... h_k(code)) gives for the exact code of every class."""
    found = []
    target: Any = al.target(torch.arange(n_classes))
    for depth in range(1, len(al) + 1):
        with torch.no_grad():
            target = al[depth - 1].ae.g(target)
        code: Tensor = target[0]
        for layer in reversed(list(al)[:depth]):
            code = layer.inference(code, "h")
        found.append(code.argmax(-1).tolist())
    return found


@pytest.mark.parametrize("association", ASSOCIATIONS)
@pytest.mark.parametrize("model", MODELS)
def test_the_decoder_starts_as_the_inverse_of_the_encoder(model: str, association: str) -> None:
    al = build(model, "al", association=association)
    assert ranked(al, 5) == [list(range(5))] * len(al)


@pytest.mark.parametrize("association", ASSOCIATIONS)
@pytest.mark.parametrize("model", MODELS)
def test_it_does_so_with_more_classes_than_code_dimensions(model: str, association: str) -> None:
    """tinyImageNet has 200 classes and codes of 128."""
    dim = {"ae_dim": 128} if model in VISION_MODELS else {"y_hid": 128}
    al = build(model, "al", n_classes=200, association=association, **dim)
    assert ranked(al, 200) == [list(range(200))] * len(al)


@pytest.mark.parametrize("act", ["tanh", "elu"])
@pytest.mark.parametrize("association", ASSOCIATIONS)
def test_it_does_so_with_other_activations_of_the_codes(act: str, association: str) -> None:
    al = build("lstm", "al", n_classes=14, association=association, act=act, y_hid=32)
    assert ranked(al, 14) == [list(range(14))] * len(al)


def test_codes_have_unit_length_on_both_sides_of_a_contrastive_association() -> None:
    for model in MODELS:
        al = build(model, "al", association="contrastive")
        al.eval()
        x, (table, labels) = inputs(model), al.target(torch.tensor([0, 1, 2]))
        for layer in al:
            x, (table, labels) = layer(x, (table, labels))
            layer.discard()
            for code in (layer.inference(x, "b"), table):
                torch.testing.assert_close(code.norm(dim=-1), torch.ones(len(code)))


def test_every_layer_trains_with_adamw_and_the_given_decay() -> None:
    al = build("vgg", "al", lr=0.5, weight_decay=0.25)
    for layer in al:
        assert type(layer.optimizer) is torch.optim.AdamW
        assert [(g["lr"], g["weight_decay"]) for g in layer.optimizer.param_groups] == [(0.5, 0.25)] * 2


@pytest.mark.parametrize("model", MODELS)
def test_all_parameters_get_a_gradient(model: str) -> None:
    al = build(model, "al")
    al(inputs(model), torch.tensor([0, 4, 2]))
    al.backward()
    assert not [name for name, p in al.named_parameters() if p.grad is None]


@pytest.mark.parametrize(("build_one", "right"), [(build_vision, "vgg, resnet"), (build_text, "lstm, transformer")])
def test_an_unknown_model_or_method_is_refused(build_one: Any, right: str) -> None:
    settings: dict[str, Any] = {
        "n_classes": 2,
        "association": "mse",
        "temperature": 0.2,
        "lr": 0.1,
        "weight_decay": 0.0,
    }
    if build_one is build_vision:
        settings |= {"in_channels": 1, "image_size": 16, "width": 0.05}
    else:
        settings |= {"vectors": torch.ones(3, 4), "n_heads": 2}
    with pytest.raises(ValueError, match=f"got 'alexnet'; expected one of {right}"):
        build_one("alexnet", "al", **settings)
    with pytest.raises(ValueError, match=r"got 'both'; expected.*al.*bp"):
        build_one(right.split(",")[0], "both", **settings)


def test_the_legal_associations_are_those_of_the_library() -> None:
    assert get_args(ALSettings.model_fields["association"].annotation) == ASSOCIATIONS


@pytest.mark.parametrize("name", get_args(Activation))
def test_every_activation_can_be_made(name: str) -> None:
    assert activation(name)(torch.tensor([1.0])).item() > 0
    assert list(ACTIVATIONS) == list(get_args(Activation))


# --- the BP form's device list --------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_bp_runs_over_its_device_list(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # "meta" is a device that every machine can move to; nothing can be copied back from it.
    monkeypatch.setattr(placement, "available_devices", lambda: ["cpu", "meta:0"])
    bp = build(model, "bp").eval()
    expected = bp(inputs(model)).shape
    names = ["cpu"] * (len(bp) - 2) + ["cpu", "meta"]
    assert [device.type for device in bp.set_device(names)] == names
    assert [next(layer.parameters()).device.type for layer in bp.layers.values()] == names
    logits = bp(inputs(model))
    assert logits.device.type == "meta"
    assert logits.shape == expected


def test_a_device_list_that_does_not_fit_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "available_devices", lambda: ["cpu", "meta:0"])
    bp = build("vgg", "bp")
    for names, message in ((["meta"] * 4, "4 entries.*5 layers"), (["meta"] * 4 + ["cuda:9"], "'cuda:9' is not there")):
        with pytest.raises(PlacementError, match=message):
            bp.set_device(names)
    assert {p.device.type for p in bp.parameters()} == {"cpu"}
    assert {device.type for device in bp.devices} == {"cpu"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a machine with a GPU auto means that")
def test_auto_runs_on_a_laptop() -> None:
    """Guards faults 5 and 13: there was no way to run without GPUs."""
    bp = build("vgg", "bp")
    assert {device.type for device in bp.set_device("auto")} == {"cpu"}
    assert bp.eval()(inputs("vgg")).shape == (3, 5)


def test_the_thesis_form_bounds_every_code_and_learns_by_squares() -> None:
    stack = build("vgg", "al", association="mse", codes="sigmoid", auto_encoder="mse")
    for layer in stack:
        for part in (layer.ae.g, layer.ae.h, layer.enc.b):
            assert isinstance(list(part.modules())[-1], nn.Sigmoid)
        assert layer.enc.cri.kind == layer.ae.cri.kind == "mse"


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("association", ASSOCIATIONS)
def test_every_kind_of_codes_learns_a_few_samples(association: str, codes: str) -> None:
    stack = build("vgg", "al", association=association, codes=codes, lr=1e-2)
    x, labels = inputs("vgg"), torch.tensor([0, 3, 1])
    losses = []
    for _ in range(30):
        y = stack.target(labels)
        state = x
        total = 0.0
        for layer in stack:
            state, y = layer(state, y)
            total += sum(loss.item() for loss in layer.loss())
            layer.backward_and_update()
        losses.append(total)
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(("key", "value"), [("codes", "relu"), ("auto_encoder", "cosine")])
def test_unknown_codes_and_auto_encoders_are_refused(key: str, value: str) -> None:
    with pytest.raises(ValueError, match=f'{key}: got "{value}"; expected one of'):
        build("vgg", "al", **{key: value})


@pytest.mark.parametrize("model", MODELS)
def test_linear_codes_are_decoded_by_the_transpose_of_their_encoder_also_after_training(model: str) -> None:
    """Guards a loss of accuracy by decoding: decoders that learned freely ranked the classes otherwise."""
    stack = build(model, "al", lr=1e-2)
    x, labels = inputs(model), torch.tensor([0, 3, 1])
    for _ in range(5):
        state, y = x, stack.target(labels)
        for layer in stack:
            state, y = layer(state, y)
            layer.backward_and_update()
    code = torch.randn(7, 8)
    for layer in reversed(list(stack)):
        matrix = next(layer.ae.g.parameters()).detach()
        decoded = layer.inference(code, "h")
        cosines = torch.nn.functional.cosine_similarity(decoded, code @ matrix, dim=-1)
        torch.testing.assert_close(cosines, torch.ones(7))
        assert len(list(layer.ae.parameters())) == 1
        code = decoded
    first = next(stack[0].ae.g.parameters())
    assert not torch.allclose(first.T @ first, torch.eye(5), atol=1e-3)  # it has been trained


@pytest.mark.parametrize("n_classes", [10, 200])
def test_decoding_any_code_finds_the_nearest_class(n_classes: int) -> None:
    """Also with more classes than dimensions: the classes' codes start with the same norm."""
    stack = build("vgg", "al", n_classes=n_classes, ae_dim=128)
    target: Any = stack.target(torch.arange(n_classes))
    for layer in stack:
        with torch.no_grad():
            target = layer.ae.g(target)
    code = torch.nn.functional.normalize(torch.randn(500, 128), dim=-1)
    nearest = (code @ target[0].T).argmax(1)
    for layer in reversed(list(stack)):
        code = layer.inference(code, "h")
    assert (code.argmax(1) == nearest).float().mean() > 0.995
