"""A model, a data set and an objective, each in one file outside the packages, train from the command line.

And a plug-in that cannot be used is the user's mistake: one line, exit code 2.
"""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

import data.registry
from models import registry
from training import experiment
from training.config import command_or_exit, layer_names, read_command, reference

pytestmark = pytest.mark.usefixtures("one_thread", "no_pictures")

MODEL = '''
from typing import Annotated

from pydantic import Field

from models import ModelEntry, VisionSettings, register_model


class Settings(VisionSettings):
    """The settings of a network of two blocks."""

    stem: Annotated[int, Field(ge=1, le=64)] = 4
    """Channels of the first block."""


def build(shape, settings):
    from torch import nn

    from models.blocks import Block

    def block(name, c_in, c_out):
        f = nn.Sequential(nn.Conv2d(c_in, c_out, 3, stride=2, padding=1), nn.ReLU())
        pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        return Block(name, f, lambda width: nn.Sequential(*pooled, nn.Linear(c_out, width)))

    blocks = [block("one", shape.channels, settings.stem), block("two", settings.stem, 8)]
    return blocks, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, shape.n_classes))


register_model(
    ModelEntry(name="twoblocks", task="vision", settings=Settings, layers=lambda settings: ["one", "two"], build=build)
)
'''

DATASET = """
from data import DatasetEntry, register_dataset


def load(root, image_size):
    import torch

    from data import Images

    draw = torch.Generator().manual_seed(0)

    def part(count):
        labels = torch.arange(count) % 2
        images = torch.randint(0, 60, (count, 1, 16, 16), generator=draw, dtype=torch.uint8)
        images[labels == 1, :, :8] += 150
        return images, labels

    return Images(classes=["dark", "bright"], train=part(80), test=part(20), notes=["made up on the spot"])


register_dataset(
    DatasetEntry(name="halves", task="vision", about="gray images, half of them bright above", load=load)
)
"""

OBJECTIVE = '''
import torch
import torch.nn.functional as F

from ALPackage import ALStack
from ALPackage.layer import LocalLayer
from models import ObjectiveEntry, Settings, register_objective


class LocalClassifier(LocalLayer):
    """A layer that learns to classify by itself; the labels travel as they are."""

    loss_names = ("ce",)

    def __init__(self, f, readout, training, scale):
        super().__init__()
        self.f, self.head, self.scale = f, readout, scale
        self.optimizer = torch.optim.SGD(self.parameters(), lr=training.lr)

    def compute(self, x, y):
        x = self.f(x)
        return x, y, {"ce": self.scale * F.cross_entropy(self.head(x), y)}

    def hidden(self, x):
        return self.f(x)

    def readout(self, hidden):
        return self.head(hidden)

    def parts(self):
        return {"hidden": [self.f], "readout": [self.head], "decode": []}


class LocalSettings(Settings):
    """The settings of the local classifiers."""

    local_scale: float = 2.0
    """Multiplies the loss."""


def build(blocks, n_classes, settings, training):
    def layer(block):
        return LocalClassifier(block.f, block.bridge(n_classes), training, settings.local_scale)

    return ALStack({block.name: layer(block) for block in blocks})


register_objective(ObjectiveEntry(name="local", title="Local", settings=LocalSettings, build=build))
'''


