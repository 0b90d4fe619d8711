"""The command line of the two entry points: what to run, on which data, where the results go.

Whatever is wrong with it becomes a `UsageError` of one line, so that every mistake of a user, here or in the
configuration, looks the same. Nothing here needs torch: help and mistakes are answered at once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, get_args

from data import TEXT, VISION, DataError, canonical
from models import registry

from ..errors import UsageError, closest, reason
from .bp_parallel import BPParallel, bp_parallel, check_bp_ranks
from .launch import launched, note_cause, prepare_launch
from .load import check_ranks, check_workers, device_list, layer_count, load_config, resolve_model
from .paths import user_path
from .plugins import load_plugin
from .schema import LARGEST_SEED, TASKS, Config, Method, Schedule, Task
from .trackers import check_tracker

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS: dict[Task, str] = {"vision": "cvmain.py", "text": "nlpmain.py"}
CONFIGS: dict[Task, str] = {"vision": "cvconfig.json", "text": "nlpconfig.json"}
EXAMPLES: dict[Task, str] = {
    "vision": """examples:
  python cvmain.py digits vgg                      AL and BP on data that needs no download
  python cvmain.py tinyImageNet resnet -r 3        three turns, each with a seed of its own
  python cvmain.py cifar10 vggal                   AL alone, the same as: cifar10 vgg --method al
  python cvmain.py cifar10 vgg --set width=0.25 --set epochs=5 --limit-train 5000
  python cvmain.py cifar10 vgg --set al_gpu_list='["cuda:0","cuda:0","cuda:1","cuda:1"]'
""",
    "text": """examples:
  python nlpmain.py agnews lstm                    AL and BP; the data is downloaded once
  python nlpmain.py imdb transformer -r 5          five turns, each with a seed of its own
  python nlpmain.py agnews lstmal                  AL alone, the same as: agnews lstm --method al
  python nlpmain.py agnews lstm --set embedding_dim=50 --set epochs=5 --limit-train 5000
  python nlpmain.py dbpedia lstm --set al_gpu_list='["cuda:0","cuda:0","cuda:1","cuda:1"]'
""",
}
EXIT_CODES = """exit codes:
  0 done; 2 a mistake, or output that could not be written; 141 done, but the reader of the output had left;
  128 and the number of a signal: interrupted, 130 by Ctrl-C, 143 by SIGTERM, 129 by a closed terminal
"""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What a command line asks for. None stands for "as the config says"."""

    task: Task
    dataset: str
    """The data set's name as it is shown and used in file names."""
    model: str
    methods: tuple[Method, ...]
    """In the order in which they run."""
    turns: int
    config: Path
    overrides: tuple[str, ...]
    """The `key=value` texts of `--set`, in order."""
    data_root: Path
    limit_train: int | None
    seed: int | None
    schedule: Schedule | None
    workers: int | None
    out: str | None
    trace: Path | None
    """Where the timeline of AL's first turn goes."""
    trackers: tuple[str, ...]
    """The names of `--tracker`, in order, each once."""
    tensorboard: Path | None
    resume: bool
    bp_parallel: BPParallel | None
    """How BP uses the processes of the command; None: as `bp_parallel` has it where nothing is said."""
    plan: bool
    """Whether to say what would be done, instead of doing it."""
    plugins: tuple[str, ...]
    """The files and modules of `--plugin`, in order."""


@dataclass(frozen=True)
class Command:
    """A command line and the configuration that goes with it, both checked."""

    arguments: Arguments
    config: Config


def read_command(task: Task, argv: Sequence[str] | None = None) -> Command:
    """Return the command of a command line, by default this process's. Raises `UsageError`."""
    arguments = parse(task, sys.argv[1:] if argv is None else argv)
    try:
        os.getcwd()  # without one, libraries fail with words of their own
    except OSError as error:
        raise UsageError(f"the current folder is gone ({reason(error)}); change into another one") from None
    return Command(arguments, configure(arguments))


