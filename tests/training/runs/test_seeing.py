"""What a command shows of its run: the timeline, the table per device and TensorBoard's scalars, from end to end."""

from __future__ import annotations

import itertools
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from ALPackage import AL
from ALPackage.stage.batch import TrainBatch
from ALPackage.stage.step import Step
from tests.training.report.test_tensorboard import scalars

from ..test_experiment import command, rows

pytestmark = pytest.mark.usefixtures("one_thread", "no_pictures")
LAYERS = ["conv_1", "conv_2", "conv_3", "conv_4"]
KINDS = ("assoc_loss", "ae_loss")
EACH_A_WORKER = """--set al_gpu_list='["cpu:0","cpu:1","cpu:2","cpu:3"]'"""
#: 43 samples are left to train on: batches of 16, 16 and 11.
BATCHES, EPOCHS = 3, 2


def meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let conv_1's first backward pass and conv_2's first forward pass wait for each other in the run that is traced.

    So they overlap wherever a schedule lets them, however busy the machine is; where none does, waiting fails.
    """
    together = threading.Barrier(2)
    lower: list[AL] = []
    prepare, work = Step.prepare, AL.backward_and_update

    def preparing(self: Step, name: str, layer: AL, batch: TrainBatch) -> None:
        if self.trace is not None and batch.number == 0:
            if name == "conv_1":
                lower.append(layer)
            if name == "conv_2":
                together.wait(30)
        prepare(self, name, layer, batch)

    def working(self: AL) -> None:
        if self in lower:
            lower.remove(self)
            together.wait(30)
        work(self)

    monkeypatch.setattr(Step, "prepare", preparing)
    monkeypatch.setattr(AL, "backward_and_update", working)


@pytest.mark.parametrize(
    ("schedule", "workers", "devices", "advice"),
    [
        ("sequential", ["MainThread"], ["cpu"], "one worker does everything in turn"),
        ("al-fm", ["MainThread", *(f"al-{name}" for name in LAYERS)], ["cpu"] * 4, "every layer waits"),
        ("continuous", [f"al-worker-{n}" for n in range(4)], [f"cpu:{n}" for n in range(4)], ""),
    ],
)
def test_every_schedule_shows_what_its_workers_did(
    schedule: str,
    workers: list[str],
    devices: list[str],
    advice: str,
    datasets: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if schedule != "sequential":
        meet(monkeypatch)
    text = f"tinyImageNet vgg --method al --schedule {schedule} {EACH_A_WORKER} --trace {tmp_path / 'new' / 't.json'}"
    assert command("vision", text, datasets, tmp_path) == 0

    events: list[dict[str, Any]] = json.loads((tmp_path / "new" / "t.json").read_text())["traceEvents"]
    names = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    assert sorted(names.values()) == sorted(workers)
    spans = {
        (event["cat"], event["args"]["layer"], event["args"]["batch"]): event for event in events if "cat" in event
    }
    passes = {key: event for key, event in spans.items() if key[0] in ("forward", "backward")}
    assert set(passes) == set(itertools.product(["forward", "backward"], LAYERS, range(BATCHES * EPOCHS)))
    below, above = passes["backward", "conv_1", 0], passes["forward", "conv_2", 0]
    stops = [event["ts"] + event["dur"] for event in (below, above)]
    if schedule == "sequential":
        assert stops[0] <= above["ts"] + 1
    else:
        assert names[below["tid"]] != names[above["tid"]]
        assert max(below["ts"], above["ts"]) < min(stops)
    assert imread(tmp_path / "new" / "t.png")[..., :3].std() > 0.02  # something is drawn

    printed = capsys.readouterr().out.splitlines()
    assert {f"  {tmp_path / 'new' / name}" for name in ("t.json", "t.png")} <= set(printed)
    (head,) = (number for number, line in enumerate(printed) if line.startswith("worker ") and "busy" in line)
    table = printed[head + 1 : head + 1 + len(devices)]
    assert [line.split()[0] for line in table] == devices
    assert [name for line in table for name in line.split() if name.startswith("conv_")] == LAYERS
    by_layer = [line.split() for line in printed[head + len(devices) + 2 :][: len(LAYERS)]]
    assert [(name, *who[:1]) for name, _, _, _, *who in by_layer] == [
        (name, devices[number % len(devices)]) for number, name in enumerate(LAYERS)
    ]
    last = next(line for line in printed[head:] if line.startswith("advice: "))
    assert last.startswith(f"advice: {advice}")

    used = json.loads((tmp_path / "tinyImageNet_vgg_al.json").read_text())["utilization"]
    assert used["advice"] == last
    for row in used["devices"]:
        assert row["busy"] > 0
        assert sum(row[share] for share in ("busy", "idle", "data", "copy")) == pytest.approx(100, abs=0.1)
    assert [layer["layer"] for layer in used["layers"]] == LAYERS
    assert used["at_work"] <= used["ceiling"] <= len(devices)


def test_scalars_can_be_read_back(datasets: Path, tmp_path: Path) -> None:
    text = f"tinyImageNet vgg -r 2 {EACH_A_WORKER} --tensorboard {tmp_path / 'board'}"
    assert command("vision", text, datasets, tmp_path) == 0
    found = scalars(tmp_path / "board")
    common = ["accuracy/train", "accuracy/val", "accuracy/test", "samples_per_second"]
    losses = [f"{kind}/{layer}" for kind in KINDS for layer in LAYERS]
    busy = [f"busy/{number}_cpu_{number}" for number in range(4)]
    of = {"al": [*common, *losses, *busy], "bp": [*common, "loss"]}
    assert set(found) == {f"{method}/turn_{turn}/{tag}" for method in of for turn in (1, 2) for tag in of[method]}
    for method, turn in itertools.product(of, (1, 2)):
        table = rows(tmp_path / f"tinyImageNet_vgg_{method}.csv", without=())[EPOCHS * (turn - 1) : EPOCHS * turn]
        columns = {f"accuracy/{part}": f"{part}_acc" for part in ("train", "val", "test")} | {"loss": "loss"}
        columns |= {f"{kind}/{layer}": f"{kind}_{n}" for n, layer in enumerate(LAYERS, 1) for kind in KINDS}
        for tag, column in columns.items():
            if tag in of[method]:
                steps, values = zip(*found[f"{method}/turn_{turn}/{tag}"], strict=True)
                assert steps == ((1, 2) if tag.startswith("accuracy/") else (BATCHES, 2 * BATCHES))
                assert values == pytest.approx([float(row[column]) for row in table], rel=1e-4)
        (_, speed), _ = found[f"{method}/turn_{turn}/samples_per_second"]
        assert speed == pytest.approx(43 / float(table[0]["train_time"]), rel=0.05)
    assert all(0 < share <= 100 for tag in of["al"][-4:] for _, share in found[f"al/turn_1/{tag}"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--method bp --trace {out}/trace.json", "--trace shows what AL's workers do, and --method bp has none"),
        ("--method al --trace {out}/taken/trace.json", "--trace {out}/taken/trace.json: cannot be written ("),
        (
            "--method al --trace {out}/tinyImageNet_vgg_al.json",
            "--trace {out}/tinyImageNet_vgg_al.json: the results of",
        ),
        ("--method al --tensorboard {out}/taken", "--tensorboard {out}/taken: cannot be written ("),
    ],
)
def test_a_mistake_is_one_line_before_any_training(
    text: str, message: str, datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("a file")
    assert command("vision", f"tinyImageNet vgg {text.format(out=tmp_path)}", datasets, tmp_path) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: {message.format(out=tmp_path)}")
    assert printed.err.count("\n") == 1
    assert "turn 1" not in printed.out
    assert not list(tmp_path.glob("*.csv"))
