"""The keys of a stack that grows: which layers train in which epoch, and what is refused before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from training.config.arguments import read_command
from training.config.growth import Stage, growth_notes, stage_at
from training.config.schema import Task, VisionConfig
from training.errors import ConfigError


def config(**keys: Any) -> VisionConfig:
    return VisionConfig.model_validate(keys)


def test_each_entry_is_for_how_many_epochs_a_layer_is_the_newest() -> None:
    growing = config(grow=[2, 1, 3], grow_lr=0.5, epochs=8)
    stages = [stage_at(growing, 3, epoch) for epoch in range(1, 9)]
    assert stages == [Stage(1, 0.5)] * 2 + [Stage(2, 0.5)] + [Stage(3, 0.5)] * 3 + [Stage(3)] * 2
    assert [stages[3].factor(layer) for layer in (1, 2, 3)] == [0.5, 0.5, 1.0]
    assert [stage.freezes for stage in (stages[3], Stage(3, 0.0), Stage(1, 0.0))] == [False, True, False]
    assert {stage_at(config(epochs=3), 3, epoch) for epoch in (1, 2, 3)} == {Stage(3)}
    # Without another rate for the earlier layers, the last entry has no end.
    assert stage_at(config(grow=[1, 1]), 2, 2) == stage_at(config(grow=[1, 1]), 2, 20)


def test_a_reader_is_told_which_layers_train_when() -> None:
    growing = config(grow=[2, 1, 3], grow_lr=0, epochs=8)
    told, chosen = growth_notes(growing, "al", 3)
    assert told == (
        "grow: the stack has 1 layer from epoch 1, 2 from epoch 3, 3 from epoch 4; those before the newest one are "
        "frozen, in evaluation mode; from epoch 7 on, all train alike"
    )
    assert "the epoch that is reported" in chosen
    assert "take 0.1 of the learning rate" in growth_notes(config(grow=[1, 1], grow_lr=0.1), "al", 2)[0]
    assert "newest" not in growth_notes(config(grow=[1, 1]), "al", 2)[0]
    assert growth_notes(growing, "bp", 5) == ["grow: BP trains all layers from the first epoch on"]
    assert growth_notes(config(), "al", 3) == []


@pytest.mark.parametrize(
    ("task", "line", "error"),
    [
        ("vision", "--set grow=[2,2]", "grow has 2 entries, VGG with AL has 4 layers; give 4, or null"),
        ("vision", "--set grow=[9,9,9,9]", "grow: its epochs are 36 in all; expected at most epochs, which is 20"),
        (
            "vision",
            "--set grow=[1,1,0,1]",
            "--set grow=[1,1,0,1]: grow: got [1, 1, 0, 1]; expected a list of numbers of epochs such as [2, 2, 2, 2], "
            "each at least 1, or null",
        ),
        ("vision", "--set grow_lr=0", "grow_lr: got 0, but without grow no layer is added later; set grow too, or"),
        ("vision", "--set grow_lr=2", "--set grow_lr=2: grow_lr: got 2; expected a number of at least 0, at most 1"),
        ("vision", "--method bp --set grow=[1,1,1,1]", "grow: BP trains all layers from the first epoch on; add a"),
        ("vision", "--set compile=true --set grow_lr=0 --set grow=[1,1,1,1]", "grow_lr: got 0 with compile; a frozen"),
        ("text", "--set al_layers=2 --set grow=[1,1,1,1]", "grow has 4 entries, LSTM with AL has 3 layers; give 3"),
    ],
)
def test_what_does_not_go_together_is_refused(task: Task, line: str, error: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({}))
    names = "digits vgg" if task == "vision" else "agnews lstm"
    with pytest.raises(ConfigError) as caught:
        read_command(task, [*names.split(), "--config", str(path), *line.split()])
    assert str(caught.value).startswith(error)
    assert "\n" not in str(caught.value)


def test_what_goes_together_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"grow": [5, 5, 5, 5], "grow_lr": 0}))
    assert read_command("vision", ["digits", "vgg", "--config", str(path)]).config.grow == [5, 5, 5, 5]
