"""Networks that nobody here wrote, with weights at random, as blocks: at full size, and small for tests.

Legend: B batch, T positions, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Blocks = dict[str, nn.Module]


@dataclass(frozen=True)
class Family:
    """One network in two sizes.

    Attributes:
        title: What the network at full size is called.
        library: Where it comes from.
        blocks: Returns its blocks, given the number of classes and whether it is the small one.
        side: Rows and columns of its images; 0: it reads texts.
        small_side: The same of the small one.
        words: Of the vocabulary at full size.
    """

    title: str
    library: str
    blocks: Callable[[int, bool], Blocks]
    side: int = 224
    small_side: int = 16
    words: int = 0


#: Of the vocabulary of the small networks for texts.
WORDS = 500


def _resnet(classes: int, small: bool) -> Blocks:
    """Return a ResNet with bottlenecks; the small one has one per stage and not three to six."""
    from torchvision.models.resnet import Bottleneck, ResNet, resnet50

    if small:
        net = ResNet(Bottleneck, [1, 1, 1, 1], num_classes=classes, width_per_group=8)
    else:
        net = resnet50(num_classes=classes)
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
        """Return tokens (B, T, D)."""
        patches = self.project(images).flatten(2).transpose(1, 2)
        return torch.cat([self.class_token.expand(len(images), -1, -1), patches], 1) + self.positions


def _vit(classes: int, small: bool) -> Blocks:
    from torchvision.models import VisionTransformer, vit_b_16

    if small:
        net = VisionTransformer(
            image_size=16, patch_size=4, num_layers=3, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=classes
        )
    else:
        net = vit_b_16(num_classes=classes)
    return {"patches": Patches(net), **dict(net.encoder.layers.named_children())}


def _efficientnet(classes: int, small: bool) -> Blocks:
    """Return an EfficientNet with its StochasticDepth; the small one has three stages."""
    from torchvision.models.efficientnet import EfficientNet, MBConvConfig, efficientnet_b0

    if small:
        stages = [
            MBConvConfig(1, 3, 1, 16, 8, 1, 1.0, 1.0),
            MBConvConfig(4, 3, 2, 8, 16, 2, 1.0, 1.0),
            MBConvConfig(4, 3, 2, 16, 24, 1, 1.0, 1.0),
        ]
        net = EfficientNet(stages, dropout=0.2, stochastic_depth_prob=0.2, last_channel=64, num_classes=classes)
    else:
        net = efficientnet_b0(num_classes=classes)
    stages = {f"stage_{number}": stage for number, stage in enumerate(net.features)}
    return {**stages, "pool": net.avgpool, "flatten": nn.Flatten(), "classifier": net.classifier}


def _convnext(classes: int, small: bool) -> Blocks:
    import timm
    from timm.models.convnext import ConvNeXt

    if small:
        net: Any = ConvNeXt(num_classes=classes, depths=(1, 1, 1, 1), dims=(8, 16, 24, 32), drop_path_rate=0.1)
    else:
        net = timm.create_model("convnext_tiny", num_classes=classes, drop_path_rate=0.1)
    return {"stem": net.stem, **{f"stage_{number}": stage for number, stage in enumerate(net.stages)}}


def _resmlp(classes: int, small: bool) -> Blocks:
    import timm
    from timm.models.mlp_mixer import Affine, MlpMixer, ResBlock

    if small:
        net: Any = MlpMixer(
            num_classes=classes,
            img_size=16,
            patch_size=4,
            num_blocks=3,
            embed_dim=32,
            mlp_ratio=4,
            block_layer=ResBlock,
            norm_layer=Affine,
        )
    else:
        net = timm.create_model("resmlp_12_224", num_classes=classes)
    mixers = {f"mixer_{number}": block for number, block in enumerate(net.blocks)}
    return {"stem": net.stem, **mixers, "norm": net.norm}


class Embedded(nn.Module):
    """What Hugging Face's encoders do before their first layer: embeddings, and the mask that is added to scores."""

    def __init__(self, embeddings: nn.Module) -> None:
        super().__init__()
        self.embeddings = embeddings

    def forward(self, ids: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Return tokens (B, T, D) and their mask (B, 1, 1, T)."""
        real = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        hidden = self.embeddings(ids)
        added = torch.zeros(real.shape, dtype=hidden.dtype, device=ids.device).masked_fill_(~real, -1e9)
        return {"hidden_states": hidden, "attention_mask": added[:, None, None]}


def _bert(classes: int, small: bool) -> Blocks:
    """Return BERT's base configuration, or three narrow layers; attention has no dropout, whose draws it cannot share.

    Nothing of it depends on the number of classes.
    """
    from transformers import BertConfig, BertModel

    narrow = {"vocab_size": WORDS, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = BertConfig(**({**narrow, "intermediate_size": 64} if small else {}), attention_probs_dropout_prob=0.0)
    net = BertModel(config, add_pooling_layer=False)
    layers = {f"layer_{number}": layer for number, layer in enumerate(net.encoder.layer)}
    return {"embedded": Embedded(net.embeddings), **layers}


def _distilbert(classes: int, small: bool) -> Blocks:
    from transformers import DistilBertConfig, DistilBertModel

    narrow = {"vocab_size": WORDS, "dim": 32, "n_layers": 3, "n_heads": 2, "hidden_dim": 64}
    config = DistilBertConfig(**({**narrow, "max_position_embeddings": 64} if small else {}), attention_dropout=0.0)
    net = DistilBertModel(config)
    layers = {f"layer_{number}": layer for number, layer in enumerate(net.transformer.layer)}
    return {"embedded": Embedded(net.embeddings), **layers}


FAMILIES = {
    "resnet": Family("ResNet-50", "torchvision", _resnet),
    "vit": Family("ViT-B/16", "torchvision", _vit),
    "efficientnet": Family("EfficientNet-B0", "torchvision", _efficientnet),
    "convnext": Family("ConvNeXt-T", "timm", _convnext, small_side=32),
    "resmlp": Family("ResMLP-12", "timm", _resmlp),
    "bert": Family("BERT-base", "transformers", _bert, side=0, small_side=0, words=30522),
    "distilbert": Family("DistilBERT", "transformers", _distilbert, side=0, small_side=0, words=30522),
}
