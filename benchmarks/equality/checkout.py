"""A checkout as a black box: processes that run its code, and what they leave."""

from __future__ import annotations

import glob
import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

#: By what was looked at, its values as texts; None where this checkout's form of it cannot be looked into.
Found = dict[str, list[str] | None]
Stream = int | IO[bytes]

PROBE = Path(__file__).resolve().with_name("probe.py")
PARTS = ("steps", "commands", "resume")
SCRIPTS = ("cvmain.py", "nlpmain.py")
TEXT = "--set embedding_dim=16 --set x_hid=16 --set max_len=24 --set lr=0.003 --set epochs=3 --limit-train 400"
#: Together they have every model, schedule, recipe and precision, several turns, and a split that is drawn otherwise.
COMMANDS = {
    "digits vgg": "cvmain.py digits vgg --workers 2 --limit-train 300 --set train_batch_size=32 --set width=0.1 "
    "--set epochs=4",
    "digits resnet -r 2": "cvmain.py digits resnet -r 2 --limit-train 200 --set train_batch_size=32 --set width=0.05 "
    "--set epochs=2 --set augmentation=strong",
    "digits resnet, bf16": "cvmain.py digits resnet --limit-train 200 --set train_batch_size=32 --set width=0.05 "
    "--set epochs=2 --set precision=bf16 --set weight_decay=0.01 --set label_smoothing=0.1 --set on_nan=skip "
    "--set checkpoint_every=4",
    "digits vgg, thesis, al-fm": "cvmain.py digits vgg --schedule al-fm --limit-train 200 --set recipe=thesis "
    "--set train_batch_size=32 --set width=0.05 --set enc_dim=32 --set ae_dim=16 --set epochs=2",
    "docstrings lstm": f"nlpmain.py docstrings lstm {TEXT} --set batch_size=32 --set warmup=0.2 --set word_dropout=0.1",
    "docstrings transformer, sequential": f"nlpmain.py docstrings transformer {TEXT} --set batch_size=32 --seed 3 "
    "--schedule sequential",
}
#: The commands are small, so what they set is no default; here the defaults are.
CONFIGS = [f"{script} --print-config --set recipe={recipe}" for script in SCRIPTS for recipe in ("default", "thesis")]
#: A checkpoint long before an epoch ends. AL has the random streams of dropout, BP those of augmentation.
INTERRUPTED = {
    "docstrings lstm, AL": f"nlpmain.py docstrings lstm {TEXT} --set batch_size=8 --set checkpoint_every=3 "
    "--method al --workers 2",
    "digits vgg, BP": "cvmain.py digits vgg --limit-train 400 --set train_batch_size=8 --set width=0.1 --set epochs=3 "
    "--set checkpoint_every=3 --set augmentation=strong --method bp",
}
#: A process that is not done after this many seconds hangs.
HANGING = 600.0


class CheckoutError(Exception):
    """A process of a checkout did not do what it was asked for."""


