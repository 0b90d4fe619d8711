"""Config files of the earlier public code, and configurations that this program saved when `n_layers` meant more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from training.config.arguments import configure, parse
from training.config.earlier import in_todays_keys, is_earlier
from training.config.load import layer_names, load_config, resolve_model
from training.config.schema import schema
from training.errors import ConfigError

GPUS = ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]
#: The two files as they were shipped.
EARLIER: dict[str, dict[str, Any]] = {
    "vision": {
        "train_batch_size": 128,
        "test_batch_size": 512,
        "augmentation": "strong",
        "in_channels": 3,
        "enc_dim": 1000,
        "ae_dim": 700,
        "act": "relu",
        "base_lr": 1e-4,
        "end_lr": 1e-5,
        "epochs": 200,
        "bp_gpu_list": [GPUS[0], *GPUS, GPUS[3]],
        "al_gpu_list": GPUS,
        "outputpath": "./result",
    },
    "text": {
        "batch_size": 256,
        "min_len": 1,
        "pretrained_model": "glove",
        "embedding_dim": 300,
        "vocab_size": 30000,
        "x_hid": 256,
        "y_hid": 128,
        "n_heads": 6,
        "n_layers": 1,
        "act": "tanh",
        "dropout": 0.3,
        "lr": 0.00025,
        "epochs": 20,
        "bp_gpu_list": [*GPUS, GPUS[3]],
        "al_gpu_list": GPUS,
        "outputpath": "./result",
    },
}


@pytest.fixture(params=["vision", "text"])
def task(request: pytest.FixtureRequest) -> Any:
    return request.param


def command(task: Any, folder: Path, line: str, **changed: Any) -> Any:
    """Return the config of a command with the earlier file."""
    path = folder / "earlier.json"
    path.write_text(json.dumps({**EARLIER[task], **changed}))
    return configure(parse(task, [*line.split(), "--config", str(path)]))


def test_the_files_are_accepted_with_every_key(task: Any, tmp_path: Path) -> None:
    models = ("vgg",) if task == "vision" else ("lstm", "transformer")
    for model in models:
        config = command(task, tmp_path, f"{'digits' if task == 'vision' else 'docstrings'} {model} --method al")
        assert {key: getattr(config, key) for key in EARLIER[task]} == EARLIER[task]
        assert len(layer_names(model, "al", config)) == 4
        assert resolve_model(config, model)[1] == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("digits vgg --set al_gpu_list=auto", 'bp_gpu_list has 6 entries, VGG with BP has 5 layers; give 5, or "auto"'),
        ("digits resnet --method al", 'al_gpu_list has 4 entries, ResNet with AL has 5 layers; give 5, or "auto"'),
    ],
)
def test_lists_of_another_length(line: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        command("vision", tmp_path, line)
    assert str(caught.value) == message


@pytest.mark.parametrize("unused", [[], ["cpu"], ["nonsense"] * 9, [7, 7]])
def test_the_list_of_a_method_that_does_not_run_is_not_checked(unused: list[Any], tmp_path: Path) -> None:
    command("vision", tmp_path, "digits vgg --method al", bp_gpu_list=unused)
    command("text", tmp_path, "docstrings lstm --method bp", al_gpu_list=unused)
    with pytest.raises(ConfigError, match=f"bp_gpu_list has {len(unused)} entr"):
        command("vision", tmp_path, "digits vgg --method bp", bp_gpu_list=unused)


def test_whole_numbers_are_gpus(tmp_path: Path) -> None:
    given = {"al_gpu_list": [0, 1, 2, 3], "bp_gpu_list": {"vgg": [0, "cpu", 1, "1", "cuda:2"], "resnet": "auto"}}
    config = command("vision", tmp_path, "digits vgg", **given)
    assert config.al_gpu_list == GPUS
    assert config.bp_gpu_list == {"vgg": ["cuda:0", "cpu", "cuda:1", "cuda:1", "cuda:2"], "resnet": "auto"}


def notes(task: Any, path: Path, *overrides: str) -> list[str]:
    config = load_config(task, path, overrides)
    both = [resolve_model(config, model)[1] for model in ("lstm", "transformer")]
    assert both[0] == both[1]
    return both[0]


def test_more_layers_within_a_layer_are_pointed_out_unless_both_keys_are_given(tmp_path: Path) -> None:
    path, shipped = tmp_path / "c.json", Path(__file__).parents[3] / "nlpconfig.json"

    def noted(keys: dict[str, Any], *overrides: str) -> list[str]:
        path.write_text(json.dumps(keys))
        return notes("text", path, *overrides)

    note = (
        "n_layers=2 is the number of LSTM or encoder layers within each AL layer, and al_layers=3 the number of AL "
        "layers after the embedding, which n_layers meant in earlier versions: give al_layers too (for the earlier "
        "meaning, al_layers=2 and n_layers=1)"
    )
    assert noted({"n_layers": 2}) == [note]
    assert noted({}, "n_layers=2") == [note]
    assert noted({"al_layers": 3, "n_layers": 2}) == []
    assert noted({"n_layers": 2}, "al_layers=3") == []
    assert noted({"al_layers": 4}, "n_layers=2") == []
    assert noted({"n_layers": 1}) == noted({"al_layers": 5}) == noted({}) == []
    # The shipped file holds every key, so that it cannot show that the user knows of this one.
    assert notes("text", shipped, "n_layers=2") == [note]
    assert notes("text", shipped, "n_layers=2", "recipe=thesis") == [note]
    assert notes("text", shipped, "n_layers=2", "al_layers=3") == []
    assert notes("text", shipped, "al_layers=2") == notes("text", shipped, "n_layers=1") == []


def test_a_configuration_that_was_saved_before_is_read_in_todays_keys() -> None:
    now = schema("text")().model_dump()
    then = {key: value for key, value in now.items() if key != "al_layers"} | {"n_layers": 3}
    assert is_earlier(then)
    assert in_todays_keys(then) == now
    assert not is_earlier(now)
    assert in_todays_keys(now) == now
    vision = schema("vision")().model_dump()
    assert in_todays_keys(vision) == vision
    # A plug-in may have a key of this name.
    assert in_todays_keys({"n_layers": 3, "wire": "bf16"}) == {
        "n_layers": 3,
        "wire": "bf16",
        "sync_batchnorm": False,
        "network_layers": None,
        "network_bridge": "auto",
        "grow": None,
        "grow_lr": 1.0,
    }
    # Before there were these keys, nothing went between processes, no layer had replicas, and no stack grew.
    added = {"wire": "fp32", "sync_batchnorm": False, "grow": None, "grow_lr": 1.0}
    before = {key: value for key, value in vision.items() if key not in added}
    assert in_todays_keys(before) == {**before, **added} == vision
