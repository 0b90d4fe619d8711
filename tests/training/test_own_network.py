"""A function of the user's that returns blocks trains from the command line, and its mistakes are one line each."""

from __future__ import annotations

import csv
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from models import registry
from training import experiment
from training.checkpoints.resume import check_same_run
from training.config import read_command
from training.config.earlier import in_todays_keys
from training.config.own_network import OwnNetwork
from training.config.schema import Task
from training.runs.tasks import load_task

pytestmark = pytest.mark.usefixtures("one_thread", "no_pictures")

NETWORKS = '''
import torch
from torch import nn


def cnn(shape):
    """A head, dropout, and an operation in place."""
    return nn.Sequential(
        nn.Conv2d(shape.channels, 4, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2),
        nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(6, shape.n_classes),
    )


def headless():
    one = nn.Sequential(nn.Flatten(), nn.Linear(256, 8))
    return {"one": one, "act": nn.ReLU(), "two": nn.Linear(8, 4), "end": nn.ReLU()}


class Words(nn.Module):
    def __init__(self, vectors):
        super().__init__()
        self.table = nn.Embedding.from_pretrained(vectors.clone(), freeze=False)

    def forward(self, tokens, lengths):
        return self.table(tokens), lengths


class GRU(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.gru = nn.GRU(features, hidden, batch_first=True)

    def forward(self, words, lengths):
        return self.gru(words)[0], lengths


class Last(nn.Module):
    def forward(self, states, lengths):
        return states[torch.arange(len(lengths)), lengths - 1]


def gru(shape):
    return [Words(shape.vectors), GRU(shape.vectors.shape[1], 6), Last(), nn.Linear(6, shape.n_classes)]


class Lost(nn.Module):
    def forward(self, x):
        return x.flatten()


def raises(shape):
    return nn.Linear(shape.size, "x")


def leaves():
    raise SystemExit(3)


def nothing():
    return []


def number():
    return 3


def whole(shape):
    return GRU(2, 2)


def outputs(shape):
    return [nn.Flatten(), nn.Linear(256, 8), nn.ReLU(), nn.Linear(8, 7)]


def head(shape):
    return [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Linear(3, shape.n_classes)]


def lost(shape):
    return [nn.Conv2d(1, 4, 3), Lost(), nn.Linear(4, 4)]


def shared(shape):
    twice = nn.Conv2d(1, 1, 3, padding=1)
    return {"a": twice, "act": nn.ReLU(), "b": twice}


def named(shape):
    return {"items": nn.Conv2d(1, 2, 3), "b": nn.Conv2d(2, 2, 3)}


def frozen(shape):
    blocks = cnn(shape)
    blocks[0].requires_grad_(False)
    return blocks.eval()


class Skip(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.one, self.two = nn.Conv2d(shape.channels, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.act, self.end = nn.ReLU(), nn.Linear(4, shape.n_classes)

    def forward(self, x):
        x = self.act(self.one(x))
        return self.end((x + self.two(x)).mean((2, 3)))


def skip(shape):
    return Skip(shape), ["one", "two"]


def misspelled(shape):
    return Skip(shape), ["one", "too"]


def apart(shape):
    return Skip(shape), 3


network = nn.Linear(2, 2)


ONE = cnn(type("Shape", (), {"channels": 1, "n_classes": 10}))


def always():
    return ONE


def forgets(shape):
    cnn(shape)


def words(shape):
    return shape.vectors


def many(shape):
    model = Skip(shape)
    model.end = nn.Linear(4, 1000)
    return model, ["one", "two"]


class OfTwo(nn.Module):
    def forward(self, x):
        if len(x) != 2:
            raise ValueError("two rows, please")
        return x.flatten(1)


def picky():
    return [OfTwo(), nn.Linear(256, 8), nn.ReLU()]
'''
QUICK: dict[Task, str] = {
    "vision": "digits {} --limit-train 60 --set epochs=2 --set train_batch_size=16 --set checkpoint_every=1",
    "text": "agnews {} --limit-train 60 --set epochs=1 --set batch_size=16 --set pretrained_model=none "
    "--set embedding_dim=8 --set max_len=6 --set y_hid=8",
}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be in a folder with the file, and have what a test registers or makes importable forgotten after it."""
    (tmp_path / "nets.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_NETWORKS", {})
    monkeypatch.setattr("sys.path", [*sys.path])


def command(text: str, out: str = "out", task: Task = "vision") -> int:
    model, _, more = text.partition(" ")
    return experiment.main(task, shlex.split(f"{QUICK[task].format(model)} --out {out} {more}"))


def rows(path: str) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return [{key: value for key, value in row.items() if key != "train_time"} for row in csv.DictReader(file)]


def saved(path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(path).read_text())
    return found


def test_al_and_bp_train_it_and_the_cut_is_said_and_saved(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("nets.py:cnn --set network_layers=2") == 0
    said = capsys.readouterr().out
    assert "digits, nets.cnn: 60 training" in said
    assert "the network is cut into 2 layers, by floating-point operations:\n    block_1-block_7" in said
    assert "block_2: made out of place" in said
    for method in ("al", "bp"):
        info = saved(f"out/digits_nets.cnn_{method}.json")
        assert list(info["network"]["layers"]) == ["block_1-block_7", "block_8-block_9"]
        assert info["network"]["function"] == "nets.py:cnn"
        assert sum(layer["work"] for layer in info["network"]["layers"].values()) == pytest.approx(1.0)
        assert info["config"]["network"]["block_8-block_9"] == ["block_8", "block_9"]
        [record] = Path("out/checkpoints").glob(f"digits_nets.cnn_{method}/*/run.json")
        assert saved(str(record))["info"]["network"] == info["network"]
    assert "test_acc_depth_2" in rows("out/digits_nets.cnn_al.csv")[0]


def test_a_model_with_the_names_of_the_parts_after_which_it_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("nets.py:skip") == 0, capsys.readouterr().err
    assert "the network is cut into 2 layers" in capsys.readouterr().out
    for method in ("al", "bp"):
        assert list(saved(f"out/digits_nets.skip_{method}.json")["network"]["layers"]) == ["one", "two-behind_two"]
    given = read_command("vision", ["digits", "nets.py:skip"])
    task = load_task(given.config, "digits", given.arguments.model, given.arguments.data_root, 60)
    torch.manual_seed(3)
    bp = task.build("bp").eval()
    torch.manual_seed(3)
    model, _ = OwnNetwork("nets.py:skip", "nets.py", "skip").load()(task.shape)
    x = torch.randn(3, 1, 16, 16)
    assert torch.equal(bp(x), model.eval()(x))


def test_every_schedule_computes_the_same() -> None:
    for schedule in ("sequential", "continuous"):
        assert command(f"nets.py:cnn --method al --schedule {schedule}", schedule) == 0
    one, two = (rows(f"{schedule}/digits_nets.cnn_al.csv") for schedule in ("sequential", "continuous"))
    assert one == two


def test_methods_start_from_the_same_weights() -> None:
    command_line = read_command("vision", shlex.split(f"{QUICK['vision'].format('nets.py:headless')}"))
    arguments = command_line.arguments
    task = load_task(command_line.config, "digits", arguments.model, arguments.data_root, 60)
    torch.manual_seed(3)
    bp = {name: value for name, value in task.build("bp").state_dict().items() if "head" not in name}
    torch.manual_seed(3)
    al = [value for name, value in task.build("al").state_dict().items() if ".enc.f." in name]
    assert len(bp) == len(al) == 4
    assert all(torch.equal(one, two) for one, two in zip(bp.values(), al, strict=True))
    assert "head" in task.build("bp").layers  # type: ignore[operator]  # the linear bridge, as it has none


def test_a_text_network_gets_tokens_and_lengths(datasets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(f"nets:gru --data-root {datasets}", task="text") == 0, capsys.readouterr().err
    assert "block_2-block_3" in capsys.readouterr().out
    assert len(rows("out/agnews_nets.gru_bp.csv")) == 1


@pytest.mark.slow
def test_frozen_weights_stay_and_all_modules_train(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("nets.py:frozen") == 0, capsys.readouterr().err
    assert "in evaluation mode; a command trains all modules in training mode" in capsys.readouterr().out


@pytest.mark.slow
def test_a_resume_continues_and_refuses_another_cut(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("nets.py:cnn --method al", "whole") == 0
    assert command("nets.py:cnn --method al", "again") == 0
    [folder] = Path("again/checkpoints/digits_nets.cnn_al").iterdir()
    manifests = sorted(folder.glob("turn*.json"))
    manifests[-1].unlink()  # as if the process had been killed before the last one
    before = saved("again/digits_nets.cnn_al.json")["network"]["sha256"]
    Path("nets.py").write_text(f"{NETWORKS}# a comment more\n")
    assert command("nets.py:cnn --method al --resume", "again") == 0
    said = capsys.readouterr().out
    assert "continues from turn 1, epoch 2/2" in said
    assert "nets.py changed after turn 1, epoch 2, batch " in said
    after = saved("again/digits_nets.cnn_al.json")
    assert f"(SHA-256 {before} then, {after['network']['sha256']} now)" in after["notes"][-1]
    assert rows("whole/digits_nets.cnn_al.csv") == rows("again/digits_nets.cnn_al.csv")
    assert command("nets.py:cnn --method al --resume --set network_layers=2", "again") == 2
    Path("nets.py").write_text(NETWORKS.replace("nn.Dropout(0.2)", "nn.Identity(), nn.Dropout(0.2)"))
    for name in [name for name in sys.modules if name.startswith("nets")]:
        del sys.modules[name]
    capsys.readouterr()
    assert command("nets.py:cnn --method al --resume", "again") == 2
    said = capsys.readouterr().err
    assert "--resume: the saved run had other settings: network was" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("nets.py:raises", "raised TypeError"),
        ("nets.py:raises", "(nets.py, line 54)"),
        ("nets.py:leaves", "the function, called without arguments, raised SystemExit: 3 (nets.py, line 58)"),
        ("nets.py:nothing", "blocks: got none"),
        ("nets.py:number", "blocks: got an object of type int"),
        ("nets.py:whole", "returned a GRU, whose forward says in what order its parts are called; let it return"),
        ("nets.py:misspelled", "network nets.py:misspelled: cuts: Skip has no submodule 'too'; did you mean 'two'?"),
        ("nets.py:apart", "cuts: got 3; expected names of submodules"),
        ("nets.py:outputs", "ends in a linear map to 7 outputs, and the data has 10 classes"),
        ("nets.py:many", "ends in a linear map to 1000 outputs, and the data has 10 classes"),
        ("nets.py:forgets", "the function returned None; does it end without a return?"),
        ("nets.py:words", "has no attribute 'vectors' (nets.py, line"),
        ("nets.py:words", "; ImageShape has n_classes, channels, size"),
        ("nets.py:head", "the head does not take what it gets, float32 (2, 4, 14, 14)"),
        ("nets.py:lost", "block 'block_2' returns float32 (1568,) for 2 samples"),
        ("nets.py:shared", "layers a-act and b share a.weight of the one and weight of the other"),
        ("nets.py:named", "'items' is a name of nn.ModuleDict's own"),
        ("nets.py:network", "is a network and no function"),
        ("nets.py:gruu", 'there is no function gruu in nets.py; did you mean "gru"?'),
        ("nets.py:zzz", "there is no function zzz in nets.py; it has "),
        ("netss:cnn", 'there is no module netss; did you mean "nets"?'),
        ("none.py:cnn", "none.py: there is no such file"),
        ("nets.py", "names no function"),
        ("nets.py:cnn --set network_layers=4", "network_layers: got 4, but only 3 blocks have weights"),
        ("nets.py:cnn --set network_layers=[1,2]", "network_layers: got [1, 2], which is 3 blocks"),
        ("nets.py:cnn --set al_gpu_list=cpu,cpu", "al_gpu_list has 2 entries, nets.py:cnn with AL has 3 layers"),
        ('nets.py:cnn --set bp_gpu_list.nets.py:cnn=[\\"cpu\\"]', "bp_gpu_list.nets.py:cnn has 1 entry"),
    ],
)
def test_a_mistake_is_one_line_before_training(line: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(line) == 2
    said = capsys.readouterr()
    assert expected in said.err
    assert len(said.err.splitlines()) == 1
    assert "epoch" not in said.out
    assert list(Path().glob("out/*.csv")) == []


def test_a_function_has_to_make_its_modules_anew(capsys: pytest.CaptureFixture[str]) -> None:
    """Guards a bug: such weights were drawn before the turn's seed was set, and no run could be repeated."""
    assert command("nets.py:always --method bp -r 2 --set epochs=1") == 2
    assert "network nets.py:always: the function returned modules that it had returned" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["al", "bp"])
