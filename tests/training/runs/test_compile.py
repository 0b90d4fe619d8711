"""Every layer is compiled for every shape before training begins, and compiling leaves no mark on a model."""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ALPackage import AE, AL, ENC, ALStack, to_al
from ALPackage.objectives.by_name import OBJECTIVES
from models import BPModel
from models.blocks import Block
from training.errors import ConfigError
from training.report import gallery
from training.runs.compile import compile_layers
from training.trainers.al import ALTrainer
from training.trainers.trainer import mixed_precision

from ...ALPackage.hooked import State, assert_equal, snapshot
from ..test_experiment import command

Model = ALStack | BPModel


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Drop what torch has compiled, which is kept per line of code and not per model."""
    yield
    torch.compiler.reset()


def al(layers: int = 2) -> ALStack:
    """Return a stack whose layers differ in width, so that no two of them can share compiled code."""
    fs = [nn.Sequential(nn.Linear(n, n + 1), nn.BatchNorm1d(n + 1)) for n in range(4, 4 + layers)]
    aes = [AE(nn.Linear(n, n + 1), nn.Linear(n + 1, n)) for n in range(3, 3 + layers)]
    return ALStack(AL(ENC(f, nn.Linear(n, n - 1)), ae) for n, (f, ae) in enumerate(zip(fs, aes, strict=True), start=5))


def bp() -> BPModel:
    return BPModel([Block("conv_1", nn.Sequential(nn.Linear(4, 4), nn.Tanh()), nn.LazyLinear)], nn.Linear(4, 3))


def batches(*sizes: int) -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(size, 4), torch.randn(size, 3)) for size in sizes]


def state(model: Model) -> State:
    return snapshot(model) if isinstance(model, ALStack) else {k: v.clone() for k, v in model.state_dict().items()}


def replace_compile(patch: pytest.MonkeyPatch, make: Callable[[nn.Module, dict[str, Any]], Callable[..., Any]]) -> None:
    """Let a module call what `make` returns for it and its options, instead of compiled code."""

    def replacement(self: nn.Module, **options: Any) -> None:
        self._compiled_call_impl = make(self, options)

    patch.setattr(nn.Module, "compile", replacement)


@pytest.mark.parametrize("build", [al, bp])
def test_every_part_sees_every_shape_and_the_model_stays_as_it_is(
    build: Callable[[], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, sizes = build(), {}
    if isinstance(model, ALStack):
        model(*batches(6)[0])
        model.backward_and_update()  # now there are moments
    before = state(model)
    model.eval()

    def make(module: nn.Module, options: dict[str, Any]) -> Callable[..., Any]:
        assert options == {"dynamic": False}
        seen = sizes[id(module)] = []
        return lambda *inputs: seen.append(len(inputs[0])) or module.forward(*inputs)

    replace_compile(monkeypatch, make)
    compile_layers(model, batches(5, 2), 1)
    parts = [part for layer in model for part in (layer.enc, layer.ae)] if isinstance(model, ALStack) else []
    assert sizes == {id(part): [5, 2] for part in parts or model.layers.values()}
    assert_equal(state(model), before)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if name != "al"])
def test_every_head_is_compiled_too(objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = [nn.Linear(4, 5), nn.Linear(5, 6)]
    stack, sizes = to_al(network, 3, example=torch.randn(2, 4), objective=objective), {}

    def make(module: nn.Module, options: dict[str, Any]) -> Callable[..., Any]:
        seen = sizes[id(module)] = []
        return lambda *inputs: seen.append(len(inputs[0])) or module.forward(*inputs)

    replace_compile(monkeypatch, make)
    compile_layers(stack, [(torch.randn(size, 4), torch.arange(size) % 3) for size in (5, 2)], 1)
    heads = [part for layer in stack for part in (layer.f, *layer.heads.values())]  # type: ignore[operator,union-attr]
    assert len(heads) > 2 * len(network) - 1
    assert sizes == {id(part): [5, 2] for part in heads}


@pytest.mark.parametrize("build", [al, bp])
@pytest.mark.parametrize("failing", [0, 6])  # torch.compile itself, as on a Python that is too new; the second batch
def test_a_failure_is_one_line_and_leaves_the_model_fit_for_training(
    failing: int, build: Callable[[], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, calls = build(), itertools.count(1)
    before = state(model)

    def fail_at(call: int) -> None:
        if call == failing:
            raise RuntimeError("no compiler\nand much more")

    def make(module: nn.Module, options: dict[str, Any]) -> Callable[..., Any]:
        fail_at(0)
        return lambda *inputs: fail_at(next(calls)) or module.forward(*inputs)

    replace_compile(monkeypatch, make)
    words = r"^compile: torch.compile does not work here \(RuntimeError: no compiler\); leave compile at false$"
    with pytest.raises(ConfigError, match=words):
        compile_layers(model, batches(5, 3, 2), 1)
    assert_equal(state(model), before)
    assert all(parameter.grad is None for parameter in model.parameters())
    if failing and isinstance(model, ALStack):
        model(*batches(3)[0])  # which a batch in flight would forbid


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let torch trace the layers but compile nothing; return the names of the threads it was asked to compile on."""
    threads: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        threads.append(threading.current_thread().name)
        return graph.forward

    replace_compile(monkeypatch, lambda module, options: torch.compile(module._call_impl, backend=backend, **options))
    return threads


@pytest.mark.parametrize(("schedule", "precision"), [("al-fm", "fp32"), ("continuous", "fp32"), ("continuous", "bf16")])
def test_nothing_is_left_to_compile_when_the_workers_run(schedule: str, precision: str, traced: list[str]) -> None:
    stack = al()
    torch.set_num_threads(2)  # the caller's, while a worker has one
    with mixed_precision(stack.devices, precision):
        compile_layers(stack, batches(5, 2), 1)
    assert traced == ["MainThread"] * 2 * 2 * 2  # layers, parts, sizes
    with ALTrainer(stack, schedule, precision=precision, threads=1) as trainer:
        trainer.train_epoch(batches(5, 5, 2), lambda step: 0.01, lambda losses: None)
    assert len(traced) == 2 * 2 * 2


def test_the_layers_of_a_deep_model_are_compiled_too(traced: list[str]) -> None:
    compile_layers(al(layers=5), batches(5, 2), 1)
    assert len(traced) == 5 * 2 * 2


def test_a_command_compiles_on_the_main_thread_only(
    traced: list[str], datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # so that BP, and compiling, would take all cores
    monkeypatch.setattr(gallery, "draw", lambda *arguments: [])
    few = "--limit-train 6 --set train_batch_size=4 --set image_size=16 --set epochs=1"
    text = f"tinyImageNet vggal --workers 2 --set threads=1 --set compile=true {few}"
    assert command("vision", text, datasets, tmp_path) == 0
    assert set(traced) == {"MainThread"}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler, and there is no g++")
def test_what_is_really_compiled_computes_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    model, (x, labels) = BPModel([], nn.Sequential(nn.Linear(4, 3), nn.Tanh())), batches(5)[0]
    expected = model.train()(x).detach()
    compile_layers(model, [(x, labels)], 1)
    assert list(tmp_path.rglob("*.so")), "nothing was compiled"
    torch.testing.assert_close(model(x), expected)