def command_or_exit(task: Task) -> Command:
    """Return the command of this process, or print what is wrong with it and leave with exit code 2."""
    prepare_launch()
    try:
        return read_command(task)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        note_cause(str(error))
        with suppress(UsageError):  # of the variables themselves
            if (launch := launched()).world > 1:
                from ..runs.ranks import share_mistake  # with torch

                share_mistake(launch, str(error))
        sys.exit(2)


def parse(task: Task, argv: Sequence[str]) -> Arguments:
    """Return what the command line (without the program's name) asks for, after importing its plug-ins.

    `--help`, `--list` and `--print-config` print to stdout and leave with `SystemExit(0)`. Raises `UsageError`.
    """
    for plugin in _plugins(task, argv):
        load_plugin(plugin)
    given = build_parser(task).parse_intermixed_args(list(argv))
    if given.list:
        _leave(_listing(task))
    dataset = _dataset(task, given.dataset) if given.dataset is not None else ""
    model, methods = _model(task, given.model, given.method) if given.model is not None else ("", ())
    arguments = Arguments(
        task=task,
        dataset=dataset,
        model=model,
        methods=methods,
        turns=given.repeat,
        config=given.config,
        overrides=tuple(given.set),
        data_root=given.data_root,
        limit_train=given.limit_train,
        seed=given.seed,
        schedule=given.schedule,
        workers=given.workers,
        out=given.out,
        trace=given.trace,
        trackers=tuple(dict.fromkeys(given.tracker)),
        tensorboard=given.tensorboard,
        resume=given.resume,
        bp_parallel=given.bp_parallel,
        plan=given.plan,
        plugins=tuple(given.plugin),
    )
    for tracker in arguments.trackers:
        check_tracker(tracker)
    if given.trace is not None and methods == ("bp",):
        raise UsageError("--trace shows what AL's workers do, and --method bp has none: leave one of them out")
    if given.print_config:
        _leave(json.dumps(configure(arguments).model_dump(mode="json"), indent=4))
    if not model:
        example = "digits vgg" if task == "vision" else "agnews lstm"
        missing = "a model" if given.dataset is not None else "a data set and a model"
        raise UsageError(f"give {missing}, for example: python {SCRIPTS[task]} {example}; --list shows them all")
    return arguments


def configure(arguments: Arguments) -> Config:
    """Return the config that the arguments name, with `--set` and then the flags laid over it.

    Raises `ConfigError`, also where a device list or a setting does not fit the model.
    """
    flags = {
        "seed": arguments.seed,
        "schedule": arguments.schedule,
        "workers": arguments.workers,
        "outputpath": arguments.out,
    }
    overrides = [f"{key}={json.dumps(value)}" for key, value in flags.items() if value is not None]
    config = load_config(arguments.task, arguments.config, [*arguments.overrides, *overrides])
    if arguments.model:
        resolve_model(config, arguments.model)
        way = bp_parallel(arguments.bp_parallel, arguments.methods, launched())
    for method in arguments.methods:
        devices = device_list(config, arguments.model, method)
        if method == "bp":
            check_bp_ranks(way, config, devices, layer_count(arguments.model, method, config), launched())
        else:
            check_workers(config, arguments.model, method)
            check_ranks(config, arguments.model, method, launched())
    return config


class _Parser(argparse.ArgumentParser):
    #: The task whose keys `--help` shows.
    task: Task

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (python {self.prog} --help shows what is possible)")

    def format_help(self) -> str:
        from .reference import help_text  # a command too, which Python warns of when the package has imported it

        return f"{super().format_help()}\n{help_text(self.task)}"


def _plugins(task: Task, argv: Sequence[str]) -> list[str]:
    """Return the plug-ins on the command line, which decide how the rest of it is read."""
    parser = _Parser(prog=SCRIPTS[task], allow_abbrev=False, add_help=False)
    parser.add_argument("--plugin", action="append", default=[], type=_text)
    found: list[str] = parser.parse_known_args(list(argv))[0].plugin
    return found


