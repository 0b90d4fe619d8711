"""What each way of running AL's local steps gives on one GPU (see README.md)."""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ALPackage import ALStack, make_schedule
from data.storage.streams import exit_code
from models import build_text, build_vision
from training.runs.provenance import collect
from utils import set_deterministic

from .table import markdown

HERE = Path(__file__).parent
MODELS = ("vgg", "resnet", "lstm", "transformer")
LOCAL: dict[str, Any] = {"association": "contrastive", "temperature": 0.2, "lr": 1e-3, "weight_decay": 0.0}
#: Every way to run the step: schedule, its options, and what is done to the stack before.
WAYS: dict[str, dict[str, Any]] = {
    "eager": {"schedule": "sequential", "fused": False, "cuda_graph": "off"},
    "fused": {"schedule": "sequential", "cuda_graph": "off"},
    "fused, bf16": {"schedule": "sequential", "cuda_graph": "off", "bf16": True},
    "compiled": {"schedule": "sequential", "cuda_graph": "off", "compile": True},
    "one stage": {"schedule": "continuous", "cuda_graph": "off"},
    "a stream per layer": {"schedule": "continuous", "cuda_graph": "off", "stage_per_layer": True},
    "graph, one stage": {"schedule": "continuous", "cuda_graph": "on"},
    "graph, a stream per layer": {"schedule": "continuous", "cuda_graph": "on", "stage_per_layer": True},
    "graph, one stage, bf16": {"schedule": "continuous", "cuda_graph": "on", "bf16": True},
}

Pair = tuple[Any, Tensor]


def build(model: str, small: bool, way: dict[str, Any], device: torch.device) -> ALStack:
    """Return the AL form of a model on `device`, as the way wants it."""
    torch.manual_seed(0)
    if model in ("vgg", "resnet"):
        width = 0.05 if small else 1.0
        stack = build_vision(model, "al", n_classes=200, in_channels=3, image_size=32, width=width, **LOCAL)
    else:
        vectors = torch.randn(1000 if small else 30000, 24 if small else 300) * 0.4
        hidden = 8 if small else 256
        stack = build_text(model, "al", n_classes=14, vectors=vectors, x_hid=hidden, n_heads=6, **LOCAL)
    assert isinstance(stack, ALStack)
    stack.set_device([str(device)] * len(stack))
    if device.type == "cuda":
        stack.to(memory_format=torch.channels_last)
    for layer in stack:
        if not way.get("fused", True):
            for group in layer.optimizer.param_groups:
                group["fused"] = None
        if way.get("compile"):
            layer.enc.compile(dynamic=False)
            layer.ae.compile(dynamic=False)
    return stack.train()


def batches(model: str, small: bool, count: int, device: torch.device) -> list[Pair]:
    """Return batches with the shapes of real data, on `device`."""
    draw = torch.Generator().manual_seed(1)
    made: list[Pair] = []
    for _ in range(count):
        if model in ("vgg", "resnet"):
            size = 8 if small else 128
            x: Any = torch.randn(size, 3, 32, 32, generator=draw).to(device)
            classes = 200
        else:
            size, positions, words, classes = (8, 12, 1000, 14) if small else (64, 128, 30000, 14)
            tokens = torch.randint(1, words, (size, positions), generator=draw)
            lengths = torch.randint(positions // 4, positions + 1, (size,), generator=draw)
            x = tokens.to(device), lengths.to(device)
        made.append((x, torch.randint(classes, (size,), generator=draw).to(device)))
    return made


def measure(model: str, way: dict[str, Any], small: bool, device: torch.device, steps: int) -> dict[str, Any]:
    """Train `steps` batches in one way and return samples/s, the launch-bound share and the peak memory."""
    gc.collect()  # an earlier run's layers sit in reference cycles, and would count as this one's memory
    if device.type == "cuda":
        torch.cuda.empty_cache()
    data = batches(model, small, 4, device)
    stack = build(model, small, way, device)
    options: dict[str, Any] = {"threads": 1, "cuda_graph": way["cuda_graph"]}
    if way["schedule"] == "continuous":
        options["stages"] = [1] * len(stack) if way.get("stage_per_layer") else [len(stack)]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    autocast = torch.autocast(device.type, dtype=torch.bfloat16) if way.get("bf16") else nullcontext()
    with autocast, make_schedule(way["schedule"], stack, **options) as schedule:
        _exhaust(schedule.run(_cycle(data, 5)))
        _synchronize(device)
        start = time.perf_counter()
        _exhaust(schedule.run(_cycle(data, steps)))
        launched = time.perf_counter() - start
        _synchronize(device)
        total = time.perf_counter() - start
        graphs = [worker._graph is not None for worker in getattr(schedule, "_workers", [])]
    return {
        "samples_per_s": steps * len(data[0][1]) / total,
        # What is left once the host has asked for everything is the time in which the device was behind.
        "launch_bound": launched / total,
        "peak_memory_mb": torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else None,
        "graphs": graphs,
    }


def _exhaust(losses: Iterable[Any]) -> None:
    for _ in losses:
        pass


def _cycle(data: list[Pair], count: int) -> Iterator[Pair]:
    for number in range(count):
        yield data[number % len(data)]


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def run_tests() -> dict[str, Any]:
    """Run the tests that are marked for a GPU and return their outcome."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-rs", "-p", "no:cacheprovider"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=HERE.parents[1], check=False)
    return {"returncode": done.returncode, "output": (done.stdout + done.stderr)[-6000:]}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write the JSON after every figure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda:0", help="cpu tries the script out, with small models and no graphs")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3, help="interleaved repetitions of every way")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--minutes", type=float, default=8.0, help="begin no further measurement after so long")
    parser.add_argument("--no-tests", action="store_true", help="leave out the tests marked gpu")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    given = parser.parse_args(argv)
    device = torch.device(given.device)
    small = device.type == "cpu"
    if not small:
        set_deterministic()  # as the commands do; else the eager step need not equal itself, and graphs are refused
    if not small and not torch.cuda.is_available():
        print("error: there is no CUDA device here; --device cpu tries the script out", file=sys.stderr)
        return 2
    end = time.monotonic() + 60 * given.minutes
    ways = {name: way for name, way in WAYS.items() if not small or way["cuda_graph"] == "off"}
    results: dict[str, Any] = {
        "command": "python -m benchmarks.gpu " + " ".join(sys.argv[1:] if argv is None else argv),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "provenance": collect([device]),
        "steps": given.steps,
        "tests": None if given.no_tests else run_tests(),
        "runs": [],
    }
    for repeat in range(given.repeats):
        for model in given.models:
            for name, way in ways.items():
                if time.monotonic() > end:
                    continue
                try:
                    found = measure(model, way, small, device, given.steps)
                except Exception as error:  # one way that fails must not cost the others' figures
                    found = {"failed": f"{type(error).__name__}: {error}"[:500]}
                results["runs"].append({"repeat": repeat, "model": model, "way": name, **found})
                print(results["runs"][-1], file=sys.stderr, flush=True)
                given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(markdown(results))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