class Checkout:
    """The code in `path`, run by the interpreter `python`; whatever it writes goes to `folder`."""

    def __init__(self, path: Path, python: str, folder: Path) -> None:
        self.path, self.python, self.folder = path, python, folder

    def part(self, name: str) -> dict[str, Found]:
        """Return what one of `PARTS` finds, by case or command. Raises CheckoutError."""
        return {"steps": self.steps, "commands": self.commands, "resume": self.resume}[name]()

    def steps(self, cases: Sequence[str] = ()) -> dict[str, Found]:
        """Train tiny models, all or those of the given cases."""
        return self._probe("steps", *cases)

    def commands(self) -> dict[str, Found]:
        """Run the commands, and have the defaults printed."""
        outs: dict[str, Path] = {}
        for number, (name, command) in enumerate(COMMANDS.items(), start=1):
            outs[name] = self.folder / f"command {number}"
            self._finish(command, outs[name])
        found = self._outcomes(outs)
        for command in CONFIGS:
            printed = json.loads(self._finish(command))
            found[command] = {key: [json.dumps(value)] for key, value in printed.items()}
        return found

    def resume(self) -> dict[str, Found]:
        """Run commands to their end, and again, "resumed", killed at their first checkpoint and gone on with."""
        outs: dict[str, Path] = {}
        for number, (name, command) in enumerate(INTERRUPTED.items(), start=1):
            outs[name] = self.folder / f"whole {number}"
            outs[f"resumed {name}"] = out = self.folder / f"resumed {number}"
            self._finish(command, outs[name])
            self._kill(command, out)
            self._finish(f"{command} --resume", out)
        found = self._outcomes(outs)
        for name, out in outs.items():
            # A run that begins anew comes to the same end.
            told = re.findall(r'"resumptions": (\d+)', "".join(path.read_text("utf-8") for path in out.glob("*.json")))
            found[name]["resumptions"] = told or None
        return found

    def _outcomes(self, outs: Mapping[str, Path]) -> dict[str, Found]:
        found = self._probe("outcome", *map(str, outs.values()))
        for name, out in outs.items():
            if not any(".csv " in what for what in found[str(out)]):
                raise CheckoutError(f"{name}: it left no CSV")
        return {name: found[str(out)] for name, out in outs.items()}

    def _probe(self, *words: str) -> dict[str, Found]:
        # The probe sets its number of threads itself.
        process = self._start([str(PROBE), *words])
        said, complained = self._communicate(process, f"probe.py {words[0]}")
        if process.returncode:
            raise CheckoutError(f"probe.py {words[0]}: {_last_line(complained)}")
        found: dict[str, Found] = json.loads(_last_line(said))
        return found

    def _finish(self, command: str, out: Path | None = None) -> str:
        """Run the command to its end and return what it said on stdout."""
        process = self._command(command, out)
        said, complained = self._communicate(process, command)
        if process.returncode:
            raise CheckoutError(f"{command}: exit code {process.returncode}: {_last_line(complained)}")
        return said

    def _kill(self, command: str, out: Path) -> None:
        """Run the command until its first checkpoint is there."""
        with open(self.folder / "killed.log", "ab") as log:  # a pipe that nobody reads would stop it
            process = self._command(command, out, log)
            until = time.monotonic() + HANGING
            pattern = f"{glob.escape(str(out))}/checkpoints/**/turn*.json"
            while not (there := glob.glob(pattern, recursive=True)) and process.poll() is None:
                if time.monotonic() > until:
                    break
                time.sleep(0.005)
            process.kill()
            if process.wait() != -signal.SIGKILL or not there:
                raise CheckoutError(f"{command}: exit code {process.returncode}, not killed behind a checkpoint")

    def _command(self, command: str, out: Path | None, said: Stream = subprocess.PIPE) -> subprocess.Popen[str]:
        words = [*shlex.split(command), "--data-root", str(self.folder / "datasets")]
        # One thread, for the other checkout is at work beside it, and BP would take all cores.
        return self._start([*words, "--out", str(out)] if out else words, said, OMP_NUM_THREADS="1")

    def _start(self, words: list[str], said: Stream = subprocess.PIPE, **more: str) -> subprocess.Popen[str]:
        environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
        environment |= {"PYTHONPATH": str(self.path), "CUDA_VISIBLE_DEVICES": "", **more}
        environment["PYTHONDONTWRITEBYTECODE"] = "1"  # what is compared stays as it is
        return subprocess.Popen(
            [self.python, *words],
            cwd=self.path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            text=True,
        )

    @staticmethod
    def _communicate(process: subprocess.Popen[str], what: str) -> tuple[str, str]:
        try:
            return process.communicate(timeout=HANGING)
        except subprocess.TimeoutExpired:
            raise CheckoutError(f"{what}: not done after {HANGING:.0f} s") from None
        finally:
            process.kill()


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "without a word")
