"""The models under every objective: the same numbers in a pipeline, and predictions of every depth."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ALPackage import ALStack, make_schedule
from ALPackage.objectives.by_name import OBJECTIVES
from models import build_text, build_vision, model_names, parameter_counts, registry
from models.settings import checked
from tests.allocated import Allocated
from tests.ALPackage.hooked import SEED, assert_equal, snapshot

CLASSES = 3
QUICK = [one for one in (*model_names("vision"), *model_names("text")) if one != "resnet"]
HEADED = [name for name in OBJECTIVES if name != "al"]


def stack_of(model: str, objective: str, **options: Any) -> ALStack:
    torch.manual_seed(0)
    if model in model_names("vision"):
        size: dict[str, Any] = {"in_channels": 1, "image_size": 16, "width": 0.05, "enc_dim": 8, "ae_dim": 6}
        stack = build_vision(model, objective, n_classes=CLASSES, lr=0.01, **size, **options)
    else:
        size = {"x_hid": 6, "y_hid": 8, "n_heads": 2}
        stack = build_text(model, objective, n_classes=CLASSES, lr=0.01, vectors=torch.randn(20, 8), **size, **options)
    assert isinstance(stack, ALStack)
    return stack


def data(model: str, n: int = 4) -> list[tuple[Any, Tensor]]:
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(CLASSES, (n, 8), generator=draw)
    if model in model_names("vision"):
        return [(torch.randn(8, 1, 16, 16, generator=draw), one) for one in labels]
    lengths = torch.tensor([5, 1, 2, 5, 4, 3, 5, 2])
    return [((torch.randint(1, 20, (8, 5), generator=draw), lengths), one) for one in labels]


def description(stack: ALStack) -> list[Any]:
    """Return all of a stack but the values."""
    tensors = [*stack.named_parameters(), *((name, one) for layer in stack for name, one in layer.named_buffers())]
    groups = [group for layer in stack for group in layer.optimizer.param_groups]
    return [
        str(stack),
        [(name, one.shape, one.stride(), one.dtype, one.requires_grad) for name, one in tensors],
        [layer.state_dict().keys() for layer in stack],
        [{**group, "params": [one.shape for one in group["params"]]} for group in groups],
    ]


@pytest.mark.parametrize("objective", [*OBJECTIVES])
def test_every_model_is_the_same_on_the_device_meta_where_it_takes_no_memory(objective: str) -> None:
    """Their entries promise it: the ranks that get their weights from rank 0 build there."""
    assert registry.objective(objective).on_meta
    variants: dict[str, dict[str, Any]] = {
        "al": {"codes": "tanh"},
        "ce": {"depth": 2},
        "infopro": {"depth": 2},
    }
    for model in (*model_names("vision"), *model_names("text")):
        vision = model in model_names("vision")
        assert registry.model(model).on_meta
        for options in ({}, {"bridge": "deep" if vision else "hidden", **variants.get(objective, {})}):
            with Allocated() as allocated, torch.device("meta"):
                empty = stack_of(model, objective, **options)
            assert allocated.bytes == 0
            assert all(one.is_meta for one in (*empty.parameters(), *empty.buffers()))
            assert description(empty) == description(stack_of(model, objective, **options))


@pytest.mark.parametrize("model", [*QUICK, pytest.param("resnet", marks=pytest.mark.slow)])
@pytest.mark.parametrize("objective", HEADED)
def test_a_pipeline_gives_the_numbers_of_one_worker_and_every_depth_predicts(objective: str, model: str) -> None:
    states = []
    for schedule in ("sequential", "al-fm", "continuous"):
        stack = stack_of(model, objective)
        with make_schedule(schedule, stack, threads=1, seed=SEED) as one:
            assert len(list(one.run(data(model)))) == 4
        states.append(snapshot(stack))
    assert_equal(states[1], states[0])
    assert_equal(states[2], states[0])
    stack.eval()
    assert [one.shape for one in stack.inference_by_depth(data(model)[0][0])] == [(8, CLASSES)] * len(stack)
    trained, used = parameter_counts(stack)
    heads: Iterable[nn.Module] = [head for layer in stack for head in layer.heads.values()]  # type: ignore[union-attr,operator]
    assert 0 < trained - used < sum(p.numel() for head in heads for p in head.parameters())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_configuration_s_defaults_are_the_library_s(name: str) -> None:
    """Texts alone have another temperature in AL."""
    entry, made = registry.objective(name), OBJECTIVES[name]()
    for key, value in checked(entry.settings_of("vision"), {}).model_dump().items():
        assert getattr(made, key) == value, key
