"""One command: load, train every turn of every method, measure after each epoch, write, compare."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import torch

from utils import set_deterministic

from .checkpoints.resume import epochs_done, find_resume_points, make_stores, methods_of_run, note_unfinished
from .checkpoints.store import Checkpoint
from .config.arguments import Arguments, Command, read_command
from .config.launch import launched, torchrun_began
from .config.load import check_layers_of_growth
from .config.schema import Config, Task
from .config.spec import RunSpec
from .config.unread import unread
from .errors import UsageError
from .report.gallery import Gallery
from .report.output import json_path, lock_results, prepare_output
from .report.run_log import RunLog
from .report.timeline import prepare_trace
from .report.trackers import Trackers, load_modules, open_tensorboard
from .runs.bp_ranks import share_data
from .runs.exit_code import ExitCode, Outcome
from .runs.follow import about, follow
from .runs.method import train_method
from .runs.own_network import note_another
from .runs.preview import preview
from .runs.progress import Progress
from .runs.ranks import Ranks, joined
from .runs.resolve import Machine, check_replicas, find_machine, make_spec
from .runs.session import Session
from .runs.shutdown import GracefulShutdown
from .runs.tasks import LoadedTask, load_task
from .weights.keeper import make_keeper


def main(task: Task, argv: Sequence[str] | None = None) -> int:
    """Run the command line of a task's entry point and return its exit code.

    0: done. 2: a mistake in the arguments, the config or the data, in one line. 128 and a signal's number: interrupted,
    130 by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP; the newest checkpoint is that of the last step, unless a second signal
    or a very long step cut it short.
    """
    with ExitCode() as end:
        end.outcomes.append(run(read_command(task, argv)))
    return end.code


def execute(command: Command) -> int:
    """Run a command that has been read and checked, and return its exit code, as `main` does.

    Under torchrun this is one of several processes, and all return the code of rank 0.
    """
    with ExitCode() as end, joined(launched(), lambda: about(command), command.config.timeout) as ranks:
        if ranks is not None and not ranks.leads:
            return follow(command, ranks)
        with ExitCode(None if ranks is None else ranks.lost) as here:
            here.outcomes.append(run(command, ranks))
        end.code = here.code
        if ranks is not None:
            ranks.end(here.code, here.words)
    return end.code


def run(command: Command, ranks: Ranks | None = None) -> Outcome:
    """Run every method and turn of a command, or only plan it; an interruption keeps what is done.

    Raises UsageError or DataError, before any training, for whatever can be refused.
    """
    arguments, config = command.arguments, command.config
    if arguments.plan:
        return _plan(arguments, config, ranks)
    # What can be refused without data is refused first: loading may download.
    machines = _machines(arguments, config)
    modules = load_modules(arguments.trackers)
    out = prepare_output(config.outputpath)
    _check_trace(arguments, [json_path(out, arguments.dataset, arguments.model, name) for name in arguments.methods])
    if torch.cuda.is_available():
        set_deterministic()

    logs: list[RunLog] = []
    interrupted: KeyboardInterrupt | None = None
    with GracefulShutdown(last=ranks is not None) as shutdown, ExitStack() as held:
        if ranks is not None:
            ranks.signaled = shutdown.forward
        # Two commands that write the same files would mix their epochs.
        for name in arguments.methods:
            held.enter_context(lock_results(out, arguments.dataset, arguments.model, name))
        task = load_task(config, arguments.dataset, arguments.model, arguments.data_root, arguments.limit_train)
        machines = _machines(arguments, config, task) if task.network is not None else machines
        specs = {
            method: make_spec(arguments, config, method, machine, task, out) for method, machine in machines.items()
        }
        check_replicas(specs.values(), task)
        _share_data(specs.values(), task, ranks)
        # A full disk or another run's checkpoints are found before hours of training, not after.
        stores = make_stores(specs)
        for store in stores.values():
            held.callback(store.close)
            store.prepare()
        resumed: dict[str, Checkpoint | None] = dict.fromkeys(specs)
        if arguments.resume:
            resumed = find_resume_points(specs, stores)
        elif (began := torchrun_began()) is not None:  # what torchrun starts again goes on where it was
            resumed = find_resume_points(specs, stores, since=began)
        if not arguments.resume and not any(resumed.values()):
            note_unfinished(specs, stores)
        keepers = {method: make_keeper(spec, stores[method].run) for method, spec in specs.items()}
        for keeper in keepers.values():
            keeper.prepare()
        _introduce(arguments, task)
        note_another(specs.values())
        if ranks is not None and arguments.trace is not None:
            print("  note: --trace: the timeline has the layers of rank 0 alone")
        # The methods train one after the other, so that each has the machine to itself.
        gallery = Gallery(out, arguments.dataset, arguments.model)
        progress = Progress(
            sum(spec.turns * spec.config.epochs for spec in specs.values()),
            sum(epochs_done(checkpoint) for checkpoint in resumed.values() if checkpoint),
        )
        # A folder for every run, because TensorBoard mixes what it finds in one; a resumed run continues its own.
        board = out / "tensorboard" / f"{arguments.dataset}_{arguments.model}" / stores[arguments.methods[0]].run
        boards = open_tensorboard(arguments.trackers, arguments.tensorboard, board)
        # They are closed after the pictures, because they may take long.
        trackers = held.enter_context(Trackers([*modules, *boards], shutdown.deferred))
        try:
            for method, spec in specs.items():
                together = methods_of_run(stores, method)
                session = Session(
                    task, stores[method], keepers[method], together, shutdown, logs, gallery, trackers, progress, ranks
                )
                train_method(spec, session, resumed[method])
                stores[method].wait()
            if ranks is not None:
                ranks.complete = True
            gallery.draw(logs)
        except KeyboardInterrupt as error:
            interrupted = error.with_traceback(None)  # it would keep the model alive
            with suppress(KeyboardInterrupt):  # a second one: the user does not want to wait for pictures
                gallery.draw(logs)

    if arguments.trace is not None and not gallery.extras and interrupted is None:
        print("note: --trace: the first turn was trained before the interruption; there is no timeline of it")
    if gallery.complaint is not None:
        print(f"note: {gallery.complaint}")
    title = f"{arguments.dataset}, {arguments.model}, {arguments.turns} turn{'s' * (arguments.turns > 1)}"
    # An interrupted method counts with the epochs that it has done.
    done = [log for log in logs if log.rows]
    tables = [path for log in done for path in (log.csv_path, log.json_path)]
    files = [*tables, *gallery.pages, *gallery.pictures, *gallery.extras] if done else []
    resumable = any(resumed.values()) or any(store.written for store in stores.values())
    summaries = [summary for log in done if (summary := log.summary()) is not None]
    return Outcome(title, summaries, files, interrupted, resumable)


def _plan(arguments: Arguments, config: Config, ranks: Ranks | None) -> Outcome:
    """Say what a command would do. It leaves nothing, and does not look at what an earlier one has left."""
    machines = _machines(arguments, config)
    if torch.cuda.is_available():
        set_deterministic()
    task = load_task(config, arguments.dataset, arguments.model, arguments.data_root, arguments.limit_train)
    machines = _machines(arguments, config, task) if task.network is not None else machines
    _introduce(arguments, task)
    out = Path(config.outputpath)
    specs = [make_spec(arguments, config, method, machine, task, out) for method, machine in machines.items()]
    check_replicas(specs, task)
    _share_data(specs, task, ranks)
    preview(specs, task, ranks)
    return Outcome("", [], [], None, resumable=False)


def _machines(arguments: Arguments, config: Config, task: LoadedTask | None = None) -> dict[str, Machine]:
    """Return where each method runs; `task`: with a network of the user's, whose layers are known now."""
    built = None
    if task is not None and task.network is not None:
        built = list(task.network.layers)
        for method in arguments.methods:
            task.build(method)  # what does not suit a later method is found before the first one trains
        check_layers_of_growth(config, arguments.model, arguments.methods, built)
    return {
        method: find_machine(config, arguments.model, method, arguments.bp_parallel, built)
        for method in arguments.methods
    }


