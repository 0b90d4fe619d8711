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
from training import record
from training.compiling import compile_layers
from training.errors import ConfigError
from training.trainer import ALTrainer, mixed_precision

from ..ALPackage.hooked import assert_equal, snapshot
from .test_experiment import command

Build = Callable[[], ALStack | BPStack]


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Drop what torch has compiled, which is kept per line of code and not per model."""
    yield
    torch.compiler.reset()


def al(layers: int = 2) -> ALStack:
    """Return a stack whose layers differ in width, so that no two of them can share compiled code."""
    return ALStack(
        AL(
            ENC(nn.Sequential(nn.Linear(4 + n, 5 + n), nn.BatchNorm1d(5 + n)), nn.Linear(5 + n, 4 + n)),
            AE(nn.Linear(3 + n, 4 + n), nn.Linear(4 + n, 3 + n)),
        )
        for n in range(layers)
    )


def bp() -> BPStack:
    f = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh())
    return BPStack([Block("conv_1", f, nn.LazyLinear)], nn.Linear(4, 3))


def batches(*sizes: int) -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(size, 4), torch.randn(size, 3)) for size in sizes]


def replace_compile(monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]) -> list[tuple[nn.Module, dict[str, Any]]]:
    """Let a compiled module call `run(module, *inputs)`; return the modules and the options."""
    compiled: list[tuple[nn.Module, dict[str, Any]]] = []

    def replacement(self: nn.Module, **options: Any) -> None:
        compiled.append((self, options))
        self._compiled_call_impl = lambda *inputs: run(self, *inputs)

    monkeypatch.setattr(nn.Module, "compile", replacement)
    return compiled


@pytest.mark.parametrize("build", [al, bp])
def test_every_layer_sees_every_shape_and_the_model_stays_as_it_is(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()
    sizes: dict[int, list[int]] = {}

    def run(module: nn.Module, *inputs: Tensor) -> Any:
        sizes.setdefault(id(module), []).append(len(inputs[0]))
        return module.forward(*inputs)

    if isinstance(model, ALStack):
        model(*batches(6)[0])
        model.backward_and_update()  # now there are moments
    before = snapshot(model) if isinstance(model, ALStack) else {k: v.clone() for k, v in model.state_dict().items()}
    model.eval()
    compiled = replace_compile(monkeypatch, run)
    compile_layers(model, batches(5, 2), 1)
    layers = [(layer.enc, layer.ae) for layer in model] if isinstance(model, ALStack) else [model.layers.values()]
    parts = [id(part) for pair in layers for part in pair]
    assert [(id(module), options) for module, options in compiled] == [(part, {"dynamic": False}) for part in parts]
    assert sizes == {part: [5, 2] for part in parts}
    assert_equal(snapshot(model) if isinstance(model, ALStack) else model.state_dict(), before)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("build", [al, bp])
@pytest.mark.parametrize("error", [RuntimeError("no compiler\nand much more"), KeyboardInterrupt()])
def test_a_failure_is_one_line_and_leaves_the_model_fit_for_training(
    build: Build, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    answers = iter([None] * 5 + [error] + [None] * 20)  # in the second batch

    def run(module: nn.Module, *inputs: Any) -> Any:
        if (answer := next(answers)) is not None:
            raise answer
        return module.forward(*inputs)

    replace_compile(monkeypatch, run)
    words = "compile: torch.compile does not work here (RuntimeError: no compiler); leave compile at false"
    with pytest.raises(ConfigError if isinstance(error, Exception) else KeyboardInterrupt) as caught:
        compile_layers(model, batches(5, 3, 2), 1)
    assert str(caught.value) == (words if isinstance(error, Exception) else "")
    assert_equal(model.state_dict(), before)
    assert all(parameter.grad is None for parameter in model.parameters())
    if isinstance(model, ALStack):
        model(*batches(3)[0])  # which a batch that waits for its backward pass would refuse


def test_a_torch_that_cannot_compile_at_all_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def replacement(self: nn.Module, **options: Any) -> None:
        raise RuntimeError("torch.compile is not supported on Python 3.99+")

    monkeypatch.setattr(nn.Module, "compile", replacement)
    with pytest.raises(ConfigError, match=r"^compile: .*not supported on Python 3\.99\+\); leave compile at false$"):
        compile_layers(al(), batches(2), 1)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let torch trace the layers but compile nothing; return the names of the threads it was asked to compile on."""
    threads: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        threads.append(threading.current_thread().name)
        return graph.forward

    def replacement(self: nn.Module, **options: Any) -> None:
        self._compiled_call_impl = torch.compile(self._call_impl, backend=backend, **options)

    monkeypatch.setattr(nn.Module, "compile", replacement)
    return threads


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("schedule", ["al-fm", "continuous"])
def test_nothing_is_left_to_compile_when_the_workers_run(schedule: str, precision: str, traced: list[str]) -> None:
    stack = al()
    torch.set_num_threads(2)  # the caller's, while a worker has one
    with mixed_precision(stack.devices, precision):
        compile_layers(stack, batches(5, 2), 1)
    assert traced == ["MainThread"] * 2 * 2 * 2  # layers, parts, sizes
    with ALTrainer(stack, schedule, precision=precision, threads=1) as trainer:
        trainer.train(batches(5, 5, 2), lambda step: 0.01, lambda losses: None)
    assert len(traced) == 2 * 2 * 2


def test_the_layers_of_a_deep_model_are_compiled_too(traced: list[str]) -> None:
    compile_layers(al(layers=5), batches(5, 2), 1)
    assert len(traced) == 5 * 2 * 2


def test_a_command_compiles_on_the_main_thread_only(
    traced: list[str], datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(record, "draw", lambda *arguments: [])
    few = "--limit-train 6 --set train_batch_size=4 --set image_size=16 --set epochs=1 --set augmentation=strong"
    text = f"tinyImageNet vgg --method al --workers 2 --set threads=1 --set compile=true {few}"
    assert command("vision", text, datasets, tmp_path) == 0
    assert set(traced) == {"MainThread"}


@pytest.mark.skipif(
    not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++")),
    reason="torch.compile needs a C++ compiler, and there is none",
)
def test_what_is_really_compiled_computes_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    model, (x, labels) = bp(), batches(5)[0]
    expected = model.train()(x).detach()
    compile_layers(model, [(x, labels)], 1)
    assert list(tmp_path.rglob("*.so")), "nothing was compiled"
    torch.testing.assert_close(model(x), expected)
