"""Run drawn configs and command lines up to the first batch: exit code 0 or 2, one line, never a traceback."""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, Phase, given, seed, settings

from data.storage.streams import exit_code
from training import experiment
from training.config.spec import RunSpec
from training.runs.provenance import collect
from training.runs.session import Session
from training.runs.tasks import training_batches

from .cases import Case, cases

__all__ = ["main", "run"]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PROCESSES = 20
#: A model with more units than this is not built: that takes long, and is not what is looked for.
MANY = 64


@contextmanager
def playground() -> Iterator[Path]:
    """Work in a folder that goes afterwards, and stop every run where it would train."""
    before = os.getcwd()
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(experiment, "train_method", _build),
        # As cautious as a terminal: what cannot be encoded is an error.
        mock.patch.dict(os.environ, {"PYTHONIOENCODING": "utf-8"}),
    ):
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def _build(spec: RunSpec, session: Session, resumed: Any) -> None:
    """Do what comes before the first batch: build the model and take a batch."""
    config = spec.config
    units = [getattr(config, key, 0) for key in ("enc_dim", "ae_dim", "x_hid", "y_hid", "embedding_dim")]
    units.append(getattr(config, "al_layers", 0) * getattr(config, "n_layers", 0))
    if max(units) <= MANY and getattr(config, "width", 0) <= 0.25:
        session.task.build(spec.method)
    next(iter(training_batches(session.task, "cpu", seed=spec.seeds[0], epoch=1)))


def run(case: Case) -> tuple[int, str]:
    """Run a case in the current folder and return its exit code and what it said on stderr. Raises what escapes."""
    Path("config.json").write_bytes(case.config)
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", handler) for handler in ("strict", "backslashreplace"))
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = experiment.main(case.task, case.argv)
        except SystemExit as left:  # --help and its like
            code = int(left.code or 0)
        out.flush()
        err.flush()
    return code, err.buffer.getvalue().decode()  # type: ignore[attr-defined]


def check(case: Case, code: int, said: str) -> None:
    """Raise AssertionError where a command did not end as it should."""
    assert code in (0, 2), f"exit code {code} of {case}"
    if code == 2:
        assert said.startswith("error: "), f"{said!r} of {case}"
        assert said.count("\n") == 1, f"{said!r} of {case}"


def as_process(case: Case) -> tuple[int, str]:
    """Run a case as a user does; the caller sees to it that it trains nothing."""
    script = "cvmain.py" if case.task == "vision" else "nlpmain.py"
    Path("config.json").write_bytes(case.config)
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *case.argv], capture_output=True, timeout=300, check=False
    )
    return done.returncode, done.stderr.decode()


def main(argv: Sequence[str] | None = None) -> int:
    """Draw, run, write the JSON and print the counts; a case that fails is shrunk and raised."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=5000, help="run in this process (default: 5000)")
    parser.add_argument("--processes", type=int, default=PROCESSES, help=f"run as processes (default: {PROCESSES})")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    parser.add_argument("--out", type=Path, default=HERE / "fuzz.json")
    given_options = parser.parse_args(argv)
    out = given_options.out.resolve()
    codes: Counter[int] = Counter()
    messages: set[str] = set()
    refused: list[Case] = []

    @seed(given_options.seed)
    @settings(
        max_examples=given_options.cases,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(cases())
    def one(case: Case) -> None:
        code, said = run(case)
        check(case, code, said)
        codes[code] += 1
        if code == 2:
            messages.add(" ".join(said.split()[:4]))
            real = not any("\0" in word or not word.isprintable() for word in case.argv)
            if real and len(refused) < given_options.processes and codes[2] % 7 == 0:
                refused.append(case)

    with playground():
        one()
        for case in refused:
            code, said = as_process(case)
            check(case, code, said)
            assert code == 2, f"exit code {code} of {case}"
    results = {
        "command": " ".join(["python -m benchmarks.faults.fuzz", *(sys.argv[1:] if argv is None else argv)]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "provenance": collect(["cpu"]),
        "exit_codes": {str(code): count for code, count in sorted(codes.items())},
        "beginnings_of_messages": len(messages),
        "processes": len(refused),
    }
    out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"{sum(codes.values())} cases: {dict(codes)}, {len(messages)} kinds of messages; {len(refused)} processes")
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
