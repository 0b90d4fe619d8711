"""Networks that nobody here wrote, small and with weights at random, as blocks; and what they learn from.

Legend: B batch, T positions, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from data.text.load import load_text
from data.vision.load import load_vision

CLASSES = 10
#: Of the vocabulary of `texts`.
WORDS = 500
#: These data sets come with other packages; what is made of them is kept here until the tests end.
FOLDER = TemporaryDirectory()


def resnet() -> dict[str, nn.Module]:
    """Return a ResNet with bottlenecks, as resnet50 has them, one per stage and not three to six."""
    from torchvision.models.resnet import Bottleneck, ResNet

    net = ResNet(Bottleneck, [1, 1, 1, 1], num_classes=CLASSES, width_per_group=8)
    stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
    stages = {name: getattr(net, name) for name in ("layer1", "layer2", "layer3", "layer4")}
    return {"stem": stem, **stages, "pool": net.avgpool, "flatten": nn.Flatten(), "fc": net.fc}


class Patches(nn.Module):
    """What a torchvision VisionTransformer does before its first layer: patches, class token, positions."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.patch_size, self.hidden_dim = net.patch_size, net.hidden_dim
        self.project, self.class_token = net.conv_proj, net.class_token
        self.positions = net.encoder.pos_embedding

    def forward(self, images: Tensor) -> Tensor:
        patches = self.project(images).flatten(2).transpose(1, 2)
        return torch.cat([self.class_token.expand(len(images), -1, -1), patches], 1) + self.positions


def vit() -> dict[str, nn.Module]:
    from torchvision.models import VisionTransformer

    net = VisionTransformer(
        image_size=16, patch_size=4, num_layers=3, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=CLASSES
    )
    return {"patches": Patches(net), **dict(net.encoder.layers.named_children())}


def efficientnet() -> nn.Sequential:
    """Return an EfficientNet of three stages, with its StochasticDepth."""
    from torchvision.models.efficientnet import EfficientNet, MBConvConfig

    stages = [
        MBConvConfig(1, 3, 1, 16, 8, 1, 1.0, 1.0),
        MBConvConfig(4, 3, 2, 8, 16, 2, 1.0, 1.0),
        MBConvConfig(4, 3, 2, 16, 24, 1, 1.0, 1.0),
    ]
    net = EfficientNet(stages, dropout=0.2, stochastic_depth_prob=0.2, last_channel=64, num_classes=CLASSES)
    return nn.Sequential(*net.features, net.avgpool, nn.Flatten(), *net.classifier)


def convnext() -> dict[str, nn.Module]:
    from timm.models.convnext import ConvNeXt

    net = ConvNeXt(num_classes=CLASSES, depths=(1, 1, 1, 1), dims=(8, 16, 24, 32), drop_path_rate=0.1)
    return {"stem": net.stem, **{f"stage_{n}": stage for n, stage in enumerate(net.stages)}}


def resmlp() -> dict[str, nn.Module]:
    """Return a ResMLP, as resmlp_12_224 is one."""
    from timm.models.mlp_mixer import Affine, MlpMixer, ResBlock

    net = MlpMixer(
        num_classes=CLASSES,
        img_size=16,
        patch_size=4,
        num_blocks=3,
        embed_dim=32,
        mlp_ratio=4,
        block_layer=ResBlock,
        norm_layer=Affine,
    )
    return {"stem": net.stem, **{f"mixer_{n}": block for n, block in enumerate(net.blocks)}, "norm": net.norm}


class Embedded(nn.Module):
    """What Hugging Face's encoders do before their first layer: embeddings, and the mask that is added to scores."""

    def __init__(self, embeddings: nn.Module) -> None:
        super().__init__()
        self.embeddings = embeddings

    def forward(self, ids: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        real = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        hidden = self.embeddings(ids)
        added = torch.zeros(real.shape, dtype=hidden.dtype, device=ids.device).masked_fill_(~real, -1e9)
        return {"hidden_states": hidden, "attention_mask": added[:, None, None]}


def bert() -> list[nn.Module]:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        attention_probs_dropout_prob=0.0,
    )
    net = BertModel(config, add_pooling_layer=False)
    return [Embedded(net.embeddings), *net.encoder.layer]


def distilbert() -> list[nn.Module]:
    from transformers import DistilBertConfig, DistilBertModel

    config = DistilBertConfig(
        vocab_size=WORDS,
        dim=32,
        n_layers=3,
        n_heads=2,
        hidden_dim=64,
        max_position_embeddings=64,
        attention_dropout=0.0,
    )
    net = DistilBertModel(config)
    return [Embedded(net.embeddings), *net.transformer.layer]


#: By name: what makes the blocks, and the size of the images; 0: texts.
NETWORKS: dict[str, tuple[Callable[[], Any], int]] = {
    "resnet": (resnet, 16),
    "vit": (vit, 16),
    "efficientnet": (efficientnet, 16),
    "convnext": (convnext, 32),
    "resmlp": (resmlp, 16),
    "bert": (bert, 0),
    "distilbert": (distilbert, 0),
}


def batches(size: int, count: int, split: str = "train") -> list[tuple[Any, Tensor]]:
    """Return batches of 32 with labels: handwritten digits in three channels, or docstrings of some packages."""
    inputs, labels = images(size, split) if size else texts(split)
    # The data sets have their samples class by class.
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    found = []
    for number in range(count):
        rows = order[torch.arange(32 * number, 32 * (number + 1)) % len(labels)]
        found.append((inputs[rows] if isinstance(inputs, Tensor) else tuple(x[rows] for x in inputs), labels[rows]))
    return found


def images(size: int, split: str) -> tuple[Tensor, Tensor]:
    """Return float images (rows, 3, size, size) of digits, and their labels."""
    data = load_vision("digits", root=Path(FOLDER.name), image_size=size, val_fraction=0.1, seed=0)
    part = getattr(data, split)
    return (part.inputs.float() / 64 - 2).repeat(1, 3, 1, 1), part.labels


@cache
def texts(split: str) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Return (ids int64 (rows, T), lengths) of docstrings, and the packages that they come from."""
    load = partial(load_text, "docstrings", root=Path(FOLDER.name), max_len=24, min_len=3, val_fraction=0.1, seed=0)
    part = getattr(load(vocab_size=WORDS), split)
    ids, lengths = part.inputs
    return (ids.long(), lengths), part.labels
