"""One command: load, train every turn of every method, measure after each epoch, write, compare."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from ALPackage import StageError
from data import DataError
from utils import set_deterministic

from .checkpoints.resume import find_resume_points, make_stores, together
from .config.arguments import Arguments, Command, read_command
from .config.schema import Task
from .errors import UsageError, reason
from .report.comparison import comparison_table
from .report.record import Record
from .report.results import MethodSummary, json_path, lock_results, prepare_output
from .report.tensorboard import TensorBoardWriter
from .report.timeline import prepare_trace
from .runs.placement import check_devices
from .runs.setting import Setting
from .runs.shutdown import GracefulShutdown
from .runs.tasks import Job, load_job
from .runs.threads import count_threads
from .runs.turns import run_method


@dataclass(frozen=True)
class Outcome:
    """What a command leaves: the figures per method, the files, and the signal that interrupted it, if one did."""

    title: str
    summaries: list[MethodSummary]
    files: list[Path]
    interrupted: KeyboardInterrupt | None
    resumable: bool


def main(task: Task, argv: Sequence[str] | None = None) -> int:
    """Run the command line of a task's entry point and return its exit code.

    0: done. 2: a mistake in the arguments, the config or the data, told in one line. 130 and 143: interrupted, by
    Ctrl-C or SIGTERM; a checkpoint of the last step is on disk, where training had begun.
    """
    return exit_code(lambda outcomes: outcomes.append(run(task, sys.argv[1:] if argv is None else argv)))


def execute(command: Command) -> int:
    """Run a command that has been read and checked, and return its exit code, as `main` does."""
    return exit_code(lambda outcomes: outcomes.append(run_command(command)))


def exit_code(work: Callable[[list[Outcome]], None]) -> int:
    """Do the work, which appends what it leaves; report all of that, and what went wrong as a line and a code."""
    try:
        return _exit_code(work)
    except OSError as error:
        if not _lost_stdout():
            raise
        print(
            f"error: the standard output cannot be written ({reason(error)}); the epochs that were finished are in the "
            "results' files, and --resume goes on from the last checkpoint",
            file=sys.stderr,
        )
        return 2


def _lost_stdout() -> bool:
    """Tell whether nothing can be printed any more (a pipe without a reader, a full disk); have the rest go nowhere."""
    try:
        print(end="", flush=True)
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # Python flushes it at its end, and must not fail again
        return True
    return False


def _exit_code(work: Callable[[list[Outcome]], None]) -> int:
    outcomes: list[Outcome] = []
    code, last_words = 0, ""
    interrupted: KeyboardInterrupt | None = None
    try:
        work(outcomes)
    except (UsageError, DataError) as error:
        code, last_words = 2, f"error: {error}"
    except StageError as error:
        if not isinstance(error.__cause__, (UsageError, DataError)):
            raise
        code, last_words = 2, f"error: {error.__cause__}"
    except KeyboardInterrupt as error:
        interrupted = error
    for outcome in outcomes:
        if outcome.summaries:
            print(f"\n{outcome.title}\n{comparison_table(outcome.summaries)}")
    files = [path for outcome in outcomes for path in outcome.files]
    if files:
        print("\nresults:", *(f"  {path}" for path in files), sep="\n", flush=True)
    for outcome in outcomes:
        interrupted = interrupted or outcome.interrupted
    if interrupted is not None:
        code = getattr(interrupted, "exit_code", 130)
        kept = "the files above hold every epoch that was finished" if files else "before the first epoch was done"
        more = ""
        if outcomes and outcomes[-1].resumable:
            more = "; the same command with --resume goes on from the last checkpoint"
        last_words = f"interrupted: {kept}{more}"
    if last_words:
        print(last_words, file=sys.stderr)
    return code


def run(task: Task, argv: Sequence[str]) -> Outcome:
    """Run a command line; see `run_command`."""
    return run_command(read_command(task, argv))


def run_command(command: Command) -> Outcome:
    """Run every method and turn of a command; an interruption keeps what is done.

    Raises UsageError or DataError, before any training, for whatever can be refused.
    """
    arguments, config = command.arguments, command.config
    threads = {method: count_threads(config, arguments.model, method) for method in arguments.methods}
    for method in arguments.methods:
        check_devices(config, arguments.model, method)
    out = prepare_output(config.outputpath)
    if arguments.trace is not None:
        chrome, _ = prepare_trace(arguments.trace)
        if chrome.resolve() == json_path(out, arguments.dataset, arguments.model).resolve():
            raise UsageError(f"--trace {arguments.trace}: the results of the run go there; name another file")
    if torch.cuda.is_available():
        set_deterministic()
    with GracefulShutdown() as stopping, ExitStack() as held:
        for method in arguments.methods:
            held.enter_context(lock_results(out, arguments.dataset, arguments.model, method))
        job = load_job(config, arguments.dataset, arguments.model, arguments.data_root, arguments.limit_train)
        stores = make_stores(arguments, config, out)
        for store in stores.values():
            store.prepare()
        resumed = find_resume_points(arguments, config, job, stores)
        _introduce(arguments, job)
        record = Record(out, arguments.dataset, arguments.model)
        interrupted: KeyboardInterrupt | None = None
        try:
            with TensorBoardWriter(arguments.tensorboard) if arguments.tensorboard else nullcontext() as board:
                for method in arguments.methods:
                    setting = Setting(
                        arguments=arguments,
                        config=config,
                        job=job,
                        method=method,
                        threads=threads[method],
                        stopping=stopping,
                        store=stores[method],
                        together=together(stores, method),
                        resumed=resumed[method],
                    )
                    run_method(setting, record, board)
                    stores[method].wait()
            record.draw()
        except KeyboardInterrupt as error:
            interrupted = error.with_traceback(None)
            with suppress(KeyboardInterrupt):  # who presses it again is not interested in pictures
                record.draw()
        finally:
            for store in stores.values():
                store.close()
    if arguments.trace is not None and not record.extras and interrupted is None:
        print("note: --trace: AL's first turn was trained before the interruption; there is no timeline of it")
    for notice in record.notices():
        print(f"note: {notice}")
    title = f"{arguments.dataset}, {arguments.model}, {arguments.turns} turn{'s' * (arguments.turns > 1)}"
    resumable = any(resumed.values()) or any(store.written for store in stores.values())
    return Outcome(title, record.summaries(), record.files(), interrupted, resumable)


def _introduce(arguments: Arguments, job: Job) -> None:
    data = job.data
    print(
        f"{data.name}, {arguments.model}: {len(data.train)} training, {len(data.val)} validation, "
        f"{len(data.test)} test samples; {len(data.classes)} classes"
    )
    for note in job.notes:
        print(f"  {note}")