def _share_data(specs: Iterable[RunSpec], task: LoadedTask, ranks: Ranks | None) -> None:
    """Have the other processes load the data, if any method needs it there."""
    if ranks is not None and any(spec.bp_parallel == "ddp" for spec in specs):
        share_data(ranks, task)


def _check_trace(arguments: Arguments, results: Sequence[Path]) -> None:
    """Raise UsageError for a timeline that cannot be written, or that would replace the results."""
    if arguments.trace is None:
        return
    chrome, _ = prepare_trace(arguments.trace)
    if chrome.resolve() in [path.resolve() for path in results]:
        raise UsageError(f"--trace {arguments.trace}: the results of the run go there; name another file")


def _introduce(arguments: Arguments, task: LoadedTask) -> None:
    data = task.data
    print(
        f"{data.name}, {arguments.model}: {len(data.train)} training, {len(data.val)} validation, "
        f"{len(data.test)} test samples; {len(data.classes)} classes"
    )
    if task.network is not None:
        layers = len(task.network.layers)
        print(f"  the network is cut into {layers} layer{'s' * (layers > 1)}, by floating-point operations:")
        print("\n".join(f"    {line}" for line in task.network.text().splitlines()))
    for note in task.notes:
        print(f"  {note}")
    for note in unread(arguments.task, arguments.model, arguments.methods, arguments.overrides):
        print(f"note: {note}")
