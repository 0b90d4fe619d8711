"""Configs and command lines to draw from: what users mean, what they mistype, and what nobody would type."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from training.config.schema import TASKS, Task, schema

__all__ = ["Case", "cases"]

#: Values that make sense, small, so that loading stays quick; the other keys are drawn from the rest alone.
GOOD: dict[str, list[Any]] = {
    "recipe": ["default", "thesis"],
    "outputpath": ["result", "a/b"],
    "epochs": [1, 20],
    "seed": [0, 7],
    "schedule": ["sequential", "al-fm", "continuous"],
    "val_fraction": [0.1, 0.5, 1],
    "threads": [1, None],
    "workers": [1, 2, None],
    "precision": ["fp32", "bf16"],
    "cuda_graph": ["auto", "off"],
    "association": ["mse", "cosine", "contrastive"],
    "temperature": [0.2, 1],
    "codes": ["linear", "tanh", "sigmoid"],
    "auto_encoder": ["auto", "mse"],
    "label_smoothing": [0, 0.1],
    "warmup": [0, 0.1],
    "weight_decay": [0, 0.1],
    "on_nan": ["stop", "skip"],
    "checkpoint_every": [None, 10],
    "checkpoint_keep": [0, 2],
    "bp_gpu_list": ["auto", ["cpu"] * 5, {"vgg": "auto", "lstm": "auto"}],
    "al_gpu_list": ["auto", ["cpu"] * 4, ["cpu:0", "cpu:1", "cpu:0", "cpu:1"], {"resnet": ["cpu"] * 5}, [0, 1, 2, 3]],
    "train_batch_size": [16, 128],
    "test_batch_size": [64],
    "augmentation": ["auto", "none", "basic", "strong"],
    "in_channels": ["auto", 1, 3],
    "image_size": [None, 16, 32],
    "width": [0.05, 0.25],
    "enc_dim": [2, 16],
    "ae_dim": [2, 16],
    "act": ["relu", "tanh"],
    "head_act": ["auto", "sigmoid"],
    "bridge": ["auto", "pool", "conv", "pool-conv", "deep", "flatten", "linear", "hidden"],
    "cut": ["strides", "groups", "apart", "joined"],
    "shortcut": ["pool", "stride"],
    "compile": [False],
    "base_lr": [1e-3],
    "lr": [1e-3, 1],
    "end_lr": [0, 1e-5],
    "batch_size": [16, 64],
    "min_len": [1, 5],
    "max_len": [8, 16],
    "pretrained_model": ["none"],
    "embedding_dim": [8, 50],
    "vocab_size": [3, 500],
    "reading": ["mean", "last"],
    "x_hid": [4, 8],
    "y_hid": [4],
    "n_heads": [1, 2, 3, "auto"],
    "al_layers": [1, 2],
    "n_layers": [1, 2],
    "dropout": [0, 0.5],
    "text_backend": ["builtin", "auto"],
}
KEYS = sorted({key for task in TASKS for key in schema(task).model_fields})
NAMES = ["digits", "docstrings", "DIGITS", "imdb", "digit", "vgg", "lstm", "", " ", "ä", "../digits", "\ud800"]
MODELS = ["vgg", "resnet", "lstm", "transformer", "VGG", "vggal", "lstmal", "vg", "al", "", "résnet"]
PATHS = [
    "result",
    "a/b",
    "",
    ".",
    "config.json",
    "config.json/x",
    "/proc/nope",
    "x" * 300,
    "~nobody-here/x",
    "\0",
    "\ud800",
]
COUNTS = ["-r", "--seed", "--workers", "--limit-train"]
FILES = ["--out", "--data-root", "--trace", "--tensorboard", "--tracker", "--config"]
BARE = ["--resume", "--list", "--print-config", "--help", "--junk", "-x", "--set="]
NUMBERS = ["1", "2", "0", "-1", "1.5", "x", "", "1e3", "9" * 30, "\uff11", "٣", "0x10", " 1"]

_plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=6),
)
_junk = st.recursive(
    _plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


@dataclass(frozen=True)
class Case:
    """A command line of a task, and the content of the file `config.json` beside it."""

    task: Task
    config: bytes
    argv: list[str]


@st.composite
def _value(draw: st.DrawFn, key: str) -> Any:
    if key in GOOD and draw(st.integers(0, 3)):
        return draw(st.sampled_from(GOOD[key]))
    return draw(_junk)


@st.composite
def _config(draw: st.DrawFn, task: Task) -> bytes:
    known = sorted(schema(task).model_fields)
    keys = draw(st.lists(st.sampled_from(known), unique=True, max_size=5))
    if not draw(st.integers(0, 9)):
        keys.append(draw(st.sampled_from(KEYS) | st.text(max_size=8) | st.just("epoch")))
    text = json.dumps({key: draw(_value(key)) for key in keys}).encode()
    how = draw(st.integers(0, 19))
    if how == 0:
        return text[: draw(st.integers(0, len(text)))]
    if how == 1:
        return draw(st.binary(max_size=20))
    if how == 2:
        return draw(
            st.sampled_from([b"[" * 100_000, b"[]", b"null", b'{"epochs": NaN}', b"", b'{"seed":' + b"9" * 5000 + b"}"])
        )
    if how == 3:
        return b'{"epochs": 1, "epochs": 2}'
    if how == 5:
        return text[:-1] + draw(st.sampled_from([b",}", b"}}", b"} // the end", b"\r\n}", b""]))
    if how == 6:
        return text.decode().encode("utf-16")
    return b"\xef\xbb\xbf" + text if how == 4 else text


@st.composite
def _option(draw: st.DrawFn, task: Task) -> list[str]:
    flag = draw(st.sampled_from([*COUNTS, *FILES, *BARE, "--method", "--schedule", "--set", "--set", "--set"]))
    if flag in COUNTS:
        return [flag, draw(st.sampled_from(NUMBERS))]
    if flag == "--method":
        return [flag, draw(st.sampled_from(["al", "bp", "both", "AL", "none", ""]))]
    if flag == "--schedule":
        return [flag, draw(st.sampled_from(["sequential", "al-fm", "continuous", "gpipe", ""]))]
    if flag == "--set":
        key = draw(st.sampled_from(sorted(schema(task).model_fields)) | st.sampled_from(KEYS) | st.text(max_size=5))
        value = draw(_value(key))
        text = json.dumps(value) if draw(st.booleans()) else str(value)
        return [flag, draw(st.sampled_from([f"{key}={text}", f"{key}.vgg={text}", key, f"={text}", f"{key}="]))]
    if flag in FILES:
        return [flag, draw(st.sampled_from(PATHS))]
    return [flag]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a case: about one in seven can be run, the others hold a mistake somewhere."""
    task: Task = draw(st.sampled_from(["vision", "text"]))
    dataset, model = ("digits", "vgg") if task == "vision" else ("docstrings", "lstm")
    if not draw(st.integers(0, 3)):
        dataset = draw(st.sampled_from(NAMES))
    if not draw(st.integers(0, 3)):
        model = draw(st.sampled_from(MODELS))
    argv = [dataset, model, "--config", "config.json"]
    for option in draw(st.lists(_option(task), max_size=3)):
        argv += option
    if not draw(st.integers(0, 9)):
        argv = draw(st.permutations(argv))
    return Case(task, draw(_config(task)), list(argv))
