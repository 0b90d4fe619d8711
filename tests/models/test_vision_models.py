"""VGG and ResNet: layers and shapes, image sizes, the weight of the bridges, and a tiny batch that is learned."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ALPackage import ALStack
from ALPackage.objectives.association import ASSOCIATIONS
from models import BPModel, VisionSettings, build_vision, model_names, parameter_counts
from models.resnet import BasicBlock
from models.vision_parts import bridge_of_maps
from models.vision_settings import RESNET_SPLITS, ResNetSettings, VGGSettings

LOCAL: dict[str, Any] = {"association": "contrastive", "temperature": 0.2, "lr": 1e-3, "weight_decay": 0.0}
VISION_MODELS = model_names("vision")
LAYERS = {"vgg": (4, 5), "resnet": (5, 6)}


def al(model: str, **options: Any) -> ALStack:
    """Return the AL form at a tiny size, of which `options` changes some."""
    settings = {"n_classes": 5, "in_channels": 3, "image_size": 16, "width": 0.05, "enc_dim": 16, "ae_dim": 8}
    stack = build_vision(model, "al", **{**settings, **LOCAL, **options})
    assert isinstance(stack, ALStack)
    return stack


def bp(model: str, **options: Any) -> BPModel:
    """Return the BP form at a tiny size, of which `options` changes some."""
    settings = {"n_classes": 5, "in_channels": 3, "image_size": 16, "width": 0.05, "enc_dim": 16, "ae_dim": 8}
    stack = build_vision(model, "bp", **{**settings, **LOCAL, **options})
    assert isinstance(stack, BPModel)
    return stack


@pytest.mark.parametrize("model", VISION_MODELS)
def test_the_number_of_layers(model: str) -> None:
    assert (len(al(model)), len(bp(model))) == LAYERS[model]
    assert list(bp(model).layers)[:-1] == al(model).names


def channels(module: Any) -> list[int]:
    """Return the output channels of every 3x3 convolution, in order."""
    return [m.out_channels for m in module.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]


def map_sizes(network: BPModel) -> list[int]:
    """Return the side of the maps that each layer but the head returns, for images of 32 x 32."""
    x, sizes = torch.randn(2, 3, 32, 32), []
    for f in list(network.eval().layers.values())[:-1]:
        x = f(x)
        sizes.append(x.shape[-1])
    return sizes


def test_the_shapes_are_the_thesis_s() -> None:
    vgg = bp("vgg", width=1.0, image_size=32)
    assert [channels(f) for f in vgg.layers.values()] == [[128, 256], [256, 512], [512], [512], []]
    assert [m.out_features for m in vgg.layers["head"].modules() if isinstance(m, nn.Linear)] == [2500, 5]
    assert [m.in_features for m in vgg.layers["head"].modules() if isinstance(m, nn.Linear)] == [2048, 2500]
    resnet = bp("resnet", width=1.0, image_size=32, cut="groups")
    assert [channels(f) for f in resnet.layers.values()] == [[64], [64] * 4, [128] * 4, [256] * 4, [512] * 4, []]
    assert map_sizes(resnet) == [32, 32, 16, 8, 4]


def test_resnet_is_split_after_its_strides() -> None:
    resnet = bp("resnet", width=1.0, image_size=32)
    expected = [[64] * 3, [64] * 2 + [128] * 2, [128] * 2 + [256] * 2, [256] * 2 + [512] * 2, [512] * 2, []]
    assert [channels(f) for f in resnet.layers.values()] == expected
    assert map_sizes(resnet) == [32, 16, 8, 4, 4]


def test_however_it_is_split_resnet_is_the_same_network() -> None:
    networks = []
    for cut in RESNET_SPLITS:
        torch.manual_seed(0)
        networks.append(bp("resnet", cut=cut))
    one, other = networks
    ours, theirs = one.state_dict().values(), other.state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    x = torch.randn(4, 3, 16, 16)
    assert torch.equal(one(x), other(x))


def test_a_pooled_shortcut_starts_as_what_the_block_is_given() -> None:
    x = torch.randn(2, 8, 6, 6).relu()
    assert torch.equal(BasicBlock(8, 8, 1, "relu", "pool")(x), x)
    halved = BasicBlock(8, 16, 2, "relu", "pool")
    convolution = next(m for m in halved.shortcut.modules() if isinstance(m, nn.Conv2d))
    seen = convolution(F.avg_pool2d(x, 2))
    expected = F.batch_norm(seen, None, None, training=True).relu()
    torch.testing.assert_close(halved(x), expected)


def test_a_strided_shortcut_drops_every_second_position() -> None:
    x = torch.randn(2, 8, 6, 6)
    block = BasicBlock(8, 16, 2, "relu", "stride").eval()
    kept = torch.zeros_like(x)
    kept[:, :, ::2, ::2] = x[:, :, ::2, ::2]
    assert torch.equal(block.shortcut(kept), block.shortcut(x))
    assert not torch.equal(block(x), block.shortcut(x).relu())


@pytest.mark.parametrize("shortcut", get_args(ResNetSettings.model_fields["shortcut"].annotation))
def test_either_shortcut_trains_every_weight(shortcut: str) -> None:
    stack = al("resnet", shortcut=shortcut)
    before = {name: value.clone() for name, value in stack.named_parameters()}
    for _ in range(2):  # while a weight is zero, no gradient passes it, so the first step moves only that weight
        stack(torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 3]))
        stack.backward_and_update()
    assert [name for name, value in stack.named_parameters() if torch.equal(value, before[name])] == []


@pytest.mark.parametrize("model", VISION_MODELS)
@pytest.mark.parametrize("bridge", ["pool", "conv", "pool-conv", "deep"])
@pytest.mark.parametrize("size", [16, 32, 48, 64, 80, 96, 112])
def test_every_multiple_of_16_is_an_image_size(model: str, bridge: str, size: int) -> None:
    stack, twin = al(model, image_size=size, bridge=bridge), bp(model, image_size=size)
    x, labels = torch.randn(2, 3, size, size), torch.tensor([4, 0])
    stack(x, labels)
    stack.backward_and_update()
    assert [out.shape for out in stack.eval().inference_by_depth(x)] == [(2, 5)] * len(stack)
    assert twin.eval()(x).shape == (2, 5)


@pytest.mark.parametrize("model", VISION_MODELS)
@pytest.mark.parametrize("size", [0, 8, 15, 20, 24, 33])
def test_another_image_size_is_refused(model: str, size: int) -> None:
    with pytest.raises(ValueError, match=f"image_size={size}.*multiple of 16") as caught:
        al(model, image_size=size)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", VISION_MODELS)
def test_gray_images_are_taken(model: str) -> None:
    assert bp(model, in_channels=1).eval()(torch.randn(2, 1, 16, 16)).shape == (2, 5)


UNKNOWN = [("vgg", "bridge", "wide"), ("vgg", "act", "swoosh"), ("vgg", "association", "l2"), ("resnet", "cut", "half")]
UNKNOWN += [("resnet", "shortcut", "long")]


@pytest.mark.parametrize(("model", "option", "value"), UNKNOWN)
def test_an_unknown_choice_lists_the_right_ones(model: str, option: str, value: str) -> None:
    with pytest.raises(ValueError, match=f'{option}: got "{value}"; expected one of'):
        al(model, **{option: value})


@pytest.mark.parametrize("image_size", [32, 64])
@pytest.mark.parametrize("bridge", ["pool", "conv", "pool-conv", "deep"])
@pytest.mark.parametrize("model", VISION_MODELS)
def test_the_bridges_are_much_smaller_than_the_network(model: str, bridge: str, image_size: int) -> None:
    """Guards a bug: bridges of 109M weights on a 7M VGG and of 188M on an 11M ResNet."""
    stack = al(model, n_classes=200, width=1.0, image_size=image_size, bridge=bridge, enc_dim=256, ae_dim=128)

    def count(part: str) -> int:
        return sum(p.numel() for layer in stack for p in getattr(layer.enc, part).parameters())

    assert count("b") < count("f") * (0.6 if bridge == "deep" else 0.5)


@pytest.mark.parametrize("association", ASSOCIATIONS)
@pytest.mark.parametrize("model", VISION_MODELS)
def test_nothing_squashes_the_codes_with_a_sigmoid(model: str, association: str) -> None:
    """Guards a bug: a sigmoid twice on the bridge and one on the decoder's output."""
    stack = al(model, association=association)
    assert not [m for m in stack.modules() if isinstance(m, (nn.Sigmoid, nn.Hardsigmoid, nn.LogSigmoid, nn.Tanh))]


