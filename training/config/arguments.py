"""The command line of the two entry points: what to run, on which data, where the results go.

Whatever is wrong with it becomes a `UsageError` of one line, so that every mistake of a user, here or in the
configuration, looks the same. Nothing here needs torch: help and mistakes are answered at once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from data import TEXT, VISION, DataError, canonical
from models import registry

from ..errors import UsageError, closest, reason
from . import own_network
from .bp_parallel import BPParallel, bp_parallel, check_bp_ranks
from .launch import launched, note_cause, prepare_launch
from .load import (
    check_layers_of_growth,
    check_ranks,
    check_workers,
    device_list,
    layer_count,
    load_config,
    resolve_model,
)
from .parser import SCRIPTS, build_parser, plugins_in
from .plugins import load_plugin
from .schema import TASKS, Config, Method, Schedule, Task
from .trackers import check_tracker


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
    """Where the timeline of the first turn of AL, or of the first local method, goes."""
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
    for plugin in plugins_in(task, argv):
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
        check_layers_of_growth(config, arguments.model, arguments.methods)
    for method in arguments.methods:
        devices = device_list(config, arguments.model, method)
        if method == "bp":
            check_bp_ranks(way, config, devices, layer_count(arguments.model, method, config), launched())
        else:
            check_workers(config, arguments.model, method)
            check_ranks(config, arguments.model, method, launched())
    return config


def _leave(text: str) -> NoReturn:
    print(text)
    sys.exit(0)


def _model(task: Task, name: str, methods: tuple[Method, ...] | None) -> tuple[str, tuple[Method, ...]]:
    """Return the model and the methods that a name, perhaps one of the earlier code's (`vggal`), and --method mean."""
    if own_network.names_function(name):
        return own_network.register(name, task), methods or ("al", "bp")
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
        hint = f'did you mean "{close}"?' if close else "give module:function for a network of your own"
        raise UsageError(f'"{name}" is not a model: the right ones are {", ".join(models)}; {hint}')
    if model != lowered:
        if methods not in (None, ("al",)):
            given = "both" if methods == ("al", "bp") else ",".join(methods or ())
            raise UsageError(f'"{name}" means {model} with --method al: give {model}, or leave --method {given} out')
        return model, ("al",)
    return model, methods or ("al", "bp")


def _dataset(task: Task, name: str) -> str:
    if name.lower().removesuffix("al") in registry.model_names(task):
        raise UsageError(f'"{name}" is a model, and the data set comes first: python {SCRIPTS[task]} <dataset> {name}')
    if ":" in name:
        raise UsageError(
            f'"{name}" is a network, and the data set comes first: python {SCRIPTS[task]} <dataset> {name}'
        )
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
