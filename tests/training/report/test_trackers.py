"""Trackers are told of every turn and epoch, and can neither end a run nor change what it computes."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from training.report.module_tracker import ModuleTracker
from training.report.trackers import Trackers
from training.report.undisturbed import undisturbed
from training.runs import shutdown as stopping
from training.runs.shutdown import GracefulShutdown, Interrupted

from .test_tensorboard import epoch, turn, utilization


class Recorder(ModuleType):
    """A module that keeps the calls, and does more in one of its functions."""

    def __init__(self, more: dict[str, Callable[[], Any]] | None = None) -> None:
        super().__init__("recorder")
        self.calls: list[tuple[Any, ...]] = []
        self.more = more or {}

    def _called(self, *call: Any) -> Any:
        self.calls.append(call)
        return self.more.get(call[0], lambda: object())()

    def init(self, *, project: str, name: str, config: dict[str, Any]) -> Any:
        return self._called("init", project, name, config)

    def log(self, values: dict[str, float], step: int) -> Any:
        return self._called("log", step, values)

    def finish(self) -> Any:
        return self._called("finish")

    @property
    def names(self) -> list[str]:
        return [name for name, *_ in self.calls]


def trackers(*modules: ModuleType, **options: Any) -> Trackers:
    return Trackers([ModuleTracker(f"--tracker m{n}", module) for n, module in enumerate(modules, 1)], **options)


def fail(error: BaseException) -> Callable[[], Any]:
    def action() -> None:
        raise error

    return action


def two_epochs(all_of_them: Trackers, number: int = 1) -> None:
    with all_of_them.turn(turn("al", number)):
        for n in (1, 2):
            all_of_them.epoch(epoch(n, 30 * n))


def test_a_turn_is_a_run_and_an_epoch_is_one_dict() -> None:
    module = Recorder()
    config = {"epochs": 2, "devices": ["cpu"]}
    all_of_them = trackers(module)
    told = turn("al", 3)
    told.config.update(config)
    with all_of_them.turn(told):
        all_of_them.epoch(
            epoch(
                1,
                30,
                losses={"conv_1": {"assoc": 0.5, "ae": 2.0}, "conv_2": {"assoc": 0.25, "ae": 4.0}},
                accuracies={"train": 3.0, "val": 2.0, "test": 1.0},
                by_depth=[0.5, 1.0],
                train_time=7.5,
                utilization=utilization(("cpu:0", 90.0), ("cpu:1", 40.0)),
            )
        )
    with all_of_them.turn(turn("bp", 1)):
        all_of_them.epoch(epoch(1, 30, losses={"": {"loss": 1.5}}, samples_per_second=0.0))
    values = {
        "epoch": 1,
        "train_time": 7.5,
        "assoc_loss/conv_1": 0.5,
        "assoc_loss/conv_2": 0.25,
        "ae_loss/conv_1": 2.0,
        "ae_loss/conv_2": 4.0,
        "accuracy/train": 3.0,
        "accuracy/val": 2.0,
        "accuracy/test": 1.0,
        "accuracy_by_depth/1": 0.5,
        "accuracy_by_depth/2": 1.0,
        "samples_per_second": 64.0,
        "utilization": 50.0,
        "busy/0_cpu_0": 90.0,
        "busy/1_cpu_1": 40.0,
    }
    assert module.calls == [
        ("init", "associated-learning", "digits_vgg_al_turn3", config),
        ("log", 30, values),
        ("finish",),
        ("init", "associated-learning", "digits_vgg_bp_turn1", {}),
        ("log", 30, {"epoch": 1, "train_time": 1.0, "loss": 1.5}),
        ("finish",),
    ]


def test_a_tracker_may_keep_and_change_its_config() -> None:
    module = Recorder()
    told = turn("al", 1)
    told.config["devices"] = ["cpu"]
    module.more["init"] = lambda: module.calls[-1][-1]["devices"].clear()
    with trackers(module).turn(told):
        pass
    assert told.config == {"devices": ["cpu"]}


def test_a_log_that_init_has_replaced_is_the_one_that_is_called() -> None:
    """As wandb does: before `init` its `log` only raises."""
    module, seen = Recorder(), []
    module.more["init"] = lambda: setattr(module, "log", lambda values, step: seen.append(step))
    two_epochs(trackers(module))
    assert seen == [30, 60]


@pytest.mark.parametrize("error", [ValueError("no\nnetwork"), SystemExit(1), RecursionError(), MemoryError("x")])
@pytest.mark.parametrize(
    ("function", "calls"),
    [
        ("init", ["init"]),
        ("log", ["init", "log", "log", "finish"]),
        ("finish", ["init", "log", "log", "finish"]),
    ],
)
def test_what_a_tracker_raises_is_one_note_and_the_others_go_on(
    function: str, calls: list[str], error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    failing, other = Recorder({function: fail(error)}), Recorder()
    all_of_them = trackers(failing, other)
    two_epochs(all_of_them)
    two_epochs(all_of_them, 2)
    assert failing.names == calls * 2, "the next turn tries again"
    assert other.names == ["init", "log", "log", "finish"] * 2
    printed = capsys.readouterr()
    assert printed.out.startswith(f"note: --tracker m1: {function} failed ({type(error).__name__}")
    assert printed.out.endswith("); the run goes on without it\n")
    assert printed.out.count("\n") == 1
    assert printed.err == ""


def test_an_exception_without_words_or_with_too_many_is_short(capsys: pytest.CaptureFixture[str]) -> None:
    class OddError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("not even that")

    two_epochs(trackers(Recorder({"log": fail(OddError()), "finish": fail(OSError("<html>" * 1000))})))
    first, second = capsys.readouterr().out.splitlines()
    assert "OddError: <exception str() failed>" in first
    assert len(second) < 400


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("the run's own"), GeneratorExit()])
def test_it_is_finished_however_the_turn_ends(error: BaseException) -> None:
    first, second = Recorder({"finish": fail(ValueError())}), Recorder()

    def work() -> None:
        all_of_them = trackers(first, second)
        with all_of_them, all_of_them.turn(turn("al", 1)):
            all_of_them.epoch(epoch(1, 30))
            raise error

    with pytest.raises(type(error)) as caught:
        work()
    assert caught.value is error
    assert first.names == second.names == ["init", "log", "finish"]


@pytest.mark.parametrize("function", ["init", "log", "finish"])
def test_ctrl_c_in_a_tracker_that_swallows_it_still_ends_the_run(function: str) -> None:
    def interrupted() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000):
                pass
        except BaseException:
            pass

    first, second = Recorder({function: interrupted}), Recorder()
    with GracefulShutdown() as shutdown:
        all_of_them = trackers(first, second, deferred=shutdown.deferred)
        with pytest.raises(Interrupted), all_of_them:
            two_epochs(all_of_them)
    assert (
        first.names
        == second.names
        == {
            "init": ["init", "finish"],
            "log": ["init", "log", "finish"],
            "finish": ["init", "log", "log", "finish"],
        }[function]
    )


def test_a_second_ctrl_c_does_not_wait_for_a_slow_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "SAME", 0.0, raising=False)  # seconds within which two signals are one

    def slow() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(30)

    module = Recorder({"log": slow})
    with (
        GracefulShutdown() as shutdown,
        pytest.raises(Interrupted),
        trackers(module, deferred=shutdown.deferred) as all_of_them,
    ):
        two_epochs(all_of_them)
    assert module.names == ["init", "log", "finish"]


def test_nothing_of_the_process_that_a_run_depends_on_is_changed(tmp_path: Path) -> None:
    """Generators, settings of torch, the working directory, the handlers of signals: as before, after a failure too."""

    def meddle() -> None:
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        torch.set_num_threads(2)
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        os.chdir(tmp_path)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: None)
        raise ValueError

    def state() -> Any:
        signals = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
        numbers = random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()
        torch_s = torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()
        return signals, numbers, torch_s, os.getcwd()

    before = state()
    two_epochs(trackers(Recorder({"init": meddle}), Recorder({"log": meddle, "finish": meddle})))
    assert state() == before


def test_a_working_directory_that_is_gone_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with undisturbed():
        pass


def test_outside_the_main_thread_it_works_too(capsys: pytest.CaptureFixture[str]) -> None:
    module = Recorder({"log": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)})
    thread = threading.Thread(target=two_epochs, args=(trackers(module),))
    thread.start()
    thread.join()
    assert module.names == ["init", "log", "log", "finish"]
    assert "log failed (ValueError: signal only works in main thread" in capsys.readouterr().out


def test_without_trackers_nothing_happens() -> None:
    with Trackers() as none:
        two_epochs(none)


def test_a_finish_that_takes_long_is_cut_short_after_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what a user waits for after Ctrl-C, the tables and the pictures, comes before it."""
    monkeypatch.setattr(stopping, "GRACE", 0.3)
    module = Recorder({"finish": lambda: threading.Event().wait(30)})
    drawn = []
    with GracefulShutdown() as shutdown, trackers(module, deferred=shutdown.deferred) as all_of_them:
        try:
            with all_of_them.turn(turn("al", 1)), shutdown.deferred():
                os.kill(os.getpid(), signal.SIGINT)
        except Interrupted:
            drawn.append(list(module.names))
    assert drawn == [["init"]]
    assert module.names == ["init", "finish"]
