"""Search settings for AL and BP, run the seeds of what was chosen, and show the tables (see README.md)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from ALPackage.stage.threads import available_cores
from data.storage.streams import exit_code
from data.text.vector_search import find_file
from training.config.schema import TextConfig
from training.errors import UsageError
from training.runs.shutdown import GracefulShutdown

from .choice import chosen
from .grid import Grid, Run, final_runs, read_grid, search_runs
from .records import Records, results_path, sole_runner
from .runner import RunError, run_all
from .table import markdown, trials

HERE = Path(__file__).parent


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says and return the exit code.

    0: done. 1: a run failed. 2: a mistake in the grid or the arguments, told in one line. 130 and 143: interrupted, by
    Ctrl-C or SIGTERM.
    """
    given = _parser().parse_args(argv)
    try:
        return _do(given)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interruption:
        print("interrupted: the same command goes on with the runs that were not finished", file=sys.stderr)
        return getattr(interruption, "exit_code", 130)


def _do(given: argparse.Namespace) -> int:
    grid = read_grid(given.grid)
    if given.method not in ("both", *grid.methods):
        raise UsageError(f"--method {given.method}: the grid has {', '.join(grid.methods)}, or both for all of them")
    path = given.results or results_path(given.grid)
    if given.action in ("table", "trials"):
        content = Records(path, grid).content()
        print(markdown(content) if given.action == "table" else trials(content))
        return 0
    cuda = torch.cuda.is_available()
    at_once = given.at_once or (1 if cuda else available_cores())
    if not cuda and at_once > available_cores():
        raise UsageError(f"--at-once {at_once}: every run has a core for itself, and there are {available_cores()}")
    with sole_runner(path), GracefulShutdown():
        records = Records(path, grid)
        runs = search_runs(grid) if given.action == "search" else _chosen_runs(grid, records, given)
        meant = [run for run in runs if _meant(run, given)]
        if not meant:
            raise UsageError(f'--cells "{given.cells}": no cell has such a name; the cells are {_names(grid)}')
        _check_vectors(records.missing(meant), given.data_root)
        run_all(
            meant,
            records,
            data_root=given.data_root,
            at_once=at_once,
            pinned=not cuda,
            say=lambda line: print(line, flush=True),
        )
    return 0


def _chosen_runs(grid: Grid, records: Records, given: argparse.Namespace) -> list[Run]:
    """Return the runs to report. Raises `UsageError` where a choice that is asked for cannot be made yet."""
    choice = chosen(grid, records.runs)
    open_ = [run for run in search_runs(grid) if _meant(run, given) and (run.cell.name, run.method) not in choice]
    if open_:
        names = dict.fromkeys(f"{run.cell.name} ({run.method.upper()})" for run in open_)
        raise UsageError(f"the search is not complete for {', '.join(names)}: run search first")
    return final_runs(grid, choice)


def _check_vectors(runs: list[Run], data_root: Path) -> None:
    """Refuse text runs without their word vectors: the script itself would start them at random, and say so."""
    for run in runs:
        config = run.config()
        if not isinstance(config, TextConfig) or config.pretrained_model != "glove":
            continue
        if find_file(config.embedding_dim, data_root) is None:
            raise UsageError(
                f"{run.cell.name}: no glove.6B.{config.embedding_dim}d.txt in {data_root}; "
                f"put it there, or run `python -m data.download glove --data-root {data_root}`"
            )


def _names(grid: Grid) -> str:
    return "; ".join(cell.name for cell in grid.cells)


def _meant(run: Run, given: argparse.Namespace) -> bool:
    return given.cells.lower() in run.cell.name.lower() and given.method in ("both", run.method)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("action", choices=["search", "final", "table", "trials"])
    parser.add_argument("--grid", type=Path, default=HERE / "cpu.json", help="default: cpu.json beside this script")
    parser.add_argument("--results", type=Path, help="default: beside the grid, results.json for cpu.json")
    parser.add_argument("--data-root", type=Path, default=Path("datasets"), help="default: ./datasets")
    parser.add_argument("--cells", default="", metavar="TEXT", help="only cells whose name contains it")
    parser.add_argument("--method", default="both", help="only this one (default: both, which is all of the grid)")
    parser.add_argument("--at-once", type=_count, metavar="N", help="default: a run per core; on a GPU, 1")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'got "{text}"; expected a whole number of at least 1')
    return int(text)


if __name__ == "__main__":
    sys.exit(exit_code(main))
