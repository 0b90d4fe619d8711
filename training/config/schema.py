"""The hyper-parameters: what may be set, what it means, and what makes sense together.

The schema is the only place that knows a default or a range: the shipped JSON files and the messages follow
from it. Types are strict, so that `"128"` or `true` where a number belongs is a mistake and not a number, but a
whole number is welcome where a fraction is expected.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from ..errors import remedy
from .recipes import Recipe

Task = Literal["vision", "text"]
Method = Literal["al", "bp"]
Schedule = Literal["sequential", "al-fm", "continuous"]
Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid"]
Devices = Literal["auto"] | list[Annotated[str, Field(min_length=1)]]
DeviceLists = Annotated[
    Devices | dict[str, Devices],
    Field(description='"auto", a list of devices such as ["cpu", "cpu"], or an object with one of these per model'),
]
Units = Annotated[int, Field(ge=1, le=65536)]
CodeUnits = Annotated[int, Field(ge=2, le=65536)]
Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]

LARGEST_SEED = 2**53
"""Every JSON reader still holds it exactly."""


SAME_NUMBERS = frozenset(
    {
        "al_gpu_list",
        "bp_gpu_list",
        "checkpoint_every",
        "checkpoint_keep",
        "cuda_graph",
        "on_nan",
        "outputpath",
        "schedule",
        "test_batch_size",
        "threads",
        "workers",
    }
)
"""Keys that say where and how fast, not what is computed (the number of threads may change the last bits)."""


class CommonConfig(BaseModel):
    """The keys of both tasks."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
    models: ClassVar[tuple[str, ...]]

    recipe: Recipe = "default"
    """`thesis`: the shapes, losses and settings of the thesis, over what the file says and under `--set`."""

    outputpath: Annotated[str, Field(min_length=1)] = "./result"
    """Folder of the results; made when it is not there."""

    epochs: Annotated[int, Field(ge=1)] = 20
    """Passes over the training samples in one turn."""

    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] = 0
    """Turn t draws from seed + t. The division into train and validation depends on the seed itself."""

    schedule: Schedule = "continuous"
    """How AL layers share the work; the numbers are the same with each. `al-fm`: a thread per layer and batch."""

    val_fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    """Share of the training samples that is set aside to choose the epoch on."""

    threads: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Intra-op threads of an AL worker; null: cores over layers, at least 1. OMP_NUM_THREADS wins over both and,
    unlike `threads`, limits BP too, which takes all cores otherwise."""

    workers: Annotated[int, Field(ge=1, le=4096)] | None = None
    """AL on the CPU: how many workers share the layers where `al_gpu_list` is "auto"; null: the GPUs if there are any,
    else a worker per core."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """`bf16`: forward passes of AL and BP under autocast to bfloat16; weights, losses and updates stay in float32."""

    cuda_graph: Literal["auto", "on", "off"] = "auto"
    """AL on GPUs with the continuous schedule: run a stage's step as a CUDA graph; `auto`: where it is faster."""

    association: Literal["mse", "cosine", "contrastive"] = "contrastive"
    """The associated loss; `contrastive` is cross-entropy over the codes of all classes."""

    temperature: Rate = 0.2
    """Divides the similarities in the losses of the contrastive association: lower is sharper."""

    codes: Literal["linear", "tanh", "sigmoid"] = "linear"
    """What follows the linear maps of g, h and the bridge: `linear` is nothing, and then h is the transpose of g."""

    auto_encoder: Literal["auto", "mse"] = "auto"
    """The loss of h(g(y)) against y; `auto`: cross-entropy over the classes, then what suits the association."""

    label_smoothing: Share = 0.0
    """Share of the target that goes to all classes alike, in AL's association and BP's cross-entropy."""

    warmup: Share = 0.0
    """Share of the steps in which the learning rate rises to its start, before the cosine."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled decay of the weights, for AL and BP alike."""

    on_nan: Literal["stop", "skip"] = "stop"
    """What a loss that is NaN or infinite does: `stop` ends the run, with its last checkpoint; `skip` leaves out the
    step of that layer on that batch, and counts."""

    checkpoint_every: Annotated[int, Field(ge=1)] | None = None
    """Steps between two checkpoints within an epoch; null: only at the end of every epoch."""

    checkpoint_keep: Annotated[int, Field(ge=0)] = 2
    """Checkpoints that are kept of a method, the newest; 0: none is written, and nothing can be resumed."""

    bp_gpu_list: DeviceLists = "auto"
    """The device of each BP layer, in order; `"auto"` decides by what the machine has."""

    al_gpu_list: DeviceLists = "auto"
    """The device of each AL layer, in order; `"auto"` decides by what the machine has."""

    @field_validator("bp_gpu_list", "al_gpu_list")
    @classmethod
    def _known_models(cls, lists: DeviceLists) -> DeviceLists:
        for name in lists if isinstance(lists, dict) else ():
            if name not in cls.models:
                raise ValueError(f'"{name}" is not a model of this task: {remedy(name, cls.models)}')
        return lists

    def _ordered(self, low: str, high: str) -> None:
        """Refuse a value of the key `low` that is above that of the key `high`."""
        if getattr(self, low) > getattr(self, high):
            facts = {"low": low, "got": str(getattr(self, low)), "high": high, "most": str(getattr(self, high))}
            raise PydanticCustomError("order", "{low}: got {got}; expected at most {high}, which is {most}", facts)


