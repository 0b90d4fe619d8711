"""The settings of the objectives stand in an object each: two may have a key of one name, and a mistake says where."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import data.registry
from models import registry
from training.checkpoints.resume import check_same_run
from training.config import reference
from training.config.earlier import in_todays_keys, with_objectives
from training.config.load import load_config, objective_settings
from training.config.objectives import flat, own
from training.config.overrides import split_key
from training.config.plugins import load_plugin
from training.config.schema import Config, Task, schema
from training.config.unread import of_al_alone
from training.errors import ConfigError, UsageError

TOYS = Path(__file__).parents[1] / "toy_objectives.py"


@pytest.fixture(autouse=True)
def _toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the five objectives of the plug-in, and have them forgotten after the test."""
    for module, name in ((registry, "_MODELS"), (registry, "_OBJECTIVES"), (data.registry, "_ENTRIES")):
        monkeypatch.setattr(module, name, dict(getattr(module, name)))
    load_plugin(str(shutil.copy(TOYS, tmp_path / "toys.py")))


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Config]:
    """Return a function that reads a config file with these keys, and overrides."""

    def read(keys: dict[str, Any], *overrides: str, task: Task = "vision") -> Config:
        (tmp_path / "c.json").write_text(json.dumps(keys))
        return load_config(task, tmp_path / "c.json", overrides)

    return read


def settings(config: Config, method: str) -> dict[str, Any]:
    return objective_settings(config, method).model_dump()


def test_two_objectives_and_al_have_a_temperature_each(config: Callable[..., Config]) -> None:
    found = config(
        {"temperature": 0.3, "objectives": {"one": {"temperature": 3}, "two": {}}}, "objectives.three.loss.weight=4"
    )
    assert settings(found, "al")["temperature"] == 0.3
    assert settings(found, "one") == {"temperature": 3.0, "hidden_layers": None}
    assert settings(found, "two") == settings(found, "five") == {"temperature": 1.0, "hidden_layers": None}
    assert settings(found, "three") == {
        "temperature": 1.0,
        "hidden_layers": None,
        "loss": {"weight": 4.0, "name": "mean"},
    }
    assert settings(found, "four") == {}
    # What was given and what is a default can be told apart, as with the settings of a model.
    assert objective_settings(found, "one").model_fields_set == {"temperature"}


def test_defaults_are_those_of_the_task(config: Callable[..., Config]) -> None:
    assert settings(config({}), "two")["temperature"] == 1.0
    assert settings(config({}, "objectives.two.hidden_layers=1", task="text"), "two") == {
        "temperature": 2.0,
        "hidden_layers": 1,
    }


def test_set_changes_one_key_and_what_is_printed_can_be_read_again(
    config: Callable[..., Config], tmp_path: Path
) -> None:
    keys = {"objectives": {"one": {"temperature": 3.0, "hidden_layers": 2}, "two": {"hidden_layers": 5}}}
    before, after = config(keys), config(keys, "objectives.one.temperature=.5")
    assert after.model_dump()["objectives"]["one"] == {"temperature": 0.5, "hidden_layers": 2}
    changed = {key for key, value in flat(after.model_dump()).items() if flat(before.model_dump())[key] != value}
    assert changed == {"objectives.one.temperature"}
    assert config(after.model_dump(mode="json")) == after
    # The last one wins, whether it sets a key or the whole object.
    whole = 'objectives.one={"hidden_layers": 7}'
    assert settings(config(keys, "objectives.one.temperature=.5", whole), "one")["temperature"] == 1.0
    assert settings(config(keys, whole, "objectives.one.temperature=.5"), "one")["hidden_layers"] == 7


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("epochs", ["epochs"]),
        ("al_gpu_list.vgg", ["al_gpu_list", "vgg"]),
        ("al_gpu_list.my.net", ["al_gpu_list", "my.net"]),
        ("objectives.three.loss.weight", ["objectives", "three", "loss", "weight"]),
        ("objectives.v1.5.own", ["objectives", "v1.5", "own"]),
        ("objectives.unknown.own", ["objectives", "unknown", "own"]),
        ("no.such.key", ["no", "such.key"]),
    ],
)
def test_a_key_with_dots_is_split_by_what_is_known(text: str, path: list[str]) -> None:
    registry.register_objective(
        registry.ObjectiveEntry(name="v1.5", title="X", settings=registry.objective("one").settings, build=print)
    )
    registry.register_objective(
        registry.ObjectiveEntry(name="v1", title="X", settings=registry.objective("one").settings, build=print)
    )
    assert split_key(text, schema("vision")) == tuple(path)


