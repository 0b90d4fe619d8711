"""`python -m training.predict RESULT_DIR INPUT ..`: predict the class of pictures or of lines of text."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import TYPE_CHECKING, NoReturn

from data.errors import DataError
from data.storage.streams import exit_code

from ..config.load import method_title
from ..config.plugins import load_plugin
from ..errors import UsageError
from .inputs import Input, lines, pictures

if TYPE_CHECKING:
    from .choose import Kept
    from .exits import Exit
    from .network import Network

#: Characters of a text that name it in the output.
SHOWN = 60


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} ({self.prog} --help shows what is possible)")


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line for every input, and return the exit code: 2 for a mistake, which is one line on stderr."""
    try:
        _predict(_parse(argv))
    except (UsageError, DataError) as error:
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m training.predict",
        description="Predict the class of pictures or texts with the weights of the best epoch that a run has kept.",
        allow_abbrev=False,
    )
    parser.add_argument("folder", metavar="RESULT_DIR", help="where a command left its results (--out)")
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="pictures, or folders of them; or files of text, each line an input, and - for the standard input",
    )
    parser.add_argument("--text", action="append", default=[], help="a text itself; may be given several times")
    parser.add_argument("--dataset", help="of several results in the folder, which one")
    parser.add_argument("--model", help="of several results in the folder, which one")
    parser.add_argument("--method", help="of several results in the folder, which one")
    parser.add_argument("--turn", type=_count, metavar="N", help="default: the turn that is best on validation")
    parser.add_argument("--depth", type=_count, metavar="K", help="predict with the first K layers (default: all)")
    parser.add_argument(
        "--exit",
        type=_share,
        metavar="SHARE",
        help="let each input leave at the first layer that is sure of it, with at most this share of the work of all "
        "layers on average (by validation), such as 0.5",
    )
    parser.add_argument("--top", type=_count, default=1, metavar="N", help="how many classes are shown (default: 1)")
    parser.add_argument("--json", action="store_true", help="print a JSON object for every input")
    parser.add_argument("--device", help='such as "cpu" or "cuda:1" (default: the first GPU, or else the CPU)')
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="FILE", help="what the model or the method comes from"
    )
    parser.add_argument(
        "--network",
        metavar="FILE:FUNCTION",
        help="where a network of your own is now (default: where it was when the run began)",
    )
    return parser.parse_intermixed_args(argv)


def _count(text: str) -> int:
    if text.isascii() and text.isdecimal() and int(text):
        return int(text)
    raise argparse.ArgumentTypeError(f"got {text!r}; expected a whole number of at least 1")


def _share(text: str) -> float:
    with suppress(ValueError):
        if 0 < (share := float(text)) <= 1:
            return share
    raise argparse.ArgumentTypeError(f"got {text!r}; expected a share of the work of all layers, above 0 and up to 1")


def _predict(arguments: argparse.Namespace) -> None:
    for name in arguments.plugin:
        load_plugin(name)
    from .choose import choose  # pandas, which --help need not wait for
    from .exits import choose_exit
    from .own_network import find_network

    kept = choose(
        arguments.folder,
        dataset=arguments.dataset,
        model=arguments.model,
        method=arguments.method,
        turn=arguments.turn,
    )
    if arguments.exit is not None and arguments.depth is not None:
        raise UsageError("--exit and --depth: inputs leave at different depths, or all at one; give one of the two")
    leaving = None if arguments.exit is None else choose_exit(kept, arguments.exit)
    find_network(kept.run, arguments.network)
    if not arguments.inputs and not arguments.text:
        what = (
            "files, - for the standard input, or --text" if kept.run.task == "text" else "pictures, or folders of them"
        )
        raise UsageError(f"there is nothing to predict: give {what}")
    read = _texts if kept.run.task == "text" else _pictures
    waiting = read(arguments)
    from .network import Network  # torch, which takes seconds to import: mistakes have been told

    network = Network(kept, depth=arguments.depth, leaving=leaving, device=arguments.device)
    print("\n".join([*_headline(kept, leaving), *(f"note: {note}" for note in network.notes)]), file=sys.stderr)
    sys.stderr.flush()
    while batch := list(islice(waiting, network.batch_size)):
        _print(network, batch, arguments)


def _pictures(arguments: argparse.Namespace) -> Iterator[Input]:
    if arguments.text:
        raise UsageError("--text: the network takes pictures; name files or folders")
    return iter(pictures(arguments.inputs))


def _texts(arguments: argparse.Namespace) -> Iterator[Input]:
    given = [Input(text if len(text) <= SHOWN else f"{text[:SHOWN]}..", text) for text in arguments.text]
    return chain(given, lines(arguments.inputs))


def _headline(kept: Kept, leaving: Exit | None) -> list[str]:
    turn = kept.turn
    lines = [
        f"{kept.run.dataset} {kept.run.model}, {method_title(kept.run.method)}: turn {turn.turn}, epoch {turn.epoch}; "
        f"validation {turn.val_acc:.2f} %, test {turn.test_acc[-1]:.2f} %"
    ]
    if leaving is not None:
        test = leaving.chosen
        lines.append(
            f"early exit within {100 * leaving.budget:g} % of the work on validation: test {test.accuracy:.2f} % with "
            f"{100 * test.work:.1f} % of the work"
        )
    if kept.reported != turn.epoch:
        lines.append(f"note: the results report epoch {kept.reported} of this turn; its weights were not kept")
    return lines


def _print(network: Network, batch: Sequence[Input], arguments: argparse.Namespace) -> None:
    from .network import top

    found = network.predict([one.content for one in batch])
    for one, row, depth in zip(batch, found.probabilities.tolist(), found.depth.tolist(), strict=True):
        ranked = top(row, network.run.classes, arguments.top)
        if arguments.json:
            classes = [{"class": label, "probability": round(share, 6)} for label, share in ranked]
            print(json.dumps({"input": one.name, **classes[0], "depth": depth, "top": classes}))
        else:
            left = f"; depth {depth} of {network.depths}" if arguments.exit is not None else ""
            print(f"{one.name}: {', '.join(f'{label} ({100 * share:.1f} %)' for label, share in ranked)}{left}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(exit_code(main))