class VisionConfig(CommonConfig):
    """The keys of cvconfig.json."""

    models: ClassVar[tuple[str, ...]] = ("vgg", "resnet")

    train_batch_size: Annotated[int, Field(ge=2)] = 128
    """Samples per training batch."""

    test_batch_size: Annotated[int, Field(ge=1)] = 512
    """Samples per batch of an evaluation; it changes speed and memory, not accuracy."""

    augmentation: Literal["auto", "none", "basic", "strong"] = "auto"
    """`basic`: crop and flip; `strong`: with jitter and gray; `auto`: what suits the data set."""

    in_channels: Literal["auto", 1, 3] = "auto"
    """Color channels of the images; a number must be the data set's."""

    image_size: Annotated[int, Field(ge=16, le=256, multiple_of=16)] | None = None
    """Height and width in pixels; null: the data set's default."""

    width: Annotated[float, Field(gt=0, le=4)] = 1.0
    """Multiplies the number of channels of every layer."""

    enc_dim: CodeUnits = 256
    """Hidden units of the bridge."""

    ae_dim: CodeUnits = 128
    """Width of the label codes."""

    act: Activation = "relu"
    """Activation function."""

    head_act: Literal["auto"] | Activation = "auto"
    """Activation function in the head of BP's VGG; `"auto"`: that of `act`."""

    bridge: Literal["auto", "pool", "conv", "deep", "flatten"] = "auto"
    """From a layer's map to the codes: `pool`: pooled windows, then linear; `conv`: a convolution before that; `deep`:
    convolutions with stride 2 down to 2x2; `flatten`: the whole map, then linear (the thesis' form, and large);
    `auto`: `pool` for VGG, `conv` for ResNet."""

    cut: Literal["strides", "groups"] = "strides"
    """Where ResNet's layers end: `strides`: where the maps have just been halved; `groups`: behind the stem and behind
    each group of two blocks (the thesis' cut)."""

    shortcut: Literal["pool", "stride"] = "pool"
    """What goes beside ResNet's convolutions where maps are halved: `pool`: the means of 2x2 positions, and all blocks'
    convolutions start at zero; `stride`: every second position (the thesis' form)."""

    compile: bool = False
    """Compile every layer with torch.compile before training, AL and BP alike. Not for texts: their lengths differ."""

    base_lr: Rate = 1e-3
    """Learning rate at the start; a cosine leads from it to `end_lr`."""

    end_lr: Annotated[float, Field(ge=0)] = 1e-5
    """Learning rate at the end of the last epoch."""

    @field_validator("in_channels", mode="before")
    @classmethod
    def _no_look_alike(cls, channels: Any) -> Any:
        if isinstance(channels, (bool, float)):  # `true` equals 1, and 3.0 equals 3
            raise ValueError(f'got {json.dumps(channels)}; expected one of "auto", 1, 3')
        return channels

    @model_validator(mode="after")
    def _falling_rate(self) -> VisionConfig:
        self._ordered("end_lr", "base_lr")
        return self


class TextConfig(CommonConfig):
    """The keys of nlpconfig.json."""

    models: ClassVar[tuple[str, ...]] = ("lstm", "transformer")

    temperature: Rate = 0.5
    """Divides the similarities in the losses of the contrastive association: lower is sharper."""

    batch_size: Annotated[int, Field(ge=2)] = 64
    """Documents per training batch."""

    min_len: Annotated[int, Field(ge=1)] = 1
    """Training documents with fewer tokens are left out."""

    max_len: Annotated[int, Field(ge=1, le=65536)] | Literal["auto"] = "auto"
    """Tokens that are read of a document; `"auto"`: 256 for imdb, 128 for the others."""

    pretrained_model: Literal["glove", "none"] = "glove"
    """Where the word vectors start: GloVe's file in the data root, or seeded random numbers."""

    embedding_dim: Units = 300
    """Width of the word vectors; with `glove` it also names the file, glove.6B.<embedding_dim>d.txt."""

    vocab_size: Annotated[int, Field(ge=3)] = 30000
    """Words that are known at most, the two special tokens included."""

    x_hid: Units = 256
    """Hidden units of the LSTM (per direction) or of the Transformer's feed-forward part."""

    y_hid: CodeUnits = 128
    """Width of the label codes."""

    n_heads: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Attention heads; `"auto"`: 6, or the largest divisor of the model's width below it."""

    n_layers: Annotated[int, Field(ge=1, le=48)] = 3
    """LSTM or Transformer layers, beside the embedding and, for BP, the head."""

    act: Activation = "tanh"
    """Activation function in the bridges."""

    bridge: Literal["linear", "hidden"] = "linear"
    """From what is read of a layer's states to the codes: a `linear` layer, as BP's head, or a `hidden` one first."""

    reading: Literal["mean", "last"] = "mean"
    """What BP's head and AL's bridges read of the LSTM's states: their mean, or the last one of each direction."""

    cut: Literal["apart", "joined"] = "apart"
    """Whether the embedding is a layer `apart`, or one with the LSTM or encoder that reads it (`joined`)."""

    dropout: Share = 0.3
    """Share of the activations that is dropped in training."""

    word_dropout: Share = 0.0
    """Share of the words whose vectors are dropped whole in training."""

    lr: Rate = 1e-3
    """Learning rate at the start; a cosine leads from it to `end_lr`."""

    end_lr: Annotated[float, Field(ge=0)] = 1e-5
    """Learning rate at the end of the last epoch."""

    text_backend: Literal["auto", "builtin", "torchtext"] = "auto"
    """Who splits documents into words; `"auto"`: torchtext where it loads, else the built-in twin."""

    @model_validator(mode="after")
    def _sound_ranges(self) -> TextConfig:
        self._ordered("end_lr", "lr")
        if self.max_len != "auto":
            self._ordered("min_len", "max_len")
        return self


Config = VisionConfig | TextConfig
SCHEMAS: dict[Task, type[VisionConfig] | type[TextConfig]] = {"vision": VisionConfig, "text": TextConfig}