@pytest.fixture(autouse=True)
def _own_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what a test registers forgotten after it."""
    for module, name in ((registry, "_MODELS"), (registry, "_OBJECTIVES"), (data.registry, "_ENTRIES")):
        monkeypatch.setattr(module, name, dict(getattr(module, name)))


@pytest.fixture
def plugins(tmp_path: Path) -> str:
    """Return the part of a command line that names the three files."""
    texts = {"two_blocks.py": MODEL, "halves.py": DATASET, "local_classifier.py": OBJECTIVE}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return " ".join(f"--plugin {tmp_path / name}" for name in texts)


def columns(path: Path) -> list[str]:
    with path.open(newline="") as file:
        return next(csv.reader(file))


def test_three_files_train_from_the_command_line(
    plugins: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "halves twoblocks --method al,local,bp --set stem=6 --set objectives.local.local_scale=1.5"
    line += " --set epochs=2 --set base_lr=0.01"
    code = experiment.main("vision", shlex.split(f"{plugins} {line} --set train_batch_size=16 --out {tmp_path}"))
    shown = capsys.readouterr()
    assert code == 0, shown.err
    assert "halves, twoblocks: 72 training, 8 validation, 20 test samples; 2 classes" in shown.out
    assert "made up on the spot" in shown.out
    assert "local: 2 layers" in shown.out.lower()
    al, local, bp = (columns(tmp_path / f"halves_twoblocks_{method}.csv") for method in ("al", "local", "bp"))
    assert [name for name in al if "_loss_" in name] == ["assoc_loss_1", "assoc_loss_2", "ae_loss_1", "ae_loss_2"]
    assert [name for name in local if "_loss_" in name] == ["ce_loss_1", "ce_loss_2"]
    assert "loss" in bp
    saved = json.loads((tmp_path / "halves_twoblocks_local.json").read_text())
    text = json.dumps(saved)
    assert '"stem": 6' in text
    assert '"local_scale": 1.5' in text


def test_many_methods_train_and_are_shown_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toys = shutil.copy(Path(__file__).parent / "toy_objectives.py", tmp_path / "toys.py")
    (tmp_path / "two_blocks.py").write_text(MODEL)
    line = f"digits twoblocks --plugin {tmp_path / 'two_blocks.py'} --plugin {toys} --limit-train 40 --set epochs=1"
    line += f" --out {tmp_path}"

    def command(more: str) -> tuple[int, str]:
        code = experiment.main("vision", shlex.split(f"{line} {more}"))
        return code, "".join(capsys.readouterr())

    code, said = command("--method two,al,one,bp --set objectives.one.temperature=3")
    assert code == 0, said
    assert re.search(r"^ +Two +AL +One +BP$", said, re.MULTILINE)
    configs = {
        method: json.loads((tmp_path / f"digits_twoblocks_{method}.json").read_text())["config"]
        for method in ("al", "bp", "one", "two")
    }
    assert configs["one"]["objectives"] == {"one": {"temperature": 3.0, "hidden_layers": None}}
    assert configs["two"]["objectives"] == {"two": {"temperature": 1.0, "hidden_layers": None}}
    assert all("objectives" not in configs[method] for method in ("al", "bp"))
    page = (tmp_path / "digits_twoblocks.html").read_text()
    assert "AL, BP, One and Two" in page
    assert "The same for all methods but the settings of their objectives." in page
    assert "another configuration" not in page

    # Another temperature of `one` concerns `one` alone, also beside a method that the command did not have before.
    code, said = command("--method bp,two,al,four --resume")
    assert code == 0, said
    assert said.count("finished before, nothing is left to do") == 3
    assert "Four starts from the beginning" in said
    code, said = command("--method al,one --resume")
    assert code == 2
    assert "objectives.one.temperature was 3.0 and is 1.0" in said


def test_a_model_of_a_plugin_trains_on_a_data_set_of_ours(plugins: str, tmp_path: Path) -> None:
    line = 'digits TwoBlocks --limit-train 60 --set epochs=1 --set al_gpu_list.twoblocks=\'["cpu","cpu"]\''
    assert experiment.main("vision", shlex.split(f"{line} --out {tmp_path} --plugin {tmp_path / 'two_blocks.py'}")) == 0
    assert (tmp_path / "digits_twoblocks_al.csv").exists()
    assert (tmp_path / "digits_twoblocks_bp.csv").exists()


def test_what_is_registered_is_known_everywhere(
    plugins: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = read_command("vision", shlex.split(f"digits twoblocksal {plugins} --set stem=9"))
    assert command.arguments.methods == ("al",)
    assert layer_names("twoblocks", "bp", command.config) == ["one", "two", "head"]
    assert "  stem=4\n        Channels of the first block. [a whole number of at least 1, at most 64]" in (
        reference.help_text("vision")
    )
    assert "model twoblocks:" in reference.help_text("vision")
    assert "objective local:" in reference.help_text("text")
    with pytest.raises(SystemExit):
        read_command("vision", ["--list", *shlex.split(plugins)])
    assert {"twoblocks", "halves", "local"} <= set(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--set stem=0", "--set stem=0: stem: got 0; expected a whole number of at least 1, at most 64"),
        ("--set stam=3", '--set stam=3: "stam" is not a key: did you mean "stem"?'),
        ('--set al_gpu_list=["cpu"]', "al_gpu_list has 1 entry, twoblocks with AL has 2 layers"),
        (
            '--method local --set al_gpu_list=["cpu"]',
            "al_gpu_list has 1 entry, twoblocks with Local has 2 layers",
        ),
        (
            "--method lokal",
            'infopro, local, several with commas between, both, or all; did you mean "local"?',
        ),
    ],
)
def test_a_mistake_in_a_key_of_a_plugin_is_answered_like_any_other(
    line: str, expected: str, plugins: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert experiment.main("vision", [*shlex.split(plugins), "digits", "twoblocks", *line.split()]) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert len(said.splitlines()) == 1


BROKEN = {
    "syntax.py": ("x = 1\ndef f(:\n", "line 2: SyntaxError: "),
    "missing.py": ("import os\n\nimport no_such_package\n", "line 3: ModuleNotFoundError: No module named"),
    "fails.py": ("def f():\n    raise KeyError('it\\nbroke')\n\n\nf()\n", "line 2: KeyError: "),
    "leaves.py": ("import sys\nsys.exit(3)\n", "line 2: SystemExit: 3"),
    "twice.py": (
        "from models import ModelEntry, Settings, register_model\n"
        "register_model(ModelEntry(name='vgg', task='vision', settings=Settings, layers=list, build=print))\n",
        "line 2: RegistryError: model 'vgg': there is a vision model of this name",
    ),
    "clash.py": (
        "from models import ModelEntry, Settings, register_model\n"
        "class Own(Settings):\n    width: int = 3\n"
        "register_model(ModelEntry(name='mine', task='vision', settings=Own, layers=list, build=print))\n",
        '"width" of the model mine is a key of the model vgg too, with another meaning: rename it',
    ),
    "needs.py": (
        "from models import ModelEntry, Settings, register_model\n"
        "class Own(Settings):\n    size: int\n"
        "register_model(ModelEntry(name='mine', task='vision', settings=Own, layers=list, build=print))\n",
        '"size" of the model mine has no default: give it one',
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_one_line_and_exit_code_2(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, expected = BROKEN[name]
    (tmp_path / name).write_text(text)
    for _ in range(2):  # a second attempt in one process fails too
        assert experiment.main("vision", ["digits", "vgg", "--plugin", str(tmp_path / name)]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert len(said.splitlines()) == 1
        assert expected in said


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("no/such.py", "--plugin no/such.py: there is no such file; give a Python file or the name of a module"),
        ("no_such_module", "--plugin no_such_module: ModuleNotFoundError: No module named 'no_such_module'"),
        ("", "argument --plugin: got an empty name"),
    ],
)
def test_a_plugin_that_is_not_there(name: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert experiment.main("vision", ["digits", "vgg", f"--plugin={name}"]) == 2
    assert expected in capsys.readouterr().err


def test_a_folder_is_not_a_plugin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert experiment.main("vision", ["digits", "vgg", "--plugin", f"{tmp_path}/"]) == 2
    assert "is not a file" in capsys.readouterr().err


def test_a_module_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "al_test_plugin.py").write_text(MODEL)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sys.argv", ["cvmain.py", "digits", "twoblocks", "--plugin", "al_test_plugin"])
    assert command_or_exit("vision").arguments.plugins == ("al_test_plugin",)
    monkeypatch.setattr("sys.argv", ["cvmain.py", "digits", "twoblocks", "--set", "stem=x"])
    with pytest.raises(SystemExit) as left:
        command_or_exit("vision")
    assert left.value.code == 2
    assert "stem: got" in capsys.readouterr().err


def test_a_builder_that_contradicts_its_entry_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "odd.py").write_text(MODEL.replace('["one", "two"]', '["one", "two", "three"]'))
    line = f"digits twoblocks --limit-train 40 --method bp --out {tmp_path} --plugin {tmp_path / 'odd.py'}"
    assert experiment.main("vision", shlex.split(line)) == 2
    said = capsys.readouterr().err
    assert "error: twoblocks: its entry names the layers one, two, three, but one, two were built" in said


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [
        ("return ALStack(", "return dict(", "local: its build function returned dict; expected an ALStack"),
        ("def layer(block):", "def layer(block, more):", "raised TypeError: build.<locals>.layer() missing 1 required"),
        ('{"ce": self', '{"other": self', "LocalClassifier.compute: returned the losses other; expected those of"),
        ("self.f(x)", "F.dropout(self.f(x), 0.5, self.training)", "draws from a process-wide random generator"),
        ("SGD(self.parameters()", "SGD(self.head.parameters()", "would never train: in no optimizer of the layer"),
        ("        x = self.f(x)\n", "        x = self.f(x.mul_(2))\n", "the input x was changed in place"),
    ],
)
def test_a_mistake_in_an_objective_is_one_line(
    right: str, wrong: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards a bug: it ended in a traceback from inside the project."""
    assert right in OBJECTIVE
    (tmp_path / "odd.py").write_text(OBJECTIVE.replace(right, wrong))
    line = (
        f"digits vgg --set width=0.05 --limit-train 40 --method local --out {tmp_path} --plugin {tmp_path / 'odd.py'}"
    )
    assert experiment.main("vision", shlex.split(line)) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert "Traceback" not in said
