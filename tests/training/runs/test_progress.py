"""The lines of a run on a terminal: what they say, that they stay whole, and that nobody gets them who sees none."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

import pytest
import torch

from training.checkpoints.resume import epochs_done
from training.runs import progress as progress_module
from training.runs.progress import Progress, ProgressBar, count_lines

from ..checkpoints.test_store import info
from ..test_experiment import command

ROOT = Path(__file__).resolve().parents[3]


class Terminal:
    """A pseudo-terminal with a screen, on which `stream` writes. It knows what tqdm and print need."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self._reader, writer = pty.openpty()
        fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        os.set_blocking(self._reader, False)
        self.stream: TextIO = os.fdopen(writer, "w", encoding="utf-8")
        self.raw = ""
        self._rows: list[list[str]] = [[]]
        self._row = self._column = 0

    def attach(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have it behind stdout and stderr; only in the test itself, because pytest exchanges both before that."""
        monkeypatch.setattr(sys, "stdout", self.stream)
        monkeypatch.setattr(sys, "stderr", self.stream)

    def close(self) -> None:
        self.stream.close()
        os.close(self._reader)

    @property
    def screen(self) -> list[str]:
        """What is to be read now, without empty lines at the end."""
        self.stream.flush()
        data = b""
        while True:
            try:
                data += os.read(self._reader, 65536)
            except BlockingIOError:
                break
        self._draw(data.decode())
        lines = ["".join(row).rstrip() for row in self._rows]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def _draw(self, text: str) -> None:
        self.raw += text
        text = text.replace("\x1b[A", "\x00")
        assert "\x1b" not in text
        for letter in text:
            if letter == "\r":
                self._column = 0
            elif letter in "\n\x00":
                self._row += 1 if letter == "\n" else -1
                assert self._row >= 0
            else:
                if self._column == self.columns:  # it goes on in the next line, as on every terminal
                    self._row, self._column = self._row + 1, 0
                self._put(letter)
            while len(self._rows) <= self._row:
                self._rows.append([])

    def _put(self, letter: str) -> None:
        while len(self._rows) <= self._row:
            self._rows.append([])
        row = self._rows[self._row]
        row += " " * (self._column + 1 - len(row))
        row[self._column] = letter
        self._column += 1


@pytest.fixture(params=[80])
def terminal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """A terminal of 80 columns, or as many as the test asks for."""
    made = Terminal(request.param)
    for name in ("TERM", "JPY_PARENT_PID"):
        monkeypatch.delenv(name, raising=False)
    yield made
    made.close()


class Clock:
    """The time, which passes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(progress_module, "time", SimpleNamespace(monotonic=lambda: self.now))

    def wait(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def batches(count: int = 10, done: int = 0) -> Any:
    """Return what a bar needs to know of `count` batches of 8 samples."""
    bounds = [(8 * n, 8 * n + 8) for n in range(count)]
    return SimpleNamespace(bounds=bounds, done=done, split=range(8 * count))


LOSSES = {"assoc": torch.tensor(0.5), "ae": torch.tensor(0.25)}


def test_the_time_left_follows_the_epochs_so_far(clock: Clock) -> None:
    run = Progress(8)

    def an_epoch(seconds: float, whole: bool = True) -> None:
        run.begin_epoch()
        clock.wait(seconds)
        run.end_epoch(whole)

    with run.turn("al"):
        run.begin_epoch()
        clock.wait(5)
        assert run.seconds_left() is None
        assert run.text() == "run: 0/8 epochs"
        clock.wait(5)
        run.end_epoch(whole=True)
        assert run.text() == "run: 1/8 epochs, 01:10 left"
        run.begin_epoch()
        clock.wait(4)
        assert run.seconds_left() == 66, "evaluation and all, and less while the epoch goes on"
        clock.wait(16)
        assert run.seconds_left() == 7 * 20 - 20, "this epoch is slower, so the others will be"
        run.end_epoch(whole=True)
        assert run.seconds_left() == 6 * 15
        for _ in range(3):
            an_epoch(2)
        assert run.seconds_left() == 3 * 2, "the newest count"
    with run.turn("bp"):
        assert run.seconds_left() == 3 * 2, "nothing better is known"
        an_epoch(30)
        assert run.seconds_left() == 2 * 30
        an_epoch(20)
        an_epoch(10)
    assert run.text() == "run: 8/8 epochs"


def test_what_an_earlier_process_did_counts_but_gives_no_time(clock: Clock) -> None:
    run = Progress(1000, done=3)
    with run.turn("al"):
        run.begin_epoch()
        clock.wait(1)
        run.end_epoch(whole=False)
        assert run.text() == "run: 4/1000 epochs"
        run.begin_epoch()
        clock.wait(60)
        run.end_epoch(whole=True)
        assert run.text() == "run: 5/1000 epochs, 16:35:00 left"


@pytest.mark.parametrize(
    ("turn", "epoch", "finished", "done"), [(1, 1, False, 0), (1, 3, False, 2), (2, 1, False, 3), (2, 3, True, 6)]
)
def test_a_resumed_run_counts_what_is_recorded(turn: int, epoch: int, finished: bool, done: int) -> None:
    """An epoch that has been trained but not measured is not done."""
    changes = {"epochs": 3, "turn_finished": finished}
    there = SimpleNamespace(info=info(turn, epoch, 1).model_copy(update=changes))
    assert epochs_done(there) == done  # type: ignore[arg-type]


@pytest.mark.parametrize("terminal", [40, 80, 200], indirect=True)
def test_two_lines_that_fit_and_vanish(terminal: Terminal, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal.attach(monkeypatch)
    run = Progress(4, done=1)
    print("before", flush=True)
    with run.turn("al"):
        for epoch in (1, 2):
            run.begin_epoch()
            with ProgressBar(f"al turn 1 epoch {epoch}", batches(), run) as bar:
                for _ in range(10):
                    clock.wait(1)
                    time.sleep(0.011)  # tqdm has a clock of its own, and does not write more often than it must
                    bar(LOSSES)
                *_, first, second = terminal.screen
                assert first.startswith(f"run: {epoch}/4 epochs{', 00:20 left' if epoch == 2 else ''} |")
                assert second.startswith(f"al turn 1 epoch {epoch}: ")
                assert "samples/s" in second or terminal.columns == 40
                assert max(map(len, terminal.screen)) < terminal.columns
            run.say(f"epoch {epoch} is done")
            with run.aside():
                print("a tracker", end=" ", flush=True)
                print("says something", file=sys.stderr, flush=True)
            clock.wait(5)
            run.end_epoch(whole=True)
    lines = ["before", *(line for n in (1, 2) for line in (f"epoch {n} is done", "a tracker says something"))]
    assert terminal.screen == lines


@pytest.mark.parametrize("variable", [("TERM", "dumb"), ("JPY_PARENT_PID", "1")])
def test_where_the_cursor_cannot_go_up_one_line_says_both(
    variable: tuple[str, str], terminal: Terminal, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that a notebook starts, for example; there the other line would fill the page."""
    monkeypatch.setenv(*variable)
    terminal.attach(monkeypatch)
    run = Progress(4)
    with run.turn("al"):
        run.begin_epoch()
        with ProgressBar("al turn 1 epoch 1", batches(), run) as bar:
            clock.wait(1)
            bar(LOSSES)
            (line,) = terminal.screen
            assert line.startswith("run: 0/4 epochs | al turn 1 epoch 1: ")
        run.say("done")
    assert terminal.screen == ["done"]
    assert "\x1b" not in terminal.raw


def test_a_run_on_a_terminal_leaves_its_lines_and_nothing_else(
    terminal: Terminal, datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("training.report.gallery.draw", lambda *_: [])
    terminal.attach(monkeypatch)
    assert command("vision", "tinyImageNet vgg -r 2", datasets, tmp_path) == 0
    screen = terminal.screen
    assert "run: 7/8 epochs, 00:0" in terminal.raw
    assert [line for line in screen if line.startswith(("run:", "al turn 1 epoch 1:", "bp turn 2 epoch 2:"))] == []
    lines = [line.split(": train")[0] for line in screen if " epoch " in line and "/2: train" in line]
    assert lines == [f"{method} turn {turn} epoch {n}/2" for method in ("al", "bp") for turn in (1, 2) for n in (1, 2)]


@pytest.mark.parametrize("stream", [None, io.StringIO(), SimpleNamespace(write=print)])
def test_where_nobody_looks_there_are_no_lines(stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    assert count_lines() == 0


def test_a_closed_stream_has_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    assert count_lines() == 0


class Broken(io.StringIO):
    """A terminal that is gone after a while."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error, self.left = error, 3

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return len(text)


@pytest.mark.parametrize(
    "error",
    [
        BrokenPipeError(32, "Broken pipe"),
        OSError(5, "Input/output error"),
        ValueError("I/O operation on closed file"),
        UnicodeEncodeError("ascii", "é", 0, 1, "ordinal not in range"),
    ],
)
def test_a_terminal_that_breaks_ends_the_lines_and_not_the_run(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", Broken(error))
    run = Progress(2)
    assert run.lines > 0
    with run.turn("al"):
        run.begin_epoch()
        with ProgressBar("al turn 1 epoch 1", batches(), run) as bar:
            for _ in range(10):
                bar(LOSSES)
        run.end_epoch(whole=True)
    assert run.done == 1


def test_in_a_notebook_it_is_tqdm_s_notebook_form_and_no_warning_comes(tmp_path: Path) -> None:
    """With widgets, without them, and with another stderr; the kernel is made up of what tqdm asks for."""
    script = """if True:
        import io, sys, traceback, types, warnings
        warnings.simplefilter("error")

        def module(name, **contents):
            sys.modules[name] = made = types.ModuleType(name)
            made.__dict__.update(contents)

        class Widget:
            def __init__(self, *a, **k):
                self.__dict__.update(k, bar_style="", layout=types.SimpleNamespace(), style=types.SimpleNamespace())
            def close(self): pass

        class OutStream(io.StringIO): pass
        OutStream.__module__ = "ipykernel.iostream"

        shell = type("ZMQInteractiveShell", (), {})()
        shown = []
        module("ipykernel.zmqshell")
        module("IPython", get_ipython=lambda: shell)
        module("IPython.display", display=shown.append)
        if sys.argv[1] == "widgets":
            module("ipywidgets", HTML=Widget, FloatProgress=Widget, HBox=Widget)
        else:
            sys.modules["ipywidgets"] = sys.modules["IPython.html"] = None
        from training.runs import progress
        sys.excepthook = lambda kind, error, trace: traceback.print_exception(error, file=sys.__stderr__)
        sys.stderr = OutStream()
        assert progress.count_lines() == int(sys.argv[2]), progress.count_lines()
        run = progress.Progress(2)
        batches = types.SimpleNamespace(bounds=[(0, 8)], done=0, split=range(8))
        with run.turn("al"), progress.ProgressBar("an epoch", batches, run) as bar:
            bar({})
        assert len(shown) == int(sys.argv[3]), shown
        assert ("run: 0/2 epochs | an epoch:" in sys.stderr.getvalue()) == (sys.argv[1] == "text")
        sys.stderr = io.StringIO()
        assert progress.count_lines() == 0
    """
    for arguments in (["widgets", "2", "2"], ["text", "1", "0"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr, done.stdout) == (0, "", "")
