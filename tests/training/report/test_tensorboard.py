"""What is written for TensorBoard can be read back, by name and step; what cannot be written is one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.errors import UsageError
from training.report.tensorboard import TensorBoardWriter
from training.report.utilization import Row, Utilization

Points = list[tuple[int, float]]


def scalars(folder: Path) -> dict[str, Points]:
    """Return the (step, value) of every scalar below `folder`, as TensorBoard reads them."""
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def utilization(*busy: tuple[str, float]) -> Utilization:
    rows = [Row(device, [f"layer_{number}"], share, 0.0, 0.0, 0.0) for number, (device, share) in enumerate(busy)]
    return Utilization(rows, at_work=1.0, ceiling=1.0, bottleneck="layer_0", speedup_estimate=None, advice="")


def test_losses_go_by_method_turn_and_layer(tmp_path: Path) -> None:
    with TensorBoardWriter(tmp_path) as board:
        board.losses("al", 1, 30, {"conv_1": {"assoc": 0.5, "ae": 2.0}, "conv_2": {"assoc": 0.25, "ae": 4.0}})
        board.losses("al", 1, 60, {"conv_1": {"assoc": 0.125, "ae": 1.0}, "conv_2": {"assoc": 0.0625, "ae": 3.0}})
        board.losses("al", 2, 30, {"conv_1": {"assoc": 8.0, "ae": 8.0}, "conv_2": {"assoc": 8.0, "ae": 8.0}})
        board.losses("local", 1, 30, {"conv_1": {"loss": 7.0}})
        board.losses("bp", 1, 30, {"": {"loss": 1.5}})
    found = scalars(tmp_path)
    assert found["al/turn_1/assoc_loss/conv_1"] == [(30, 0.5), (60, 0.125)]
    assert found["al/turn_1/assoc_loss/conv_2"] == [(30, 0.25), (60, 0.0625)]
    assert found["al/turn_1/ae_loss/conv_1"] == [(30, 2.0), (60, 1.0)]
    assert found["al/turn_1/ae_loss/conv_2"] == [(30, 4.0), (60, 3.0)]
    assert found["al/turn_2/ae_loss/conv_2"] == [(30, 8.0)]
    assert found["bp/turn_1/loss"] == [(30, 1.5)]
    assert found["local/turn_1/loss/conv_1"] == [(30, 7.0)]
    assert len(found) == 4 + 4 + 1 + 1


def test_an_epoch_goes_by_its_number(tmp_path: Path) -> None:
    with TensorBoardWriter(tmp_path) as board:
        for epoch, accuracy in ((1, 50.0), (2, 75.0)):
            board.epoch(
                "al",
                3,
                epoch,
                accuracies={"train": accuracy + 5, "test": accuracy},
                samples_per_second=1000.0 * epoch,
                utilization=utilization(("cpu:0", 90.0 + epoch), ("cpu:1", 40.0)),
            )
    assert scalars(tmp_path) == {
        "al/turn_3/accuracy/train": [(1, 55.0), (2, 80.0)],
        "al/turn_3/accuracy/test": [(1, 50.0), (2, 75.0)],
        "al/turn_3/samples_per_second": [(1, 1000.0), (2, 2000.0)],
        "al/turn_3/busy/0_cpu_0": [(1, 91.0), (2, 92.0)],
        "al/turn_3/busy/1_cpu_1": [(1, 40.0), (2, 40.0)],
    }


def test_workers_on_one_device_stay_apart(tmp_path: Path) -> None:
    with TensorBoardWriter(tmp_path) as board:
        used = utilization(("cpu", 10.0), ("cpu", 20.0))
        board.epoch("al", 1, 1, accuracies={}, samples_per_second=1.0, utilization=used)
    found = scalars(tmp_path)
    assert found["al/turn_1/busy/0_cpu"] == [(1, 10.0)]
    assert found["al/turn_1/busy/1_cpu"] == [(1, 20.0)]


def test_a_method_without_workers_has_no_busy_time(tmp_path: Path) -> None:
    with TensorBoardWriter(tmp_path) as board:
        board.epoch("bp", 1, 1, accuracies={"val": 12.5}, samples_per_second=64.0, utilization=None)
    assert scalars(tmp_path) == {
        "bp/turn_1/accuracy/val": [(1, 12.5)],
        "bp/turn_1/samples_per_second": [(1, 64.0)],
    }


def test_an_epoch_can_be_read_while_the_run_goes_on(tmp_path: Path) -> None:
    with TensorBoardWriter(tmp_path) as board:
        board.losses("bp", 1, 3, {"": {"loss": 0.5}})
        board.epoch("bp", 1, 1, accuracies={}, samples_per_second=2.0, utilization=None)
        assert scalars(tmp_path) == {"bp/turn_1/loss": [(3, 0.5)], "bp/turn_1/samples_per_second": [(1, 2.0)]}


def test_an_interruption_loses_nothing_that_was_written(tmp_path: Path) -> None:
    def interrupted() -> None:
        with TensorBoardWriter(tmp_path) as board:
            board.losses("bp", 1, 7, {"": {"loss": 0.25}})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert scalars(tmp_path) == {"bp/turn_1/loss": [(7, 0.25)]}


def test_the_folder_is_made(tmp_path: Path) -> None:
    with TensorBoardWriter(tmp_path / "a" / "b"):
        pass
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize("inside", ["", "runs"])
def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, inside: str) -> None:
    (tmp_path / "taken").write_text("a file")
    folder = tmp_path / "taken" / inside
    with pytest.raises(UsageError) as caught:
        TensorBoardWriter(folder)
    assert str(caught.value).startswith(f"--tensorboard {folder}: cannot be written (")
    assert len(str(caught.value).splitlines()) == 1


def test_without_the_package_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match=r"^--tensorboard needs the package tensorboard: pip install tensorboard$"):
        TensorBoardWriter(tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