def test_a_layer_that_fails_in_training_is_said_with_its_line(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(f"nets.py:picky --method {method}") == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("error: network nets.py:picky: ")
    assert "ValueError: two rows, please (nets.py, line " in said[0]


def test_a_failure_that_is_not_of_the_network_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes the batches, and the program itself, are not the user's to mend."""

    def broken(*_: object, **__: object) -> None:
        raise ValueError("no batch today")

    monkeypatch.setattr("training.runs.turn.training_batches", broken)
    with pytest.raises(ValueError, match="no batch today"):
        command("nets.py:cnn --method bp")


def test_a_network_for_images_is_refused_for_texts(datasets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(f"nets.py:cnn --data-root {datasets}", task="text") == 2
    assert "called with TextShape, raised AttributeError: 'TextShape' object has no" in capsys.readouterr().err
    assert command(f"nets.py:headless --data-root {datasets}", task="text") == 2
    assert "block 'one' does not take what it gets, (int64 (2, 6), int64 (2,))" in capsys.readouterr().err


def test_names_keep_results_apart(tmp_path: Path) -> None:
    def name(text: str) -> str:
        return read_command("vision", ["digits", text]).arguments.model

    for folder in ("inside", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "my nets.py").write_text(NETWORKS)
    (tmp_path / "inside" / "nets.py").write_text(NETWORKS)
    assert name("nets.py:cnn") == name("nets:cnn") == name("./nets.py:cnn") == "nets.cnn"
    assert name("inside/nets.py:cnn") == "inside.nets.cnn"
    spaces = name("inside/my nets.py:cnn"), name("other/my nets.py:cnn")
    assert spaces[0] != spaces[1]
    assert all(one.startswith(("inside.my_nets.cnn-", "other.my_nets.cnn-")) for one in spaces)


@pytest.mark.slow
def test_a_function_of_another_file_does_not_replace_results_silently(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("nets.py:headless --method bp --set epochs=1") == 0
    path = Path("out/digits_nets.headless_bp.json")
    path.write_text(path.read_text().replace(str(Path("nets.py").resolve()), "/elsewhere/nets.py"))
    capsys.readouterr()
    assert command("nets.py:headless --method bp --set epochs=1") == 0
    assert "digits_nets.headless_bp.json is of nets.headless in /elsewhere/nets.py; this run" in capsys.readouterr().out


def test_a_run_from_before_there_were_such_networks_is_the_same_run() -> None:
    config = read_command("vision", ["digits", "vgg"]).config.model_dump(mode="json")
    before = {key: value for key, value in config.items() if not key.startswith("network_")}
    check_same_run(in_todays_keys(before), config)
