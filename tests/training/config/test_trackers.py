"""The names of `--tracker`: what is behind them is found out before training, and what is missing is one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from training.config.arguments import parse
from training.config.trackers import load_tracker
from training.errors import UsageError

GOOD = "def init(project, name, config): ...\ndef log(values, step): ...\ndef finish(): ...\n"
#: As wandb has them: more arguments, in another order, and a `log` that is another one before `init`.
WANDB = """
def init(entity=None, project=None, dir=None, id=None, name=None, notes=None, *, config=None): ...
def _log(self, data, step=None, commit=None): ...
def log(*args, **kwargs): raise RuntimeError("call init first")
log.__wrapped__ = _log
def finish(exit_code=None): ...
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from which modules are imported."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def checked(name: str) -> str:
    """Return the message with which a name is refused before anything is imported; "" if it is not."""
    try:
        parse("vision", ["digits", "vgg", "--tracker", name])
    except UsageError as error:
        return str(error)
    return ""


def loaded(name: str) -> str:
    """Return the message with which a name is refused when it is imported."""
    assert checked(name) == ""
    with pytest.raises(UsageError) as caught:
        load_tracker(name)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_they_may_be_repeated_and_each_counts_once() -> None:
    assert parse("vision", ["digits", "vgg"]).trackers == ()
    line = "digits vgg --tracker tensorboard --tracker json --tracker tensorboard"
    assert parse("vision", line.split()).trackers == ("tensorboard", "json")


@pytest.mark.parametrize(
    "text", [GOOD, WANDB, "class T:\n    init = log = finish = print\nfrom builtins import print\n"]
)
def test_a_module_or_a_file_with_the_three_functions_is_taken(text: str, folder: Path) -> None:
    text = text if "class" not in text else GOOD.replace("...", "return 3")
    (folder / "live_good.py").write_text(text)
    for name in ("live_good", "live_good.py", "./live_good.py", str(folder / "live_good.py")):
        assert checked(name) == ""
        assert callable(load_tracker(name).init)
    sys.modules.pop("live_good")


def test_a_module_in_a_package_is_taken(folder: Path) -> None:
    (folder / "live_package").mkdir()
    (folder / "live_package" / "__init__.py").touch()
    (folder / "live_package" / "inner.py").write_text(GOOD)
    assert checked("live_package.inner") == ""
    assert callable(load_tracker("live_package.inner").log)
    assert loaded("live_package.other").startswith("--tracker live_package.other: ModuleNotFoundError: ")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", "argument --tracker: got an empty name"),
        ("wand", '--tracker wand: there is no module of that name; did you mean "wandb"?'),
        ("Tensorboard_", 'did you mean "tensorboard"?'),
        ("no_such_tracker", "there is no module of that name; install it, or give the path of a Python file"),
        ("a b", "there is no module of that name"),
        ("-x", "argument --tracker: expected one argument"),
        ("os;print(1)", "there is no module of that name"),
        ("http://x", "--tracker http://x: there is no such file"),
        ("..", "--tracker ..: is not a file; give a Python file or the name of a module"),
        ("none.py", "--tracker none.py: there is no such file"),
        ("\0", "there is no module of that name"),
        ("x" * 5000, "there is no module of that name"),
    ],
)
def test_a_name_without_a_module_is_refused_at_once(name: str, expected: str) -> None:
    assert expected in checked(name)


def test_a_known_tracker_that_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in ("wandb", "trackio", "tensorboard"):
        assert checked(name) == f"--tracker {name}: there is no module of that name; pip install {name}"


def test_the_folder_that_wandb_leaves_is_not_taken_for_wandb(folder: Path) -> None:
    (folder / "swanlab" / "run-1").mkdir(parents=True)
    message = checked("swanlab")
    assert message.startswith("--tracker swanlab: there is a folder of that name (")
    assert message.endswith("), and no module; pip install swanlab")


def test_a_file_in_the_working_directory_is_asked_for_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "live_mine.py").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    assert checked("live_mine").endswith('; did you mean "live_mine.py"?')


def test_a_module_that_is_no_tracker_is_refused_with_what_it_lacks(folder: Path) -> None:
    start = "--tracker os: this module is not a tracker: it lacks "
    calls = "init(project=, name=, config=), log(values, step=), finish()"
    assert loaded("os").startswith(f"{start}{calls}; give tensorboard, wandb, ")
    (folder / "live_half.py").write_text("init = print\nlog = 3\n")
    assert "it lacks log(values, step=), finish(); give" in loaded("live_half")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            GOOD.replace("config", "settings"),
            "init(project, name, settings) cannot be called as init(project=, name=, co",
        ),
        (GOOD.replace(", step", ""), "log(values) cannot be called as log(values, step=): got an unexpected keyword"),
        (GOOD.replace("finish()", "finish(run)"), "finish(run) cannot be called as finish(): missing a required arg"),
        ("import no_such_package\n", "line 1: ModuleNotFoundError: No module named 'no_such_package'"),
        ("x = 1\nraise SystemExit(3)\n", "line 2: SystemExit: 3"),
        ("def init(:\n", "SyntaxError: invalid syntax (live_bad.py, line 1)"),
        ("def __getattr__(name): raise RuntimeError(name)\n", "RuntimeError"),
    ],
)
def test_a_module_that_cannot_be_used_is_one_line(text: str, expected: str, folder: Path) -> None:
    (folder / "live_bad.py").write_text(text)
    try:
        assert expected in loaded("live_bad")
        assert expected in loaded("live_bad.py")
    finally:
        sys.modules.pop("live_bad", None)
