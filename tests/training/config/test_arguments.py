"""The command line: what is accepted, and the one line that answers each mistake."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from models import method_names
from training.config.arguments import configure, parse, read_command
from training.config.parser import ROOT, build_parser
from training.config.schema import Task
from training.errors import ConfigError, UsageError

FLAGS = {
    *("--method", "-r", "--repeat", "--seed", "--schedule", "--config", "--set", "--data-root", "--limit-train"),
    *("--out", "--list", "--print-config", "-h", "--help", "--workers", "--trace", "--tensorboard", "--resume"),
    *("--plugin", "--tracker", "--plan", "--dry-run", "--bp-parallel"),
}


def mistake(line: str, task: Task = "vision") -> str:
    """Return the message that answers a wrong command line."""
    with pytest.raises(UsageError) as caught:
        configure(parse(task, line.split()))
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize("task", ["vision", "text"])
def test_the_flags_are_frozen(task: Task) -> None:
    parser = build_parser(task)
    assert {flag for action in parser._actions for flag in action.option_strings} == FLAGS
    assert [action.dest for action in parser._actions if not action.option_strings] == ["dataset", "model"]


def test_defaults() -> None:
    given = parse("vision", ["digits", "vgg"])
    assert (given.dataset, given.model, given.methods, given.turns) == ("digits", "vgg", ("al", "bp"), 1)
    assert given.config.name == "cvconfig.json"
    assert given.data_root == Path("datasets")
    assert (given.overrides, given.limit_train, given.seed, given.schedule, given.out) == ((), None, None, None, None)


def test_the_default_config_does_not_depend_on_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert configure(parse("text", ["agnews", "lstm"])).epochs == 20


def test_everything_at_once_in_any_order() -> None:
    line = "-r 3 --set epochs=2 TINYimagenet --seed 7 ResNet --method BP --set act=elu --schedule al-fm --out 12"
    given = parse("vision", [*line.split(), "--limit-train", "9"])
    assert (given.dataset, given.model, given.methods, given.turns) == ("tinyImageNet", "resnet", ("bp",), 3)
    config = configure(given)
    assert (config.epochs, config.seed, config.act, config.schedule) == (2, 7, "elu", "al-fm")
    assert config.outputpath == "12"
    assert given.limit_train == 9


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("al", ("al",)),
        ("BP", ("bp",)),
        ("both", ("al", "bp")),
        ("All", tuple(method_names())),
        ("scl,both,ce", ("scl", "al", "bp", "ce")),
        ("bp,al", ("bp", "al")),
        ("AL, bp", ("al", "bp")),
    ],
)
def test_methods_run_in_the_order_in_which_they_are_named(method: str, expected: tuple[str, ...]) -> None:
    assert parse("vision", ["digits", "vgg", "--method", method]).methods == expected


def test_flags_win_over_set() -> None:
    line = "digits vgg --seed 4 --set seed=3 --schedule al-fm --set schedule=sequential"
    config = configure(parse("vision", line.split()))
    assert (config.seed, config.schedule) == (4, "al-fm")


@pytest.mark.parametrize(
    ("task", "dataset", "name", "model"),
    [
        ("vision", "digits", "vggal", "vgg"),
        ("vision", "digits", "ResNetAL", "resnet"),
        ("text", "imdb", "lstmal", "lstm"),
        ("text", "imdb", "transformeral", "transformer"),
    ],
)
def test_names_of_the_earlier_code_mean_al(task: Task, dataset: str, name: str, model: str) -> None:
    for more in ([], ["--method", "al"]):
        given = parse(task, [dataset, name, *more])
        assert (given.model, given.methods) == (model, ("al",))
    for method in ("bp", "both"):
        assert f"leave --method {method} out" in mistake(f"{dataset} {name} --method {method}", task)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", "give a data set and a model, for example: python cvmain.py digits vgg"),
        ("digits", "give a model, for example"),
        ("digits vgg extra", "unrecognized arguments: extra"),
        ("digits vg", '"vg" is not a model: the right ones are vgg, resnet; did you mean "vgg"?'),
        ("digits zzz", '"zzz" is not a model: the right ones are vgg, resnet'),
        ("digits lstm", '"lstm" is a text model: run nlpmain.py instead'),
        ("vgg digits", '"vgg" is a model, and the data set comes first: python cvmain.py <dataset> vgg'),
        ("digits vgg -r 0", 'argument -r/--repeat: got "0"; expected a whole number of at least 1'),
        ("digits vgg -r -2", 'got "-2"; expected a whole number of at least 1'),
        ("digits vgg -r many", 'got "many"; expected a whole number'),
        ("digits vgg -r", "argument -r/--repeat: expected one argument"),
        ("digits vgg --seed -1", 'argument --seed: got "-1"; expected a whole number of at least 0'),
        ("digits vgg --seed 1.5", 'argument --seed: got "1.5"'),
        ("digits vgg --seed 99999999999999999999", "expected a whole number from 0 to 9007199254740992"),
        ("digits vgg --limit-train 1", 'argument --limit-train: got "1"; expected a whole number of at least 2'),
        ("digits vgg --limit 10", "unrecognized arguments: --limit 10"),
        (
            "digits vgg --method adam",
            'argument --method: got "adam"; expected al, bp, ce, scl, predsim, deinfo, infopro, several with commas '
            "between, both, or all",
        ),
        (
            "digits vgg --method al,bpp",
            'infopro, several with commas between, both, or all; did you mean "bp"?',
        ),
        ("digits vgg --method al,al", 'got "al,al"; name every method once'),
        ("digits vgg --method al,both", 'got "al,both"; name every method once'),
        ("digits vgg --method=", 'argument --method: got ""; expected al, bp'),
        ("digits vgg --plugin", "argument --plugin: expected one argument (python cvmain.py --help"),
        ("digits vgg --schedule gpipe", "argument --schedule: invalid choice: 'gpipe'"),
        ("digits vgg --out=", "argument --out: got an empty name"),
        ("digits vgg --config=", "argument --config: got an empty name"),
        ("digits vgg --data-root=", "argument --data-root: got an empty name"),
        ("digits vgg --config no/such.json", "no/such.json: there is no such file"),
        ("digits vgg --out=/tmp/\udcff", 'argument --out: got "/tmp/\udcff", which is not UTF-8'),
        ("digits vgg --tensorboard=\udcff", 'argument --tensorboard: got "\udcff", which is not UTF-8'),
        ("digits vgg --set \udcff=3", 'argument --set: got "\udcff=3", which is not UTF-8'),
        ("digits vgg --set", "argument --set: expected one argument"),
        ("digits vgg --set epochs", "--set epochs: expected key=value"),
        (
            'digits vgg --set al_gpu_list=["cpu"]',
            'al_gpu_list has 1 entry, VGG with AL has 4 layers; give 4, or "auto"',
        ),
        (
            'digits resnet --method bp --set bp_gpu_list=["cpu"]',
            'bp_gpu_list has 1 entry, ResNet with BP has 6 layers; give 6, or "auto"',
        ),
    ],
)
def test_mistakes(line: str, expected: str) -> None:
    assert expected in mistake(line)


def test_a_path_that_is_not_utf8_is_a_path(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    config, plugin = folder / os.fsdecode(b"config\xff.json"), folder / os.fsdecode(b"plugin\xff.py")
    shutil.copy(ROOT / "cvconfig.json", config)
    plugin.write_text("")
    paths = [f"--config={config}", f"--plugin={plugin}", f"--data-root={folder}", f"--trace={folder}/trace.json"]
    arguments = read_command("vision", ["digits", "vgg", *paths]).arguments
    assert (arguments.config, arguments.data_root, arguments.trace) == (config, folder, folder / "trace.json")


def test_a_wrong_data_set_lists_the_right_ones() -> None:
    message = mistake("digit vgg")
    for name in ("tinyImageNet", "cifar10", "cifar100", "fashionMNIST", "digits"):
        assert name in message
    assert "nlpmain.py" in mistake("agnews vgg")
    assert "cvmain.py" in mistake("cifar10 lstm", "text")


def test_a_list_that_is_not_used_is_not_checked() -> None:
    configure(parse("vision", ["digits", "vgg", "--method", "bp", "--set", 'al_gpu_list=["cpu"]']))


@pytest.mark.parametrize("task", ["vision", "text"])
def test_list_needs_no_names(task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse(task, ["--list"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    for name in ("tinyImageNet", "digits", "vgg", "resnet") if task == "vision" else ("agnews", "imdb", "lstm"):
        assert name in shown


def test_print_config_shows_the_config_as_it_would_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    for names in ([], ["imdb", "lstm"]):
        with pytest.raises(SystemExit) as left:
            parse("text", [*names, "--print-config", "--set", "lr=1", "--seed", "5", "--out", "there"])
        assert left.value.code == 0
        shown = json.loads(capsys.readouterr().out)
        assert (shown["lr"], shown["seed"], shown["outputpath"], shown["x_hid"]) == (1, 5, "there", 256)
    with pytest.raises(ConfigError, match="epochs"):
        parse("text", ["--print-config", "--set", "epochs=0"])


@pytest.mark.parametrize("task", ["vision", "text"])
def test_help_names_every_flag_and_shows_examples_that_parse(task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse(task, ["--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert all(flag in shown for flag in FLAGS)
    examples = [line.split("  ")[1].split() for line in shown.splitlines() if line.startswith("  python ")]
    assert len(examples) >= 4
    for _, script, *argv in examples:
        assert script == ("cvmain.py" if task == "vision" else "nlpmain.py")
        configure(parse(task, [word.replace("'", "") for word in argv]))
