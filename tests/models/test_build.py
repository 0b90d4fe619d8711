"""Building by settings: what any registered model and objective get, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from models import Block, ImageShape, ModelEntry, ObjectiveEntry, Settings, Training, VisionSettings, registry
from models.build import build_model
from models.objective_settings import ALSettings
from models.vision_settings import VGGSettings

SHAPE = ImageShape(n_classes=3, channels=1, size=16)
TRAINING = Training(lr=0.1, code_dim=4)


@pytest.fixture
def twin(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Register a model "twin" whose builder may be replaced, and forget it after the test."""
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))
    monkeypatch.setattr(registry, "_OBJECTIVES", dict(registry._OBJECTIVES))

    def register(names: list[str]) -> None:
        def build(shape: ImageShape, settings: Any) -> tuple[list[Block], nn.Module]:
            f = nn.Sequential(nn.Flatten(), nn.Linear(256, 8))
            return [Block("one", f, lambda width: nn.Linear(8, width))], nn.Linear(8, shape.n_classes)

        entry = ModelEntry(name="twin", task="vision", settings=Settings, layers=lambda _: names, build=build)
        registry.register_model(entry)

    return register


def test_a_model_needs_no_more_than_its_settings() -> None:
    settings = VGGSettings(width=0.05, enc_dim=4)
    stack = build_model("vgg", "al", SHAPE, settings, objective=ALSettings(), training=TRAINING)
    assert list(stack.layers) == ["conv_1", "conv_2", "conv_3", "conv_4"]
    assert list(build_model("vgg", "bp", SHAPE, settings).layers)[-1] == "head"
    with pytest.raises(ValueError, match="al: give the settings of the objective and of the training"):
        build_model("vgg", "al", SHAPE, settings)


def test_a_registered_model_has_both_forms(twin: Any) -> None:
    twin(["one"])
    stack = build_model("twin", "al", SHAPE, Settings(), objective=ALSettings(), training=TRAINING)
    assert stack.names == ["one"]  # type: ignore[union-attr]
    assert build_model("twin", "bp", SHAPE, Settings())(torch.zeros(2, 1, 16, 16)).shape == (2, 3)


def test_layers_that_differ_from_the_entry_are_refused(twin: Any) -> None:
    twin(["one", "two"])
    with pytest.raises(registry.RegistryError, match="its entry names the layers one, two, but one were built"):
        build_model("twin", "bp", SHAPE, Settings())


def test_an_objective_gives_one_layer_per_block(twin: Any) -> None:
    twin(["one"])

    def build(blocks: list[Block], n_classes: int, settings: Any, training: Training) -> Any:
        stack = registry.load("models.assemble:build_local")(blocks, n_classes, ALSettings(), training)
        stack.layers = nn.ModuleDict({f"my_{name}": layer for name, layer in stack.items()})
        return stack

    registry.register_objective(ObjectiveEntry(name="other", title="Other", settings=Settings, build=build))
    with pytest.raises(registry.RegistryError, match="other: built the layers my_one; expected one per block: one"):
        build_model("twin", "other", SHAPE, Settings(), objective=Settings(), training=TRAINING)


def test_settings_are_checked_when_they_are_made() -> None:
    for wrong in ({"width": "1"}, {"width": 0.0}, {"act": "swish"}, {"unknown": 1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            VisionSettings(**wrong)
    with pytest.raises(ValueError, match="frozen"):
        VisionSettings().width = 2.0


def test_initial_weights_do_not_depend_on_the_number_of_threads() -> None:
    """Guards a bug: the bridges start orthogonal, by a decomposition whose last bits follow the threads."""
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            torch.manual_seed(0)
            stack = build_model(
                "vgg",
                "al",
                SHAPE,
                VGGSettings(width=0.125),
                objective=ALSettings(),
                training=Training(lr=0.1, code_dim=128),
            )
            found.append(stack.state_dict())
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(value, other[name]) for name, value in found[0].items())