def build_parser(task: Task) -> argparse.ArgumentParser:
    """Return the parser of a task's entry point."""
    parser = _Parser(
        prog=SCRIPTS[task],
        description="Train a model with Associated Learning (AL) and with back-propagation (BP), and compare them.",
        epilog=f"{EXAMPLES[task]}\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    parser.task = task
    models = registry.model_names(task)
    methods = registry.method_names()
    run = parser.add_argument_group("what to run")
    run.add_argument("dataset", nargs="?", help="name of a data set, in any case; see --list")
    run.add_argument("model", nargs="?", help=f"{' or '.join(models)}; {models[0]}al means {models[0]} --method al")
    run.add_argument(
        "--method",
        type=_methods,
        metavar="METHOD",
        help=f"{', '.join(methods)}, several with commas between, or both: al,bp (default: both, compared)",
    )
    run.add_argument(
        "-r",
        "--repeat",
        type=_number(1),
        default=1,
        metavar="N",
        help="turns; turn t has the seed seed + t (default: 1)",
    )
    run.add_argument("--seed", type=_number(0), metavar="N", help="default: the config's seed")
    run.add_argument(
        "--schedule", choices=get_args(Schedule), help="how AL's layers share the work (default: the config's)"
    )
    run.add_argument(
        "--workers",
        type=_number(1, 4096),
        metavar="N",
        help="let N CPU workers share AL's layers (default: the config's)",
    )
    run.add_argument(
        "--bp-parallel",
        choices=get_args(BPParallel),
        help="under torchrun: how BP uses the processes; none: process 0 trains alone (default: ddp)",
    )
    config = parser.add_argument_group("configuration")
    config.add_argument(
        "--config",
        type=_path,
        default=ROOT / CONFIGS[task],
        metavar="FILE",
        help=f"hyper-parameters and device lists (default: {CONFIGS[task]} beside {SCRIPTS[task]})",
    )
    config.add_argument(
        "--set",
        action="append",
        default=[],
        type=_utf8,
        metavar="KEY=VALUE",
        help="set any key of the config; may be repeated",
    )
    config.add_argument(
        "--plugin",
        action="append",
        default=[],
        type=_text,
        metavar="FILE_OR_MODULE",
        help="import a Python file or module that registers models, data sets or objectives; may be repeated",
    )
    data = parser.add_argument_group("data and results")
    data.add_argument(
        "--data-root",
        type=_path,
        default=Path("datasets"),
        metavar="DIR",
        help="where the data is or goes (default: ./datasets)",
    )
    data.add_argument("--limit-train", type=_number(2), metavar="N", help="use N training samples only")
    data.add_argument(
        "--out",
        type=_recorded,
        metavar="DIR",
        help="folder of the results (default: the config's outputpath)",
    )
    data.add_argument(
        "--resume",
        action="store_true",
        help="continue the last run of this command where it was interrupted; start it where there is none",
    )
    watched = parser.add_argument_group("what to watch")
    watched.add_argument(
        "--trace",
        type=_path,
        metavar="FILE",
        help="write a timeline of AL's first turn: Chrome trace, and a PNG beside it",
    )
    watched.add_argument(
        "--tracker",
        action="append",
        default=[],
        type=_text,
        metavar="NAME",
        help="report every epoch to tensorboard, or to a module with wandb's init, log and finish; may be repeated",
    )
    watched.add_argument(
        "--tensorboard",
        type=lambda text: user_path(_recorded(text)),
        metavar="DIR",
        help="as --tracker tensorboard, with the scalars in DIR",
    )
    shown = parser.add_argument_group("show and exit")
    shown.add_argument(
        *("--plan", "--dry-run"),
        action="store_true",
        help="layer costs, ceilings, memory, and the seconds per epoch to expect; trains nothing, writes no results",
    )
    shown.add_argument("--list", action="store_true", help="the data sets, models and methods")
    shown.add_argument("--print-config", action="store_true", help="the config as it would be used, in JSON")
    shown.add_argument("-h", "--help", action="help", help="this text")
    return parser


def _leave(text: str) -> NoReturn:
    print(text)
    sys.exit(0)


def _number(least: int, most: int = LARGEST_SEED) -> Callable[[str], int]:
    def convert(text: str) -> int:
        value = (int(text) if len(text) < 20 else most + 1) if text.isdecimal() else -1
        if not least <= value <= most:
            limits = f"from {least} to {most}" if value > most else f"of at least {least}"
            raise argparse.ArgumentTypeError(f'got "{text}"; expected a whole number {limits}')
        return value

    return convert


def _text(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("got an empty name; expected a path")
    return text


def _utf8(text: str) -> str:
    """Return a text that UTF-8 can hold: arguments are bytes, and need not be text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f'got "{text}", which is not UTF-8; write it in UTF-8') from None
    return text


def _recorded(text: str) -> str:
    """Return a name that others write down as text: the results' JSON, TensorBoard."""
    return _utf8(_text(text))


def _path(text: str) -> Path:
    return user_path(_text(text))


def _methods(text: str) -> tuple[Method, ...]:
    """Return the methods that --method names, in that order."""
    known = registry.method_names()
    if text.lower() == "both":
        return ("al", "bp")
    methods = tuple(part.strip().lower() for part in text.split(","))
    for method in methods:
        if method not in known:
            close = closest(method, known)
            hint = f'; did you mean "{close}"?' if close else ""
            expected = f"{', '.join(known)}, several with commas between, or both"
            raise argparse.ArgumentTypeError(f'got "{text}"; expected {expected}{hint}')
    if len(set(methods)) < len(methods):
        raise argparse.ArgumentTypeError(f'got "{text}"; name every method once')
    return methods


def _model(task: Task, name: str, methods: tuple[Method, ...] | None) -> tuple[str, tuple[Method, ...]]:
    """Return the model and the methods that a name, perhaps one of the earlier code's (`vggal`), and --method mean."""
    models = registry.model_names(task)
    lowered = name.lower()
    model = lowered if lowered in models else lowered.removesuffix("al")
    if model not in models:
        for other in TASKS:
            if model in registry.model_names(other):
                raise UsageError(
                    f'"{name}" is a {other} model: run {SCRIPTS[other]} instead, or give one of {", ".join(models)}'
                )
        close = closest(name, models)
        hint = f'; did you mean "{close}"?' if close else ""
        raise UsageError(f'"{name}" is not a model: the right ones are {", ".join(models)}{hint}')
    if model != lowered:
        if methods not in (None, ("al",)):
            given = "both" if methods == ("al", "bp") else ",".join(methods or ())
            raise UsageError(f'"{name}" means {model} with --method al: give {model}, or leave --method {given} out')
        return model, ("al",)
    return model, methods or ("al", "bp")


def _dataset(task: Task, name: str) -> str:
    if name.lower().removesuffix("al") in registry.model_names(task):
        raise UsageError(f'"{name}" is a model, and the data set comes first: python {SCRIPTS[task]} <dataset> {name}')
    try:
        return canonical(name, task)
    except DataError as error:
        raise UsageError(str(error)) from None


def _listing(task: Task) -> str:
    datasets = VISION if task == "vision" else TEXT
    column = max(map(len, datasets)) + 2
    lines = ["data sets:", *(f"  {name:<{column}}{about}" for name, about in datasets.items())]
    lines += ["models:", *(f"  {model}" for model in registry.model_names(task))]
    return "\n".join([*lines, "methods:", *(f"  {method}" for method in registry.method_names())])
