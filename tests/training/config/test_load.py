"""The schema's defaults are what ships, and every mistake is one line that says what, where and how to mend it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.config.load import (
    check_workers,
    device_list,
    layer_count,
    layer_names,
    length_limit,
    load_config,
    resolve_model,
)
from training.config.objectives import flat
from training.config.recipes import RECIPES
from training.config.schema import RESUME_MAY_CHANGE, CommonConfig, Task, TextConfig, VisionConfig, schema
from training.config.sections import sections
from training.errors import ConfigError, UsageError

ROOT = Path(__file__).parents[3]
SHIPPED: dict[Task, Path] = {"vision": ROOT / "cvconfig.json", "text": ROOT / "nlpconfig.json"}


def text_config(**keys: Any) -> CommonConfig:
    """Return a config of the text task."""
    return schema("text")(**keys)


def mistake(tmp_path: Path, task: Task, text: str | bytes, *overrides: str) -> str:
    """Return the message that answers a wrong config file (with overrides)."""
    path = tmp_path / "config.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load_config(task, path, overrides)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize("task", ["vision", "text"])
def test_shipped_file_holds_every_key_with_its_default(task: Task) -> None:
    shipped = json.loads(SHIPPED[task].read_text())
    defaults = schema(task)().model_dump(mode="json")
    assert shipped == defaults, "see CONTRIBUTING.md for the command that writes the file"
    assert list(shipped) == list(defaults)
    assert shipped["bp_gpu_list"] == shipped["al_gpu_list"] == "auto"
    assert load_config(task, SHIPPED[task]) == schema(task)()


@pytest.mark.parametrize(("task", "key"), [(task, key) for task in SHIPPED for key in schema(task).model_fields])
def test_a_value_that_no_key_can_have_is_refused_for_every_key(task: Task, key: str, tmp_path: Path) -> None:
    """Guards a bug: what is expected of a truth value had no words."""
    assert f"{key}: got " in mistake(tmp_path, task, json.dumps({key: [[1]]}))


def test_keys_of_the_earlier_code_are_known() -> None:
    vision = "train_batch_size test_batch_size augmentation in_channels enc_dim ae_dim act base_lr end_lr"
    text = "batch_size min_len max_len pretrained_model embedding_dim vocab_size x_hid y_hid n_heads n_layers"
    text += " act dropout lr"
    common = "epochs outputpath bp_gpu_list al_gpu_list"
    assert set(f"{vision} {common}".split()) <= set(schema("vision").model_fields)
    assert set(f"{text} {common}".split()) <= set(schema("text").model_fields)


def test_a_partial_file_keeps_the_other_defaults_and_overrides_win(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text('\ufeff{"epochs": 3, "base_lr": 1}', encoding="utf-8")
    config = load_config("vision", path, ["epochs=4", "act=gelu", "in_channels=3", "outputpath=a=b", "epochs=5"])
    assert isinstance(config, VisionConfig)
    assert (config.epochs, config.act, config.in_channels, config.outputpath) == (5, "gelu", 3, "a=b")
    assert config.base_lr == 1.0
    assert isinstance(config.base_lr, float)
    assert config.train_batch_size == VisionConfig().train_batch_size


@pytest.mark.parametrize("task", ["vision", "text"])
def test_a_recipe_goes_over_the_file_and_under_what_is_set(task: Task, tmp_path: Path) -> None:
    config = load_config(task, SHIPPED[task], ["recipe=thesis"])
    given = config.model_dump()
    assert {key: given[key] for key in RECIPES["thesis"][task]} == RECIPES["thesis"][task]
    assert (config.recipe, config.association) == ("thesis", "mse")

    changed = load_config(task, SHIPPED[task], ["epochs=2", "recipe=thesis", "seed=4"])
    assert (changed.epochs, changed.seed, changed.codes) == (2, 4, config.codes)
    assert changed.recipe == "default"  # so that the saved config, read again, means the same
    path = tmp_path / "saved.json"
    path.write_text(changed.model_dump_json())
    assert load_config(task, path) == changed
    path.write_text(config.model_dump_json())
    assert load_config(task, path) == config


def test_a_mistake_beside_a_recipe_names_it() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("text", SHIPPED["text"], ["recipe=thesis", "lr=1e-5"])
    assert str(caught.value).startswith('recipe "thesis" with --set lr=1e-5: end_lr: got 0.00025')


def test_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(ConfigError, match='recipe: got "best"; expected one of "default", "thesis"'):
        load_config("vision", SHIPPED["vision"], ["recipe=best"])
    with pytest.raises(ConfigError, match=r"recipe: got \[1\]"):
        load_config("vision", SHIPPED["vision"], ["recipe=[1]"])


def test_a_part_of_an_object_can_be_set(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text('{"al_gpu_list": {"resnet": "auto"}}')
    config = load_config("vision", path, ['al_gpu_list.vgg=["cpu", "cpu", "cpu", "cpu"]'])
    assert config.al_gpu_list == {"resnet": "auto", "vgg": ["cpu"] * 4}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "line 1, column 1: broken JSON"),
        ('{"epochs": 1,\n "act" "relu"}', "line 2, column 8: broken JSON"),
        ("[]", "holds []; expected an object"),
        ('{"epochs": 1, "epochs": 2}', '"epochs" is there twice'),
        ('{"base_lr": NaN}', "NaN is not a number in JSON"),
        ('{"base_lr": -Infinity}', "-Infinity is not a number in JSON"),
        ('{"base_lr": 1e999}', "base_lr: got Infinity; expected a number above 0"),
        ('{"seed": ' + "1" * 5000 + "}", "thousands of digits"),
        (b'{"act": "\xff"}', "not text in UTF-8 (byte 9)"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_broken_file_is_named_with_the_place(tmp_path: Path, text: str | bytes, expected: str) -> None:
    message = mistake(tmp_path, "vision", text)
    assert message.startswith(str(tmp_path / "config.json"))
    assert expected in message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.json: there is no such file; name another with --config"):
        load_config("text", tmp_path / "none.json")
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\)"):
        load_config("text", tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"epoch": 3}', '"epoch" is not a key: did you mean "epochs"?'),
        ('{"EPOCHS": 3}', 'did you mean "epochs"?'),
        ('{"zzz": 3}', '"zzz" is not a key: the right ones are recipe, outputpath'),
        ('{"batch_size": 3}', '"batch_size" is a key of the text task, not of the vision task'),
        ('{"epochs": "20"}', 'epochs: got "20"; expected a whole number of at least 1'),
        ('{"epochs": true}', "epochs: got true; expected a whole number"),
        ('{"epochs": 20.0}', "epochs: got 20.0; expected a whole number"),
        ('{"epochs": 0}', "epochs: got 0; expected a whole number of at least 1"),
        ('{"epochs": null}', "epochs: got null"),
        ('{"seed": -1}', "seed: got -1; expected a whole number of at least 0"),
        ('{"base_lr": true}', "base_lr: got true; expected a number above 0"),
        ('{"base_lr": 1' + "0" * 400 + "}", "base_lr: got 1000"),
        ('{"base_lr": 0}', "base_lr: got 0; expected a number above 0"),
        ('{"val_fraction": 0.6}', "val_fraction: got 0.6; expected a number above 0, at most 0.5"),
        ('{"width": 4.1}', "width: got 4.1; expected a number above 0, at most 4"),
        ('{"train_batch_size": 1}', "train_batch_size: got 1; expected a whole number of at least 2"),
        ('{"threads": 0}', "threads: got 0; expected a whole number of at least 1, at most 4096, or null"),
        ('{"act": "swish"}', 'act: got "swish"; expected one of "relu", "leaky_relu"'),
        ('{"schedule": "gpipe"}', 'expected one of "sequential", "al-fm", "continuous"'),
        (
            '{"image_size": 40}',
            "image_size: got 40; expected a whole number of at least 16, at most 256, a multiple of 16",
        ),
        ('{"in_channels": 2}', 'in_channels: got 2; expected one of "auto", 1, 3'),
        ('{"in_channels": true}', "in_channels: got true"),
        ('{"in_channels": 3.0}', "in_channels: got 3.0"),
        ('{"outputpath": ""}', "outputpath: got"),
        ('{"end_lr": 0.1}', "end_lr: got 0.1; expected at most base_lr, which is 0.001"),
        ('{"al_gpu_list": "cpu"}', 'al_gpu_list: got "cpu"; expected "auto", a list of devices such as ["cpu", "cpu"]'),
        ('{"al_gpu_list": [0, -1]}', "al_gpu_list: got [0, -1]; expected"),
        ('{"al_gpu_list": [true]}', "al_gpu_list: got [true]; expected"),
        ('{"al_gpu_list": [1.0]}', "al_gpu_list: got [1.0]; expected"),
        ('{"al_gpu_list": 0}', "al_gpu_list: got 0; expected"),
        ('{"base_lr": "1e-4"}', 'base_lr: got "1e-4"; expected a number above 0: write it without the quotation marks'),
        ('{"al_gpu_list": [""]}', "al_gpu_list: got"),
        ('{"bp_gpu_list": {"vg": "auto"}}', 'bp_gpu_list: "vg" is not a model of this task: did you mean "vgg"?'),
        ('{"bp_gpu_list": {"lstm": "auto"}}', "the right ones are vgg, resnet"),
    ],
)
def test_a_wrong_value_says_key_found_and_expected(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in mistake(tmp_path, "vision", text)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("epochs", "--set epochs: expected key=value"),
        ("=3", "--set =3: expected key=value"),
        ("epochs=", '--set epochs=: epochs: got ""'),
        ("epochs=three", '--set epochs=three: epochs: got "three"; expected a whole number'),
        ("lr=NaN", "--set lr=NaN: NaN is not a number"),
        ("lr=inf", '--set lr=inf: lr: got "inf"'),
        ("n_head=3", '--set n_head=3: "n_head" is not a key: did you mean "n_heads"?'),
        ("width=1", '"width" is a key of the vision task'),
        ("max_len=long", 'max_len: got "long"; expected a whole number of at least 1, at most 65536, or "auto"'),
        ("n_layers=49", "n_layers: got 49; expected a whole number of at least 1, at most 48"),
        ("al_layers=0", "al_layers: got 0; expected a whole number of at least 1, at most 48"),
        ("dropout=1", "dropout: got 1; expected a number of at least 0, below 1"),
        ("pretrained_model=bert", 'pretrained_model: got "bert"; expected "glove", "none", the path of a file'),
        ("end_lr=1", "--set end_lr=1: end_lr: got 1.0; expected at most lr, which is 0.001"),
        ("lr=1e-6", "--set lr=1e-6: end_lr: got 1e-05; expected at most lr, which is 1e-06"),
        ("epochs.x=3", 'epochs: got {"x": 3}'),
        ('al_gpu_list={"lstm":"auto","lstm":"auto"}', '"lstm" is there twice'),
        ("act=a\nb", "expected one of"),
        ("a\nb=1", "is not a key"),
    ],
)
def test_a_wrong_override_is_named_as_it_was_typed(tmp_path: Path, override: str, expected: str) -> None:
    message = mistake(tmp_path, "text", "{}", override)
    assert message.startswith("--set ")
    assert expected in message


def test_a_contradiction_names_both_places(tmp_path: Path) -> None:
    message = mistake(tmp_path, "text", '{"max_len": 4}', "min_len=5")
    assert (
        message
        == f"--set min_len=5 with {tmp_path / 'config.json'}: min_len: got 5; expected at most max_len, which is 4"
    )


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(schema("text").model_fields)),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
        max_leaves=4,
    ),
)
def test_any_value_is_accepted_or_earns_one_line(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: object
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps({key: value}))
    message = ""
    try:
        config = load_config("text", path)
    except UsageError as error:
        message = str(error)
    if message:
        assert len(message.splitlines()) == 1
        assert str(path) in message
    else:
        assert config.model_fields_set == {key}


@pytest.mark.parametrize(
    ("config", "model", "bp", "al"),
    [
        (VisionConfig(), "vgg", 5, 4),
        (VisionConfig(), "resnet", 6, 5),
        (TextConfig(), "lstm", 5, 4),
        (TextConfig(), "transformer", 5, 4),
        (text_config(al_layers=12), "transformer", 14, 13),
        (text_config(cut="joined"), "lstm", 4, 3),
        (text_config(cut="joined", al_layers=2), "transformer", 3, 2),
        (text_config(n_layers=4), "lstm", 5, 4),
        (text_config(n_layers=4, al_layers=1), "transformer", 3, 2),
    ],
)
def test_layers_per_model(config: CommonConfig, model: str, bp: int, al: int) -> None:
    assert layer_count(model, "bp", config) == bp
    assert layer_count(model, "al", config) == al


def test_device_lists_of_every_form() -> None:
    four = ["cpu"] * 4
    assert device_list(VisionConfig(), "vgg", "al") == "auto"
    assert device_list(VisionConfig(al_gpu_list=four), "vgg", "al") == four
    assert device_list(VisionConfig(al_gpu_list={"vgg": four}), "vgg", "al") == four
    assert device_list(VisionConfig(al_gpu_list={"vgg": four}), "resnet", "al") == "auto"
    assert device_list(VisionConfig(al_gpu_list={"vgg": "auto"}), "vgg", "al") == "auto"


def test_a_device_list_of_another_length_says_both_numbers_and_the_model() -> None:
    config = VisionConfig(al_gpu_list=["cpu"] * 3, bp_gpu_list={"resnet": ["cpu"]})
    with pytest.raises(ConfigError) as caught:
        device_list(config, "vgg", "al")
    assert str(caught.value) == ('al_gpu_list has 3 entries, VGG with AL has 4 layers; give 4, or "auto"')
    with pytest.raises(ConfigError, match=r"bp_gpu_list\.resnet has 1 entry, ResNet with BP has 6 layers"):
        device_list(config, "resnet", "bp")
    with pytest.raises(ConfigError, match="has 0 entries"):
        device_list(VisionConfig(al_gpu_list=[]), "vgg", "al")


@pytest.mark.parametrize(
    ("devices", "workers", "message"),
    [
        ("auto", 9, ""),
        (["cpu"] * 4, 9, ""),
        (["cpu:0", "cpu:0", "cpu:7", "cpu"], 2, ""),
        (["cuda:0", "cpu", "cpu:3", "cuda:1"], 1, ""),
        (
            ["cpu:0", "cpu:0", "cpu:7", "cpu"],
            1,
            "workers: got 1, but al_gpu_list ties layers to 2 of them (cpu:0, cpu:7): give at least 2, or "
            '"cpu" for a layer that any worker may run',
        ),
        (
            ["cuda:0"] * 4,
            2,
            'workers: al_gpu_list has no layer on the CPU; leave workers out, or set al_gpu_list to "auto"',
        ),
    ],
)
def test_a_number_of_workers_goes_with_the_devices(devices: Any, workers: int, message: str) -> None:
    config = VisionConfig(al_gpu_list=devices, workers=workers)
    if not message:
        check_workers(config, "vgg")
        return
    with pytest.raises(ConfigError) as caught:
        check_workers(config, "vgg")
    assert str(caught.value) == message
    check_workers(VisionConfig(al_gpu_list=devices), "vgg")


def test_a_list_fits_the_layers_that_the_settings_give() -> None:
    """Guards a bug: with cut=joined a right list was refused, and a wrong one ended in a traceback."""
    lists = {"al_gpu_list": ["cpu"] * 3, "bp_gpu_list": ["cpu"] * 4}
    for method in ("al", "bp"):
        assert device_list(text_config(cut="joined", **lists), "lstm", method) == lists[f"{method}_gpu_list"]
        with pytest.raises(ConfigError, match=f"LSTM with {method.upper()} has .* layers"):
            device_list(text_config(**lists), "lstm", method)
    wrong = text_config(cut="joined", al_gpu_list=["cpu"] * 4, bp_gpu_list=["cpu"] * 5)
    with pytest.raises(ConfigError, match="al_gpu_list has 4 entries, LSTM with AL has 3 layers"):
        device_list(wrong, "lstm", "al")
    with pytest.raises(ConfigError, match="bp_gpu_list has 5 entries, LSTM with BP has 4 layers"):
        device_list(wrong, "lstm", "bp")
    assert layer_names("lstm", "bp", wrong) == ["lstm_1", "lstm_2", "lstm_3", "head"]


def test_heads() -> None:
    def heads(width: int, n_heads: int | str = "auto") -> Any:
        chosen, notes = resolve_model(text_config(embedding_dim=width, n_heads=n_heads), "transformer")
        return chosen["n_heads"], notes

    assert heads(300) == (6, [])
    assert heads(50) == (5, ["n_heads is 5: 6 does not divide the model's width of 50"])
    assert heads(7)[0] == 1
    assert heads(50, 10) == (10, [])
    with pytest.raises(ConfigError, match=r'n_heads: got 6; .* width of 50: give one of 1, 2, 5, 10, or "auto"'):
        heads(50, 6)
    assert resolve_model(text_config(embedding_dim=50, n_heads=6), "lstm") == ({}, [])


def test_auto_bridges_are_those_that_each_model_is_best_with() -> None:
    whole = schema("vision")
    assert resolve_model(whole(), "vgg")[0] == {"bridge": "pool"}
    assert resolve_model(whole(), "resnet")[0] == {"bridge": "conv"}
    assert resolve_model(whole(bridge="deep"), "resnet")[0] == {"bridge": "deep"}


@pytest.mark.parametrize("task", ["vision", "text"])
def test_every_key_has_help_and_stands_in_one_section(task: Task) -> None:
    keys = [key for section in sections(task) for key in section.keys]
    shipped = flat(json.loads(SHIPPED[task].read_text()))
    assert sorted(keys) == sorted(shipped)
    assert all(field.description for field in schema(task).model_fields.values())
    assert set(keys) >= RESUME_MAY_CHANGE - {"test_batch_size"}


def test_length_limit_follows_the_data_set() -> None:
    assert length_limit(TextConfig(), "imdb") == 256
    assert length_limit(TextConfig(), "agnews") == 128
    assert length_limit(TextConfig(max_len=7), "imdb") == 7
    with pytest.raises(ConfigError, match="min_len: got 200; expected at most max_len, which is 128 for agnews"):
        length_limit(TextConfig(min_len=200), "agnews")


def test_a_config_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValueError, match="frozen"):
        VisionConfig().epochs = 3


def test_a_file_of_results_is_told_apart_from_a_config(tmp_path: Path) -> None:
    message = mistake(tmp_path, "vision", json.dumps({"dataset": "digits", "config": {"epochs": 3}}))
    assert 'is a file of results: put its "config" into a file of its own, without' in message
