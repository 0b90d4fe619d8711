"""The configuration of a task: the keys of every run, and those of the task's registered models and objectives.

The keys of a run stand here; those of a model or an objective stand in its settings class (see `models.registry`). A
key is a field: type, default, and a docstring that is its help. `schema` composes them into one class, so that the
shipped files, the messages, `--help` and the tables of the documentation all follow from one place.

Types are strict, so that `"128"` or `true` where a number belongs is a mistake; a whole number will do for a fraction.
Nothing here needs torch.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from operator import getitem
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, Field, create_model, field_validator, model_validator
from pydantic_core import PydanticCustomError

from data.text import vector_names
from models import registry
from models.network_settings import NetworkSettings
from models.settings import CodeUnits, Settings, Share, Units, shown
from models.settings import Task as Task  # a word of the configuration too

from ..errors import ConfigError, remedy
from .growth import GrowthKeys
from .objectives import FLAT, OBJECTIVES, objectives_kind
from .recipes import Recipe

Method = str
"""`al`, `bp`, or the name of another registered objective."""
Schedule = Literal["sequential", "al-fm", "continuous"]
Devices = Literal["auto"] | list[Annotated[str, Field(min_length=1)]]


def _device_names(value: Any) -> Any:
    """Return a device list by names: a whole number is a GPU's, and a text with commas is a list.

    A shell may have taken the quotes and spaces away: `["cuda:0", "cuda:1"]` then arrives as `[cuda:0,cuda:1]`.
    """
    if isinstance(value, dict):
        return {model: _device_names(devices) for model, devices in value.items()}
    if isinstance(value, str) and re.search(r"[\[(,;\s]", value.strip()) and "{" not in value:
        value = [name.strip("\"'") for name in re.split(r"[,;\s]+", value.strip("[](),; \t"))]
    if not isinstance(value, list):
        return value
    value = [one.strip() if isinstance(one, str) else one for one in value]
    return [f"cuda:{int(one)}" if _is_number(one) else one for one in value]


def _is_number(device: Any) -> bool:
    if isinstance(device, str):
        return device.isascii() and device.isdecimal()
    return type(device) is int and device >= 0


DeviceLists = Annotated[
    Devices | dict[str, Devices],
    BeforeValidator(_device_names),
    Field(
        json_schema_extra={
            "expected": '"auto", a list of devices such as ["cpu", "cpu"], or an object with one of these per model'
        }
    ),
]
Rate = Annotated[float, Field(gt=0)]

LARGEST_SEED = 2**53
"""The largest number up to which every JSON reader holds whole numbers exactly."""

RESUME_MAY_CHANGE = frozenset(
    {
        "al_gpu_list",
        "bp_gpu_list",
        "checkpoint_every",
        "checkpoint_keep",
        "cuda_graph",
        "keep_best",
        "on_nan",
        "outputpath",
        "schedule",
        "stage_replicas",
        "streams_per_device",
        "test_batch_size",
        "threads",
        "timeout",
        "wire",
        "workers",
    }
)
"""Keys that may differ on --resume: they say where and how fast. Where one changes the numbers, the run says so."""


class TrainingKeys(Settings):
    """How both tasks train."""

    section: ClassVar[str] = "training"

    recipe: Recipe = "default"
    """`thesis`: the shapes, losses and settings of the thesis; they override the file, and `--set` overrides them."""

    outputpath: Annotated[str, Field(min_length=1)] = "./result"
    """Folder of the results; it is created where it does not exist."""

    epochs: Annotated[int, Field(ge=1)] = 20
    """Passes over the training samples in one turn."""

    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] = 0
    """Turn t draws from seed + t. The split into training and validation depends on the seed itself."""

    val_fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    """Share of the training samples that is set aside as validation, on which the epoch is chosen."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """`bf16`: forward passes of AL and BP under autocast to bfloat16; weights, losses and updates stay in float32."""

    label_smoothing: Share = 0.0
    """Share of the target that goes to all classes alike, in AL's association and BP's cross-entropy."""

    warmup: Share = 0.0
    """Share of the steps in which the learning rate rises to its start, before the cosine."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled decay of the weights, for AL and BP alike."""

    on_nan: Literal["stop", "skip"] = "stop"
    """What happens at a loss that is NaN or infinite: `stop`: the run ends and keeps its last checkpoint; `skip`: that
    layer skips its step on that batch, and the report counts the skipped steps."""

    checkpoint_every: Annotated[int, Field(ge=1)] | None = None
    """Steps between two checkpoints within an epoch; null: only at the end of every epoch."""

    checkpoint_keep: Annotated[int, Field(ge=0)] = 2
    """How many checkpoints of a method are kept, the newest; 0: none is written, and nothing can be resumed."""

    keep_best: bool = True
    """Keep the weights of the epoch that is best on validation, for `python -m training.predict`, of every turn."""


