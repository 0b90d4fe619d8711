"""Build VGG, ResNet, LSTM or Transformer, each in an AL and a BP form made of the same blocks."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ALPackage import ALStack

from .assemble import BPModel, build_al
from .lstm import lstm
from .resnet import resnet
from .text_parts import cut_text
from .transformer import transformer
from .vgg import vgg

VISION_MODELS = ("vgg", "resnet")


TEXT_MODELS = ("lstm", "transformer")


#: "pool" or "conv", whichever each vision model was more accurate with on tinyImageNet (benchmarks/NOTES.md).
DEFAULT_BRIDGE = {"vgg": "pool", "resnet": "conv"}


def build_vision(
    model: str,
    method: str,
    *,
    n_classes: int,
    in_channels: int,
    image_size: int,
    width: float = 1.0,
    act: str = "relu",
    head_act: str | None = None,
    enc_dim: int = 256,
    ae_dim: int = 128,
    bridge: str | None = None,
    cut: str = "strides",
    shortcut: str = "pool",
    **local: Any,
) -> ALStack | BPModel:
    """Return "vgg" or "resnet" in its "al" or "bp" form.

    Both forms draw their blocks' initial weights first and in the same order, so with one seed the forward
    networks start out equal. `head_act`: in the head of BP's VGG, `act` if None. `bridge`: their form, that of
    `DEFAULT_BRIDGE` if None. `local`: what `build_al` takes beside the blocks.
    """
    _known(model, VISION_MODELS, method)
    common: dict[str, Any] = {
        "n_classes": n_classes,
        "in_channels": in_channels,
        "image_size": image_size,
        "width": width,
        "act": act,
        "hidden": enc_dim,
        "bridge": DEFAULT_BRIDGE[model] if bridge is None else bridge,
    }
    if model == "vgg":
        blocks, head = vgg(head_act=head_act or act, **common)
    else:
        blocks, head = resnet(cut=cut, shortcut=shortcut, **common)
    if method == "bp":
        return BPModel(blocks, head)
    return build_al(blocks, n_classes, code_dim=ae_dim, **local)


def build_text(
    model: str,
    method: str,
    *,
    n_classes: int,
    vectors: Tensor,
    x_hid: int = 256,
    y_hid: int = 128,
    n_heads: int = 6,
    n_layers: int = 3,
    act: str = "tanh",
    bridge: str = "linear",
    reading: str = "mean",
    cut: str = "apart",
    dropout: float = 0.3,
    word_dropout: float = 0.0,
    **local: Any,
) -> ALStack | BPModel:
    """Return "lstm" or "transformer" in its "al" or "bp" form; `vectors` float (V, D) start the embedding.

    `act`, `bridge`: activation and form of the bridges. `reading`: of the LSTM's states, "mean" or "last". `cut`: the
    embedding is a layer "apart", or "joined" with the next. `local`: what `build_al` takes beside the blocks.
    """
    _known(model, TEXT_MODELS, method)
    common: dict[str, Any] = {
        "n_classes": n_classes,
        "vectors": vectors,
        "hidden": x_hid,
        "n_layers": n_layers,
        "dropout": dropout,
        "word_dropout": word_dropout,
        "act": act,
        "bridge": bridge,
    }
    blocks, head = lstm(reading=reading, **common) if model == "lstm" else transformer(heads=n_heads, **common)
    blocks = cut_text(blocks, cut)
    if method == "bp":
        return BPModel(blocks, head)
    return build_al(blocks, n_classes, code_dim=y_hid, **local)


def _known(model: str, models: tuple[str, ...], method: str) -> None:
    """Raise ValueError for a model or a method that there is not."""
    if model not in models:
        raise ValueError(f"model: got {model!r}; expected one of {', '.join(models)}")
    if method not in ("al", "bp"):
        raise ValueError(f"method: got {method!r}; expected al or bp")
