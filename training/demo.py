"""Both commands on real data that every installation has: `python -m training.demo`, a few minutes on two cores."""

from __future__ import annotations

import sys

from data.storage.streams import exit_code

from .config.arguments import read_command
from .config.schema import Task
from .experiment import run
from .runs.exit_code import ExitCode

#: Small versions of the two commands, sized for a laptop: the point is that everything runs, not the accuracy.
RUNS: tuple[tuple[Task, str], ...] = (
    ("vision", "digits vgg --set width=0.25 --set epochs=8 --set train_batch_size=64"),
    ("text", "docstrings lstm --set embedding_dim=64 --set x_hid=64 --set max_len=64 --set epochs=5 --set lr=0.003"),
)


def main(argv: list[str]) -> int:
    """Run both commands with `argv` appended (for example --out DIR), then compare, and return the exit code."""
    with ExitCode() as end:
        for task, command in RUNS:
            script = "cvmain.py" if task == "vision" else "nlpmain.py"
            print(f"\npython {script} {command}", flush=True)
            end.outcomes.append(run(read_command(task, [*command.split(), *argv])))
            if end.outcomes[-1].interrupted:
                break
    return end.code


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(sys.argv[1:])))