class DeviceKeys(Settings):
    """Where the layers of both tasks run, and in which order."""

    section: ClassVar[str] = "devices"

    bp_gpu_list: DeviceLists = "auto"
    """The device of each BP layer, in order; 1 is short for "cuda:1"; `"auto"` decides by what the machine has. Under
    torchrun an entry of a pipeline (`--bp-parallel`) names its process: "rank0"."""

    al_gpu_list: DeviceLists = "auto"
    """The device of each layer of AL, or of another local objective; 1 is short for "cuda:1"; `"auto"` decides by what
    the machine has. Under torchrun an entry names its process too: "rank0", "rank1:cuda:0"."""

    schedule: Schedule = "continuous"
    """How AL layers share the work; the numbers are the same with each. `al-fm`: a thread per layer and batch."""

    workers: Annotated[int, Field(ge=1, le=4096)] | None = None
    """How many CPU workers share AL's layers; null: one per `threads` cores, but not more than layers. Where there are
    GPUs and `al_gpu_list` is "auto", null takes the GPUs, and a number the CPU."""

    streams_per_device: Annotated[int, Field(ge=1, le=64)] = 1
    """AL on GPUs with the continuous schedule: how many workers, each with a CUDA stream, share the layers of a GPU."""

    threads: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Intra-op threads of an AL worker; null: 1. OMP_NUM_THREADS overrides both and, unlike `threads`, limits BP too,
    which uses all cores otherwise."""

    timeout: Annotated[float, Field(gt=0, le=86400)] = 60.0
    """Under torchrun: seconds within which the processes have to meet, and a message between them has to arrive."""

    stage_replicas: Annotated[
        list[Annotated[int, Field(ge=1, le=4096)]] | None,
        Field(
            json_schema_extra={"expected": "a list of numbers of processes such as [2, 1], each at least 1, or null"}
        ),
    ] = None
    """Under torchrun: how many processes have each stage of the layers and divide every batch's rows; null: one each.
    The numbers are then those of one process but for rounding, and batch normalization (`sync_batchnorm`)."""

    sync_batchnorm: bool = False
    """With `stage_replicas`: batch normalization by the rows of all replicas, or by each one's own."""

    wire: Literal["fp32", "compressed", "bf16"] = "fp32"
    """Under torchrun: how tensors go to the next layers and to replicas. `compressed` sends about 0.8 of the bytes and
    stays exact, for slow links; `bf16` halves them, and the numbers are then not those of one process."""

    cuda_graph: Literal["auto", "on", "off"] = "auto"
    """AL on GPUs with the continuous schedule: run a layer's step as a CUDA graph; `auto`: where it is faster."""


class CommonConfig(NetworkSettings, DeviceKeys, GrowthKeys, TrainingKeys):
    """The keys of both tasks."""

    task: ClassVar[Task]

    @field_validator("outputpath")
    @classmethod
    def _no_escape(cls, path: str) -> str:
        for character in "\b\f\n\r\t":
            if character in path:
                escaped = json.dumps(character)[1:-1]
                raise ValueError(f"got {shown(path)}, in which {escaped} is one character; write / or \\\\ in a path")
        return path

    @field_validator("bp_gpu_list", "al_gpu_list")
    @classmethod
    def _known_models(cls, lists: DeviceLists) -> DeviceLists:
        names = registry.model_names(cls.task)
        for name in lists if isinstance(lists, dict) else ():
            if name not in names and ":" not in name:  # a network of the user's is module:function
                raise ValueError(f'"{name}" is not a model of this task: {remedy(name, names)}')
        return lists

    def _ordered(self, low: str, high: str) -> None:
        """Refuse a value of the key `low` that is above that of the key `high`."""
        if getattr(self, low) > getattr(self, high):
            facts = {"low": low, "got": str(getattr(self, low)), "high": high, "most": str(getattr(self, high))}
            raise PydanticCustomError("order", "{low}: got {got}; expected at most {high}, which is {most}", facts)


class VisionTraining(Settings):
    """How vision models train."""

    section: ClassVar[str] = "training"

    train_batch_size: Annotated[int, Field(ge=2)] = 128
    """Samples per training batch."""

    test_batch_size: Annotated[int, Field(ge=1)] = 512
    """Samples per batch of an evaluation; it changes speed and memory, not accuracy."""

    base_lr: Rate = 1e-3
    """Learning rate at the start; it falls to `end_lr` along a cosine."""

    end_lr: Annotated[float, Field(ge=0)] = 1e-5
    """Learning rate at the end of the last epoch."""

    ae_dim: CodeUnits = 128
    """Width of the codes that the layers' bridges map to."""

    compile: bool = False
    """Compile every layer with torch.compile before training, AL and BP alike. Not for texts: their lengths differ."""


class VisionData(Settings):
    """What is done to images."""

    section: ClassVar[str] = "data"

    augmentation: Literal["auto", "none", "basic", "strong"] = "auto"
    """`basic`: crop and flip; `strong`: jitter and gray as well; `auto`: what suits the data set."""

    in_channels: Literal["auto", 1, 3] = "auto"
    """Color channels of the images; 3 repeats gray images in three channels, else a number must be the data set's."""

    image_size: Annotated[int, Field(ge=16, le=256, multiple_of=16)] | None = None
    """Height and width in pixels; null: the data set's default."""

    @field_validator("in_channels", mode="before")
    @classmethod
    def _no_look_alike(cls, channels: Any) -> Any:
        if isinstance(channels, (bool, float)):  # `true` equals 1, and 3.0 equals 3
            raise ValueError(f'got {json.dumps(channels)}; expected one of "auto", 1, 3')
        return channels


