"""How a command line is read: its options, their help, and what each may be.

Nothing here needs torch: help and mistakes are answered at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, get_args

from models import registry

from ..errors import UsageError, closest
from .bp_parallel import BPParallel
from .paths import user_path
from .schema import CONFIGS, LARGEST_SEED, Method, Schedule, Task

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS: dict[Task, str] = {"vision": "cvmain.py", "text": "nlpmain.py"}
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


class _Parser(argparse.ArgumentParser):
    #: The task whose keys `--help` shows.
    task: Task

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (python {self.prog} --help shows what is possible)")

    def format_help(self) -> str:
        from .reference import help_text  # a command too, which Python warns of when the package has imported it

        return f"{super().format_help()}\n{help_text(self.task)}"


def plugins_in(task: Task, argv: Sequence[str]) -> list[str]:
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
    run.add_argument(
        "model",
        nargs="?",
        help=f"{' or '.join(models)}; {models[0]}al means {models[0]} --method al; or a function that returns the "
        "blocks of a network: package.module:function or path/to/file.py:function",
    )
    run.add_argument(
        "--method",
        type=_methods,
        metavar="METHOD",
        help=f"{', '.join(methods)}, several with commas between, both: al,bp, or all (default: both, compared)",
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
        help="write a timeline of the first turn of AL or another local method: Chrome trace, and a PNG beside it",
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
    words = dict(zip(registry.WORDS, (["al", "bp"], known), strict=True))
    parts = [part.strip().lower() for part in text.split(",")]
    methods = tuple(method for part in parts for method in words.get(part, [part]))
    for method in methods:
        if method not in known:
            close = closest(method, known)
            hint = f'; did you mean "{close}"?' if close else ""
            expected = f"{', '.join(known)}, several with commas between, both, or all"
            raise argparse.ArgumentTypeError(f'got "{text}"; expected {expected}{hint}')
    if len(set(methods)) < len(methods):
        raise argparse.ArgumentTypeError(f'got "{text}"; name every method once')
    return methods
