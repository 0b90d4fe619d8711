"""Every layer is compiled for every shape before training begins, and compiling leaves no mark on a model."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ALPackage import AE, AL, ENC, ALStack
from models import BPStack
from models.blocks import Block
from training.compiling import compile_layers
from training.errors import ConfigError
from training.trainer import ALTrainer

from ..ALPackage.hooked import assert_equal, snapshot
from .test_experiment import command

PARTS = ("enc", "ae")


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Drop what torch has compiled, which is kept per line of code and not per model."""
    yield
    torch.compiler.reset()


def f() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU())


def al(layers: int = 2) -> ALStack:
    return ALStack(AL(ENC(f(), nn.Linear(4, 3)), AE(nn.Linear(3, 3), nn.Linear(3, 3))) for _ in range(layers))


def bp() -> BPStack:
    return BPStack([Block(f"conv_{number}", f(), nn.LazyLinear) for number in (1, 2)], nn.Linear(4, 3))


def batches(*sizes: int) -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(size, 4), torch.randn(size, 3)) for size in sizes]


def replace_compile(monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]) -> list[tuple[nn.Module, dict[str, Any]]]:
    """Let a compiled module call `run(module, *inputs)`; return the modules and the options."""
    compiled: list[tuple[nn.Module, dict[str, Any]]] = []

    def compile_(self: nn.Module, **options: Any) -> None:
        compiled.append((self, options))
        self._compiled_call_impl = lambda *inputs: run(self, *inputs)

    monkeypatch.setattr(nn.Module, "compile", compile_)
    return compiled


def plain(module: nn.Module, *inputs: Any) -> Any:
    return module.forward(*inputs)


@pytest.mark.parametrize("build", [al, bp])
def test_every_layer_is_compiled_and_called_with_every_shape(
    build: Callable[[], ALStack | BPStack], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build()
    sizes: dict[int, list[int]] = {}

    def run(module: nn.Module, *inputs: Tensor) -> Any:
        sizes.setdefault(id(module), []).append(len(inputs[0]))
        return module.forward(*inputs)

    compiled = replace_compile(monkeypatch, run)
    compile_layers(model, batches(5, 2))
    if isinstance(model, ALStack):
        parts: list[nn.Module] = [part for layer in model for part in (layer.enc, layer.ae)]
    else:
        parts = list(model.layers.values())
    assert [(id(module), options) for module, options in compiled] == [(id(part), {"dynamic": False}) for part in parts]
    assert sizes == {id(part): [5, 2] for part in parts}


def test_weights_buffers_and_moments_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_compile(monkeypatch, plain)
    stack = al()
    stack(*batches(6)[0])
    stack.backward_and_update()
    before = snapshot(stack)
    assert any("moment" in name for name in before)
    stack.eval()
    compile_layers(stack, batches(5, 2))
    assert_equal(snapshot(stack), before)
    assert stack.training
    assert all(parameter.grad is None for parameter in stack.parameters())
    stack(*batches(6)[0])  # no batch waits for its backward pass

    model = bp()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    compile_layers(model, batches(5, 2))
    assert_equal(model.state_dict(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("build", [al, bp])
@pytest.mark.parametrize("error", [RuntimeError("no compiler\nand much more"), KeyboardInterrupt()])
def test_a_failure_is_one_line_and_leaves_the_model_fit_for_training(
    build: Callable[[], ALStack | BPStack], error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    calls = 0

    def run(module: nn.Module, *inputs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 6:  # in the second batch
            raise error
        return module.forward(*inputs)

    replace_compile(monkeypatch, run)
    expected = ConfigError if isinstance(error, Exception) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        compile_layers(model, batches(5, 2))
    if expected is ConfigError:
        words = "compile: torch.compile does not work here (RuntimeError: no compiler); leave compile at false"
        assert str(caught.value) == words
    assert_equal(model.state_dict(), state)
    assert all(parameter.grad is None for parameter in model.parameters())
    if isinstance(model, ALStack):
        model(*batches(3)[0])  # no batch waits for its backward pass


def test_a_torch_that_cannot_compile_at_all_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_(self: nn.Module, **options: Any) -> None:
        raise RuntimeError("torch.compile is not supported on Python 3.99+")

    monkeypatch.setattr(nn.Module, "compile", compile_)
    with pytest.raises(ConfigError, match=r"^compile: .*not supported on Python 3\.99\+\); leave compile at false$"):
        compile_layers(al(), batches(2))


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let torch trace the layers but compile nothing; return the names of the threads it was asked to compile on."""
    threads: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        threads.append(threading.current_thread().name)
        return graph.forward

    def compile_(self: nn.Module, **options: Any) -> None:
        self._compiled_call_impl = torch.compile(self._call_impl, backend=backend, **options)

    monkeypatch.setattr(nn.Module, "compile", compile_)
    return threads


def test_nothing_is_left_to_compile_when_the_workers_run(traced: list[str]) -> None:
    stack = al(layers=5)
    compile_layers(stack, batches(5, 2))
    assert traced == ["MainThread"] * 5 * 2 * 2  # layers, parts, sizes
    with ALTrainer(stack, "continuous", threads=1) as trainer:
        trainer.train(batches(5, 5, 2), lambda step: 0.01, lambda losses: None)
    assert len(traced) == 5 * 2 * 2


def test_a_command_compiles_on_the_main_thread_only(
    traced: list[str], datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    text = "tinyImageNet vgg --method al --workers 2 --set threads=1 --set compile=true --set augmentation=strong"
    assert command("vision", text, datasets, tmp_path) == 0
    assert set(traced) == {"MainThread"}
    assert len(traced) == 2 * 4 * 2 * 2  # models (one to warm up), layers, parts, sizes


@pytest.mark.skipif(
    not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++")),
    reason="torch.compile needs a C++ compiler, and there is none",
)
def test_a_compiled_layer_computes_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    stack, twin = al(layers=1), al(layers=1)
    twin.load_state_dict(stack.state_dict())
    with torch._inductor.config.patch(compile_threads=1):
        compile_layers(stack, batches(5))
    assert list(tmp_path.rglob("*.so")), "nothing was compiled"
    x, y = batches(5)[0]
    for one in (stack, twin):
        one(x, y)
    assert [float(loss) for loss in stack.loss()[0]] == pytest.approx([float(loss) for loss in twin.loss()[0]])