class VisionConfig(VisionData, VisionTraining, CommonConfig):
    """The keys of cvconfig.json, but for those of models and objectives."""

    task: ClassVar[Task] = "vision"

    @model_validator(mode="after")
    def _falling_rate(self) -> VisionConfig:
        self._ordered("end_lr", "base_lr")
        return self


class TextTraining(Settings):
    """How text models train."""

    section: ClassVar[str] = "training"

    batch_size: Annotated[int, Field(ge=2)] = 64
    """Documents per training batch."""

    lr: Rate = 1e-3
    """Learning rate at the start; it falls to `end_lr` along a cosine."""

    end_lr: Annotated[float, Field(ge=0)] = 1e-5
    """Learning rate at the end of the last epoch."""

    y_hid: CodeUnits = 128
    """Width of the codes that the layers' bridges map to."""


class TextData(Settings):
    """What is read of documents, and how words become vectors."""

    section: ClassVar[str] = "data"

    min_len: Annotated[int, Field(ge=1)] = 1
    """Training documents with fewer tokens are left out."""

    max_len: Annotated[int, Field(ge=1, le=65536)] | Literal["auto"] = "auto"
    """How many tokens of a document are read; `auto`: what suits the data set."""

    pretrained_model: Annotated[str, Field(json_schema_extra={"expected": vector_names.EXPECTED})] = "glove"
    """Where the word vectors start: `glove`, GloVe 6B in the data root; other published vectors by their name; a file,
    found from the working directory or the data root; or `none`: seeded random numbers."""

    embedding_dim: Units = 300
    """Width of the word vectors; with `glove` it also names the file, glove.6B.<embedding_dim>d.txt."""

    vocab_size: Annotated[int, Field(ge=3)] = 30000
    """How many words are known at most, the two special tokens included."""

    text_backend: Literal["auto", "builtin", "torchtext"] = "auto"
    """What splits documents into words; `auto`: torchtext where it loads, else the built-in twin."""

    @field_validator("pretrained_model")
    @classmethod
    def _vectors(cls, name: str) -> str:
        return vector_names.check_name(name)  # a DataError is a ValueError


class TextConfig(TextData, TextTraining, CommonConfig):
    """The keys of nlpconfig.json, but for those of models and objectives."""

    task: ClassVar[Task] = "text"

    @model_validator(mode="after")
    def _sound_ranges(self) -> TextConfig:
        self._ordered("end_lr", "lr")
        if self.max_len != "auto":
            self._ordered("min_len", "max_len")
        return self


Config = VisionConfig | TextConfig
TASKS: dict[Task, type[VisionConfig] | type[TextConfig]] = {"vision": VisionConfig, "text": TextConfig}
CONFIGS: dict[Task, str] = {"vision": "cvconfig.json", "text": "nlpconfig.json"}
"""The files that ship with the tasks, which hold every key with its default."""


def schema(task: Task) -> type[VisionConfig] | type[TextConfig]:
    """Return the class with all keys of a task, as models and objectives are registered now.

    Raises ConfigError where two of them give one key different meanings.
    """
    return _compose(task, tuple(registry.models(task)), tuple(registry.objectives()))


@lru_cache(maxsize=8)
def _compose(
    task: Task, models: tuple[registry.ModelEntry, ...], objectives: tuple[registry.ObjectiveEntry, ...]
) -> type[VisionConfig] | type[TextConfig]:
    base, within = TASKS[task], objectives_kind(task, objectives)
    owners = [("the run", base), *((f"the model {entry.name}", entry.settings) for entry in models)]
    owners += [(f"the objective {entry.name}", entry.settings_of(task)) for entry in objectives if entry.name == FLAT]
    keys: dict[str, tuple[str, type[BaseModel]]] = {OBJECTIVES: ("the run", within)}
    fields: dict[str, Any] = {}
    for who, kind in owners:
        for key, field in kind.model_fields.items():
            if field.is_required():
                raise ConfigError(f'"{key}" of {who} has no default: give it one')
            first, other = keys.setdefault(key, (who, kind))
            if repr(field) != repr(other.model_fields.get(key)):
                raise ConfigError(f'"{key}" of {who} is a key of {first} too, with another meaning: rename it')
            if first == who != "the run":
                about = Field(description=field.description, json_schema_extra=field.json_schema_extra)
                legal = getitem(Annotated, (field.annotation, *field.metadata, about))
                fields[key] = (legal, field.get_default(call_default_factory=True))
    about = Field(
        description="The settings of each objective, in an object by its name; those of AL are keys of their own."
    )
    fields[OBJECTIVES] = (Annotated[within, about], within())
    return create_model(f"All{base.__name__}", __base__=base, __module__=__name__, **fields)