@pytest.mark.parametrize("association", ASSOCIATIONS)
@pytest.mark.parametrize("model", VISION_MODELS)
def test_al_learns_a_tiny_batch_at_every_depth(model: str, association: str) -> None:
    torch.manual_seed(2)
    stack = al(model, association=association, lr=5e-3, in_channels=1)
    labels = torch.arange(15) % 5
    x = torch.randn(5, 1, 16, 16)[labels] + 0.3 * torch.randn(15, 1, 16, 16)
    losses = []
    for _ in range(80):  # the running statistics of late layers come to rest last
        stack(x, labels)
        stack.backward_and_update()
        losses.append([one["assoc"].item() for one in stack.losses()])
    assert all(last < first / 2 for first, last in zip(losses[0], losses[-1], strict=True))
    stack.eval()
    for prediction in stack.inference_by_depth(x):
        assert (prediction.argmax(-1) == labels).float().mean() > 0.8  # chance is 0.2


@pytest.mark.parametrize("model", VISION_MODELS)
def test_parameters_are_counted_as_by_hand(model: str) -> None:
    twin, stack = bp(model), al(model, bridge="pool")
    assert parameter_counts(twin) == (sum(p.numel() for p in twin.parameters()),) * 2
    network = sum(p.numel() for layer in stack for p in layer.enc.f.parameters())
    # g, whose weights are h's too: in the first layer from 5 classes to codes of 8, then between codes of 8
    coders = [5 * 8] + [8 * 8] * (len(stack) - 1)
    # a bridge from c x 2 x 2 (1 x 1 for VGG's last map): linear to 16 without bias, batch normalization, linear to 8
    inputs = {"vgg": [16 * 4, 24 * 4, 24 * 4, 24], "resnet": [8 * 4, 8 * 4, 16 * 4, 24 * 4, 24 * 4]}[model]
    bridges = [n * 16 + 2 * 16 + 16 * 8 + 8 for n in inputs]
    assert parameter_counts(stack) == (network + sum(bridges) + sum(coders), network + bridges[-1] + sum(coders))


