"""What is written for TensorBoard can be read back, by name and step; what cannot be written is one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.errors import UsageError
from training.report.tensorboard import TensorBoard
from training.report.tracker import EpochFigures, TrackedTurn
from training.report.utilization import Row, Utilization

Points = list[tuple[int, float]]


def scalars(folder: Path) -> dict[str, Points]:
    """Return the (step, value) of every scalar below `folder`, as TensorBoard reads them."""
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def utilization(*busy: tuple[str, float]) -> Utilization:
    rows = [Row(device, ["a"], share, data=0.0, copy=0.0, idle=100 - share, ran={"a": 100.0}) for device, share in busy]
    return Utilization(rows, [], at_work=1.0, ceiling=1.0, speedup_estimate=None, advice="")


def turn(method: str, number: int) -> TrackedTurn:
    return TrackedTurn(dataset="digits", model="vgg", method=method, turn=number, config={})


def epoch(number: int, step: int, **changes: Any) -> EpochFigures:
    """Return the figures of an epoch in which nothing was measured; `changes` of its fields."""
    values: dict[str, Any] = {
        "epoch": number,
        "step": step,
        "losses": {},
        "accuracies": {},
        "by_depth": [],
        "train_time": 1.0,
        "samples_per_second": 64.0,
        "utilization": None,
    }
    return EpochFigures(**values | changes)


@contextmanager
def opened(folder: Path) -> Iterator[TensorBoard]:
    board = TensorBoard(folder, f"--tensorboard {folder}")
    yield board
    board.close()


def test_losses_go_by_method_turn_and_layer(tmp_path: Path) -> None:
    with opened(tmp_path) as board:
        board.begin(turn("al", 1))
        board.epoch(epoch(1, 30, losses={"conv_1": {"assoc": 0.5, "ae": 2.0}, "conv_2": {"assoc": 0.25, "ae": 4.0}}))
        board.epoch(
            epoch(2, 60, losses={"conv_1": {"assoc": 0.125, "ae": 1.0}, "conv_2": {"assoc": 0.0625, "ae": 3.0}})
        )
        board.begin(turn("al", 2))
        board.epoch(epoch(1, 30, losses={"conv_1": {"assoc": 8.0, "ae": 8.0}, "conv_2": {"assoc": 8.0, "ae": 8.0}}))
        board.begin(turn("local", 1))
        board.epoch(epoch(1, 30, losses={"conv_1": {"loss": 7.0}}))
        board.begin(turn("bp", 1))
        board.epoch(epoch(1, 30, losses={"": {"loss": 1.5}}))
    found = {tag: points for tag, points in scalars(tmp_path).items() if "loss" in tag}
    assert found["al/turn_1/assoc_loss/conv_1"] == [(30, 0.5), (60, 0.125)]
    assert found["al/turn_1/assoc_loss/conv_2"] == [(30, 0.25), (60, 0.0625)]
    assert found["al/turn_1/ae_loss/conv_1"] == [(30, 2.0), (60, 1.0)]
    assert found["al/turn_1/ae_loss/conv_2"] == [(30, 4.0), (60, 3.0)]
    assert found["al/turn_2/ae_loss/conv_2"] == [(30, 8.0)]
    assert found["bp/turn_1/loss"] == [(30, 1.5)]
    assert found["local/turn_1/loss/conv_1"] == [(30, 7.0)]
    assert len(found) == 4 + 4 + 1 + 1


def test_an_epoch_goes_by_its_number(tmp_path: Path) -> None:
    with opened(tmp_path) as board:
        board.begin(turn("al", 3))
        for number, accuracy in ((1, 50.0), (2, 75.0)):
            board.epoch(
                epoch(
                    number,
                    30 * number,
                    accuracies={"train": accuracy + 5, "test": accuracy},
                    by_depth=[1.0, 2.0],
                    samples_per_second=1000.0 * number,
                    utilization=utilization(("cpu:0", 90.0 + number), ("cpu:1", 40.0)),
                )
            )
    assert scalars(tmp_path) == {
        "al/turn_3/accuracy/train": [(1, 55.0), (2, 80.0)],
        "al/turn_3/accuracy/test": [(1, 50.0), (2, 75.0)],
        "al/turn_3/samples_per_second": [(1, 1000.0), (2, 2000.0)],
        "al/turn_3/busy/0_cpu_0": [(1, 91.0), (2, 92.0)],
        "al/turn_3/busy/1_cpu_1": [(1, 40.0), (2, 40.0)],
    }


def test_workers_on_one_device_stay_apart(tmp_path: Path) -> None:
    with opened(tmp_path) as board:
        board.begin(turn("al", 1))
        board.epoch(epoch(1, 3, utilization=utilization(("cuda:1 stream 0", 10.0), ("cuda:1 stream 1", 20.0))))
    found = scalars(tmp_path)
    assert found["al/turn_1/busy/0_cuda_1_stream_0"] == [(1, 10.0)]
    assert found["al/turn_1/busy/1_cuda_1_stream_1"] == [(1, 20.0)]


def test_a_method_without_workers_has_no_busy_time(tmp_path: Path) -> None:
    with opened(tmp_path) as board:
        board.begin(turn("bp", 1))
        board.epoch(epoch(1, 3, accuracies={"val": 12.5}))
    assert scalars(tmp_path) == {
        "bp/turn_1/accuracy/val": [(1, 12.5)],
        "bp/turn_1/samples_per_second": [(1, 64.0)],
    }


def test_an_epoch_can_be_read_while_the_run_goes_on(tmp_path: Path) -> None:
    with opened(tmp_path) as board:
        board.begin(turn("bp", 1))
        board.epoch(epoch(1, 3, losses={"": {"loss": 0.5}}))
        assert scalars(tmp_path) == {"bp/turn_1/loss": [(3, 0.5)], "bp/turn_1/samples_per_second": [(1, 64.0)]}


def test_the_folder_is_made(tmp_path: Path) -> None:
    with opened(tmp_path / "a" / "b"):
        pass
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize("inside", ["", "runs"])
def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, inside: str) -> None:
    (tmp_path / "taken").write_text("a file")
    folder = tmp_path / "taken" / inside
    for option, start in (
        (f"--tensorboard {folder}", f"--tensorboard {folder}: cannot be written ("),
        ("--tracker tensorboard", f"--tracker tensorboard: {folder} cannot be written ("),
    ):
        with pytest.raises(UsageError) as caught:
            TensorBoard(folder, option)
        assert str(caught.value).startswith(start)
        assert len(str(caught.value).splitlines()) == 1


def test_without_the_package_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match=r"^--tensorboard x needs the package tensorboard: pip install tensorboard$"):
        TensorBoard(tmp_path / "runs", "--tensorboard x")
    assert not (tmp_path / "runs").exists()
