"""Digest what one checkout computes, in a process of its own that finds that checkout's packages by PYTHONPATH.

Old and new code must both understand this file, so it uses only what neither of them may change: the builders, the
schedules, a layer's `optimizer`, and the order in which modules were registered. The names of parameters, the form in
which losses are handed out and the layout of checkpoints are theirs to choose.

    python probe.py steps [CASE ..]        train tiny models; every case, or those given
    python probe.py outcome FOLDER ..      read what runs have left in these folders

The last line of stdout is the answer in JSON: by case or folder, and by what was looked at, a list of texts. None in
place of a list: this checkout's form of it cannot be looked into.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ALPackage import Snapshot, make_schedule
from models import adamw, build_text, build_vision

Found = dict[str, list[str] | None]

STEPS = 20
BATCH = 8
CLASSES = 5
WORDS, WIDTH, POSITIONS = 200, 24, 12
RATE = 3e-3
#: What must be given, and then what is not the default, in as few variants as have every option once.
PLAIN: dict[str, Any] = {"association": "contrastive", "temperature": 0.3, "weight_decay": 0.0}
OTHER: dict[str, Any] = {"association": "mse", "temperature": 0.3, "weight_decay": 0.01, "label_smoothing": 0.1}
VISION_OTHER = {**OTHER, "bridge": "flatten", "codes": "sigmoid", "auto_encoder": "mse"}
TEXT_OTHER = {
    **OTHER,
    "association": "cosine",
    "bridge": "hidden",
    "codes": "tanh",
    "cut": "joined",
    "word_dropout": 0.1,
}
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "vgg": {"default": PLAIN, "other": {**VISION_OTHER, "head_act": "sigmoid"}},
    "resnet": {"default": PLAIN, "other": {**VISION_OTHER, "cut": "groups", "shortcut": "stride"}},
    "lstm": {"default": PLAIN, "other": {**TEXT_OTHER, "reading": "last"}},
    "transformer": {"default": PLAIN, "other": TEXT_OTHER},
}
#: By name the schedule, and the device of layer `i` of `n`: a plain "cpu" is a worker of its own.
SCHEDULES: dict[str, tuple[str, Callable[[int, int], str]]] = {
    "sequential": ("sequential", lambda i, n: "cpu"),
    "al-fm": ("al-fm", lambda i, n: "cpu"),
    "continuous": ("continuous", lambda i, n: "cpu"),
    "two workers": ("continuous", lambda i, n: f"cpu:{int(i >= n // 2)}"),
}
CASES = [
    f"{model} {settings} {how}" for model in SETTINGS for settings in SETTINGS[model] for how in [*SCHEDULES, "bp"]
]
#: Tiny models do not show all sizes: two widths may round to the same one.
CASES += [f"{model} untrained {method}" for model in SETTINGS for method in ("al", "bp")]
#: Numbers in a tensor from which on it is looked at where layouts may differ: sums of losses have fewer.
LARGE = 16
POSITION = re.compile(r"turn(\d+)-epoch(\d+)-batch(\d+)")


def steps(case: str) -> Found:
    """Train the model of a case for `STEPS` batches and digest what that has left; "untrained": it is of full size."""
    name, settings, how = case.split(" ", 2)
    torch.manual_seed(0)
    if settings == "untrained":
        return _values(_of_full_size(name, how))
    model = _built(name, "bp" if how == "bp" else "al", SETTINGS[name][settings])
    batches = list(_batches(name))
    if how == "bp":
        return _bp(model, batches, SETTINGS[name][settings]["weight_decay"])
    return _al(model, batches, *SCHEDULES[how])


def _al(stack: Any, batches: list[tuple[Any, Tensor]], schedule: str, device: Callable[[int, int], str]) -> Found:
    layers = list(stack)
    stack.set_device([device(number, len(layers)) for number in range(len(layers))])
    marker = Snapshot()
    stack.train()
    with make_schedule(schedule, stack, threads=1, seed=1) as pipeline:
        items: list[Any] = [*batches[: STEPS // 2], marker, *batches[STEPS // 2 :]]
        told = [tree_leaves(losses) for losses in pipeline.run(items, lr=_rate)]
    found: Found = {"losses": _columns(told), "snapshot": _large(tree_leaves(getattr(marker, "state", None)))}
    for number, layer in enumerate(layers, start=1):
        found |= _state(layer, layer.optimizer, f"layer {number} ")
    stack.eval()
    return {**found, "predictions": [digest(one) for one in stack.inference_by_depth(batches[0][0])]}


def _bp(model: Any, batches: list[tuple[Any, Tensor]], weight_decay: float) -> Found:
    optimizer = adamw(model.parameters(), lr=RATE, weight_decay=weight_decay)
    told: list[list[Any]] = []
    model.train()
    for step, (x, labels) in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = _rate(step)
        loss = F.cross_entropy(model(x), labels)
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        told.append([loss.detach()])
    model.eval()
    with torch.no_grad():
        predictions = [digest(model(batches[0][0]))]
    return {"losses": _columns(told), **_state(model, optimizer), "predictions": predictions}


def _built(name: str, method: str, settings: dict[str, Any]) -> Any:
    if name in ("vgg", "resnet"):
        sizes: dict[str, Any] = {"in_channels": 3, "image_size": 32, "width": 0.05, "enc_dim": 16, "ae_dim": 8}
        return build_vision(name, method, n_classes=CLASSES, lr=RATE, **sizes, **settings)
    vectors = torch.randn(WORDS, WIDTH)
    return build_text(
        name, method, n_classes=CLASSES, lr=RATE, vectors=vectors, x_hid=8, y_hid=8, dropout=0.3, **settings
    )


def _of_full_size(name: str, method: str) -> Any:
    if name in ("vgg", "resnet"):
        return build_vision(name, method, n_classes=CLASSES, lr=RATE, in_channels=3, image_size=32, **PLAIN)
    return build_text(name, method, n_classes=CLASSES, lr=RATE, vectors=torch.randn(WORDS, 300), **PLAIN)


def _batches(name: str) -> Iterator[tuple[Any, Tensor]]:
    """Yield (images (B, 3, 32, 32), labels), or ((tokens (B, T), lengths (B,)), labels)."""
    draw = torch.Generator().manual_seed(2)
    for _ in range(STEPS):
        labels = torch.randint(CLASSES, (BATCH,), generator=draw)
        if name in ("vgg", "resnet"):
            yield torch.randn(BATCH, 3, 32, 32, generator=draw), labels
            continue
        lengths = torch.randint(1, POSITIONS + 1, (BATCH,), generator=draw)
        tokens = torch.randint(1, WORDS, (BATCH, POSITIONS), generator=draw)
        yield (tokens.masked_fill(torch.arange(POSITIONS) >= lengths[:, None], 0), lengths), labels


def _rate(step: int) -> float:
    return RATE * (0.1 + 0.45 * (1.0 + math.cos(math.pi * step / STEPS)))


def _state(module: torch.nn.Module, optimizer: torch.optim.Optimizer, where: str = "") -> Found:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = [optimizer.state[parameter] for parameter in parameters]
    values = [digest(moment[key]) for moment in moments for key in sorted(moment)]
    return {**_values(module, where), f"{where}moments": values}


def _values(module: torch.nn.Module, where: str = "") -> Found:
    return {
        f"{where}weights": [digest(parameter) for parameter in module.parameters()],
        f"{where}buffers": [digest(buffer) for buffer in module.buffers()],
    }


def _columns(told: list[list[Any]]) -> list[str] | None:
    """Return a digest for every number that each of the batches has, over all batches."""
    if not all(leaves and all(isinstance(leaf, Tensor) for leaf in leaves) for leaves in told):
        return None
    return [digest(one) for one in torch.stack([torch.cat([leaf.flatten() for leaf in leaves]) for leaves in told]).T]


def _large(leaves: Iterable[Any]) -> list[str] | None:
    """Return the digests of what is certainly a weight, a statistic or a moment, each once and sorted."""
    kept = {digest(leaf) for leaf in leaves if isinstance(leaf, Tensor) and leaf.numel() >= LARGE}
    return sorted(kept) or None


def digest(tensor: Any) -> str:
    """Return the beginning of the SHA-256 of a tensor's dtype, shape and bits."""
    given = torch.as_tensor(tensor).detach().cpu().contiguous()
    content = f"{given.dtype} {tuple(given.shape)}".encode() + given.reshape(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


def outcome(folder: Path) -> Found:
    """Return the columns of the CSV files, times left out, and the tensors of every method's newest checkpoint."""
    found: Found = {}
    for path in sorted(folder.glob("*.csv")):
        with open(path, encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        columns = {name: [row[place] for row in rows] for place, name in enumerate(header) if name != "train_time"}
        found |= {f"{path.name} {name}": values for name, values in columns.items()}
    for method in sorted((folder / "checkpoints").glob("*/")):
        found[f"checkpoint of {method.name}"] = _newest(method)
    return found


def _newest(method: Path) -> list[str] | None:
    """Return the digests of the newest checkpoint, whose position is part of its files' or folders' names."""
    files: dict[tuple[int, ...], list[Path]] = {}
    for path in method.rglob("*.pt"):
        if places := POSITION.findall(str(path.relative_to(method))):
            files.setdefault(tuple(map(int, places[-1])), []).append(path)
    newest = files[max(files)] if files else []
    load = partial(torch.load, map_location="cpu", weights_only=True)
    return _large(leaf for path in newest for leaf in tree_leaves(load(path)))


def main(argv: list[str]) -> int:
    """Answer the command line with a line of JSON."""
    torch.set_num_threads(1)
    what, *names = argv
    found = {case: steps(case) for case in names or CASES} if what == "steps" else {}
    found |= {name: outcome(Path(name)) for name in names if what == "outcome"}
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