def test_vgg_has_the_parameters_counted_by_hand() -> None:
    shape = [(3, 8), (8, 16), (16, 16), (16, 24), (24, 24), (24, 24)]  # convolutions of width 0.05
    blocks = sum(9 * a * b + 2 * b for a, b in shape)
    head = 24 * 128 + 128 + 128 * 5 + 5
    assert parameter_counts(bp("vgg")) == (blocks + head, blocks + head)


@pytest.mark.parametrize("bridge", get_args(VisionSettings.model_fields["bridge"].annotation))
@pytest.mark.parametrize("model", VISION_MODELS)
def test_every_bridge_reaches_the_codes(model: str, bridge: str) -> None:
    stack = al(model, bridge=bridge, image_size=32).eval()
    x: Any = torch.randn(3, 3, 32, 32)
    for layer in stack:
        x = layer.inference(x, "f")
        assert layer.inference(x, "b").shape == (3, 8)


@pytest.mark.parametrize(("model", "convolutions"), [("vgg", 0), ("resnet", 1)])
def test_each_model_has_its_best_bridge_by_default(model: str, convolutions: int) -> None:
    torch.manual_seed(0)
    stack = al(model)
    assert [len(channels(layer.enc.b)) for layer in stack] == [convolutions] * len(stack)
    torch.manual_seed(0)
    named = al(model, bridge={"vgg": VGGSettings, "resnet": ResNetSettings}[model].best_bridge)
    assert all(torch.equal(a, b) for a, b in zip(stack.parameters(), named.parameters(), strict=True))


@pytest.mark.parametrize(("size", "pooled"), [(32, (2, 5, 4, 4)), (4, (2, 5, 4, 4)), (2, (2, 5, 2, 2))])
def test_a_pooled_convolution_works_on_maps_of_4x4(size: int, pooled: tuple[int, ...]) -> None:
    bridge = bridge_of_maps(5, size, 8, settings=VisionSettings(enc_dim=10, bridge="pool-conv"))
    seen: list[Tensor] = []
    convolutions = [m for m in bridge if isinstance(m, nn.Conv2d)]
    convolutions[0].register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    x = torch.randn(2, 5, size, size)
    assert bridge(x).shape == (2, 8)
    assert [one.shape for one in seen] == [pooled]
    torch.testing.assert_close(seen[0].mean((2, 3)), x.mean((2, 3)))
    # But for the pooling it is "conv", with the same weights under other names.
    other = bridge_of_maps(5, size, 8, settings=VisionSettings(enc_dim=10, bridge="conv"))
    assert [p.shape for p in other.parameters()] == [p.shape for p in bridge.parameters()]


def test_a_deep_bridge_shrinks_the_map_by_convolutions() -> None:
    bridge = bridge_of_maps(48, 16, 8, settings=VisionSettings(enc_dim=10, bridge="deep"))
    strided = [m for m in bridge if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels, m.stride) for m in strided] == [
        (48, 96, (2, 2)),
        (96, 128, (2, 2)),
        (128, 128, (2, 2)),
    ]
    assert [(m.in_features, m.out_features) for m in bridge if isinstance(m, nn.Linear)] == [(128 * 4, 10), (10, 8)]


@pytest.mark.parametrize(
    ("maps", "millions"),
    [
        ([(256, 16), (512, 8), (512, 4), (512, 2)], 108.5),
        ([(64, 32), (64, 32), (128, 16), (256, 8), (512, 4)], 188.4),
    ],
)
def test_the_thesis_bridges_are_as_large_as_they_were(maps: list[tuple[int, int]], millions: float) -> None:
    """VGG's and ResNet's at 32 x 32; the earlier code had 109M and 188M weights in its bridges."""
    with torch.device("meta"):
        bridges = [
            bridge_of_maps(*shape, 700, settings=VisionSettings(enc_dim=1000, bridge="flatten")) for shape in maps
        ]
    first = [next(m for m in bridge.modules() if isinstance(m, nn.Linear)) for bridge in bridges]
    assert sum(linear.weight.numel() for linear in first) / 1e6 == pytest.approx(millions, abs=0.1)
    assert all(any(isinstance(m, nn.Sigmoid) for m in bridge.modules()) for bridge in bridges)


def test_the_head_of_vgg_can_have_another_activation() -> None:
    head = bp("vgg", head_act="sigmoid").layers["head"]
    assert any(isinstance(m, nn.Sigmoid) for m in head.modules())
    assert any(isinstance(m, nn.ReLU) for m in bp("vgg").layers["head"].modules())