SHIPPED = ["ce", "scl", "predsim", "deinfo", "infopro"]
NAMES = ", ".join(f"objectives.{name}" for name in [*SHIPPED, "one", "two", "three", "four", "five"])


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("objectives.one.temprature=1", '"objectives.one.temprature" is not a key: did you mean "objectives.one.temp'),
        ("objectives.thre.temperature=1", '"objectives.thre" is not a key: did you mean "objectives.three"?'),
        ("objectives.zzz.temperature=1", f'"objectives.zzz" is not a key: the right ones are {NAMES}'),
        ("objectives.two.x=1", "the right ones are objectives.two.temperature, objectives.two.hidden_layers"),
        ("objectives.four.x=1", '"objectives.four.x" is not a key: this objective has no settings: leave it out'),
        ("objectives.three.loss.wieght=1", 'did you mean "objectives.three.loss.weight"?'),
        ("objectives.three.loss.name=all", 'objectives.three.loss.name: got "all"; expected one of "sum", "mean"'),
        ("objectives.three.loss=1", "objectives.three.loss: got 1; expected an object of settings"),
        ("objectives.one.temperature=0", "objectives.one.temperature: got 0; expected a number above 0"),
        ("objectives.one.temperature=0,1", "expected a number above 0: write a point in place of the comma"),
        ("objectives.one=1", "objectives.one: got 1; expected an object of settings"),
        ("objectives=[]", "objectives: got []; expected an object of settings"),
        ("objective.one.temperature=1", '"objective" is not a key: did you mean "objectives"?'),
        ("one.temperature=1", '"one" is not a key: the settings of this objective stand in "objectives": write obj'),
        ('one={"temperature": 1}', 'stand in "objectives": write objectives.one'),
        ("hidden_layers=1", '"hidden_layers" is a key of the objectives one, two, three, five: write objectives.one.h'),
        ("loss.weight=1", '"loss" is a key of the objective three: write objectives.three.loss'),
        ("al.temperature=1", "the settings of this objective stand at the top level: write them without al"),
        ("objectives.al.temperature=1", "stand at the top level: write them without objectives.al"),
        ("objectives..temperature=1", "expected key=value, for example"),
        ("objectives.one.=1", "expected key=value, for example"),
    ],
)
def test_a_mistake_is_one_line_that_leads_to_the_right_place(
    config: Callable[..., Config], override: str, expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        config({}, override)
    assert str(caught.value).startswith(f"--set {override}: ")
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_mistake_names_the_place_that_it_comes_from(config: Callable[..., Config], tmp_path: Path) -> None:
    in_file, set_now = f"{tmp_path / 'c.json'}: objectives.one.", "--set objectives"

    def place(keys: dict[str, Any], *overrides: str) -> str:
        with pytest.raises(ConfigError) as caught:
            config({"objectives": keys}, *overrides)
        return str(caught.value)

    assert place({"one": {"temperature": 0}}, "objectives.one.hidden_layers=1").startswith(in_file)
    assert place({"one": {"temperature": 0}}, "objectives.two.temperature=1").startswith(in_file)
    assert place({"one": {"temperature": 0}}, "objectives.one.temperature=-1").startswith(set_now)
    assert place({"one": {"temperature": 0}}, 'objectives.one={"temperature": -1}').startswith(set_now)
    assert place({}, "objectives.one.temperature=-1", "objectives.one.hidden_layers=1").startswith(
        "--set objectives.one.temperature=-1: "
    )


def test_without_its_plug_in_an_objective_is_not_known(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_OBJECTIVES", {"al": registry.objective("al")})
    with pytest.raises(ConfigError, match="is not a key: name the plug-in of the objective with --plugin"):
        config({}, "objectives.one.temperature=1")
    assert config({"objectives": {}}).model_dump()["objectives"] == {}


def test_help_and_tables_have_a_section_for_each(config: Callable[..., Config]) -> None:
    shown, table = reference.help_text("text"), reference.markdown("text")
    assert "objective two:\n  objectives.two.temperature=2.0\n        Divides the logits. [a number above 0]" in shown
    assert '\n  objectives.three.loss.name="mean"\n' in shown
    assert "**Objective `three`**" in table
    assert "| `objectives.three.loss.weight` | `1.0` | a number | Multiplies the loss. |" in table
    assert "objective four" not in shown
    assert "objective al:\n  association=" in shown


def test_a_run_is_resumed_by_what_its_method_uses(config: Callable[..., Config]) -> None:
    then, now = (config({}, f"objectives.one.temperature={number}").model_dump(mode="json") for number in (1, 2))
    for method in ("al", "bp", "two"):
        check_same_run(own(then, method), own(now, method))
    with pytest.raises(UsageError, match=r"other settings: objectives\.one\.temperature was 1\.0 and is 2\.0; give"):
        check_same_run(own(then, "one"), own(now, "one"))


def test_the_keys_of_al_are_no_matter_to_another_method() -> None:
    """Guards a bug: another temperature of AL's refused to resume the runs of all methods."""
    assert of_al_alone("vision", "vgg") == {"association", "temperature", "codes", "auto_encoder"}
    assert of_al_alone("text", "lstm") == {"association", "temperature", "codes", "auto_encoder"}


def test_what_was_saved_before_there_were_objects_is_read_as_it_was_meant(config: Callable[..., Config]) -> None:
    now = config({}, "objectives.one.hidden_layers=3").model_dump(mode="json")
    top = {key: value for key, value in now.items() if key != "objectives"}
    # As versions without a plug-in wrote it, and as they wrote it with one: in the configuration of every method.
    for earlier in (top, {**top, "hidden_layers": 3, "loss": {"weight": 1.0, "name": "mean"}}):
        for method in ("al", "bp"):
            check_same_run(with_objectives(in_todays_keys(earlier), "vision", method), own(now, method))
    flat_then = {**top, "temperature": 1.0, "hidden_layers": 3}
    assert with_objectives(flat_then, "vision", "one")["objectives"] == {
        "one": {"temperature": 1.0, "hidden_layers": 3}
    }
    assert with_objectives(own(now, "one"), "vision", "one") == own(now, "one")


def test_a_configuration_that_somebody_has_changed_is_shown_as_it_is() -> None:
    assert flat({"a": 1, "objectives": {"one": {"x": {"y": 2}}, "four": {}}}) == {"a": 1, "objectives.one.x": {"y": 2}}
    for wrong in (3, None, [], {"one": 3}):
        assert flat({"a": 1, "objectives": wrong}) == {"a": 1, "objectives": wrong}


def test_a_key_of_an_objective_needs_a_default() -> None:
    from models import Settings

    class Bare(Settings):
        size: int

    registry.register_objective(registry.ObjectiveEntry(name="bare", title="X", settings=Bare, build=print))
    with pytest.raises(ConfigError, match='"size" of the objective bare has no default: give it one'):
        schema("text")


def test_a_model_has_no_key_called_objectives() -> None:
    from models import ModelEntry, Settings

    class Own(Settings):
        objectives: int = 1

    registry.register_model(ModelEntry(name="mine", task="text", settings=Own, layers=lambda _: [], build=print))
    with pytest.raises(ConfigError, match='"objectives" of the model mine is a key of the run too'):
        schema("text")
