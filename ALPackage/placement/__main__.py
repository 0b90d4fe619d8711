"""`python -m ALPackage.placement`: what D workers would gain, estimated from layer costs."""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from .cost import LayerCost
from .partition import partition
from .plan import most_of
from .scale_table import scale_table
from .simulate import simulate
from .workload import read_workload

#: The forward pass's share of a layer's time when only the total is given.
FORWARD = 1 / 3
CONCURRENT = ("continuous", "al-fm")


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table of numbers of workers and return the exit code: 2 for a mistake, which is reported in one line."""
    parser = argparse.ArgumentParser(
        prog="python -m ALPackage.placement",
        description="Estimate what D workers that share all layers, each with a core, would gain over one, under each "
        "schedule; and beside it, what the best cut into D groups of neighbors allows.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--costs",
        metavar="MS,MS,.. | FILE",
        help="ms per batch of each layer, such as 151,121,30,10 or conv_1=151,conv_2=121; or a JSON file that holds a "
        "plan, such as the results of a run",
    )
    parser.add_argument(
        *("--workers", "--devices"),
        type=int,
        nargs="+",
        metavar="D",
        help="default: 1 to the number of layers; with --workload 8 64 512",
    )
    parser.add_argument("--batches", type=int, default=500, help="batches of a run, for the fill (default: 500)")
    source.add_argument(
        "--workload",
        type=Path,
        metavar="FILE",
        help="simulate --devices that are connected by links, beside 1F1B, zero bubble and DDP: a JSON file as "
        "`ALPackage.placement.workload.workload_of` describes it",
    )
    parser.add_argument("--rows", type=int, help="of a batch, with --workload (default: those of the file)")
    parser.add_argument("--link-gbit", type=float, help="speed of a link in Gbit/s, with --workload (default: 10)")
    options = parser.parse_args(argv)
    try:
        if options.workload is not None:
            print(_scaled(options))
            return 0
        if options.rows is not None or options.link_gbit is not None:
            raise ValueError("--rows, --link-gbit: these go with --workload")
        costs = _costs(options.costs)
        if options.batches < 1 or any(count < 1 for count in options.workers or [1]):
            raise ValueError("--workers and --batches: expected whole numbers of at least 1")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(costs, options.workers or list(range(1, len(costs) + 1)), options.batches))
    return 0


def _scaled(options: argparse.Namespace) -> str:
    """Return the table of a workload. Raises ValueError with a message of one line."""
    workload = read_workload(options.workload)
    devices = options.workers or [8, 64, 512]
    rows = workload.rows if options.rows is None else options.rows
    speed = 10.0 if options.link_gbit is None else options.link_gbit
    if not (0 < speed < float("inf")) or rows < 1 or min(devices) < 1:
        raise ValueError("--link-gbit, --rows and --devices: expected numbers above 0")
    return scale_table(workload.with_rows(rows), devices, speed * 1e9 / 8)


def table(costs: Sequence[LayerCost], counts: Sequence[int], batches: int) -> str:
    """Return the table and a sentence of advice."""
    rows = [("workers", "ceiling", "continuous", "al-fm", "best cut", "the cut")]
    times = [cost.total for cost in costs]
    work, largest = sum(times) or 1.0, max(times) or 1.0
    alone = simulate("sequential", costs, 1, batches) or 1.0
    gains: list[float] = []
    for count in counts:
        # A layer works on one batch at a time: workers beyond the number of layers would find nothing to do.
        workers = min(count, len(costs))
        sizes = partition(times, workers)
        starts = [sum(sizes[:stage]) for stage in range(len(sizes))]
        stages = [costs[start : start + size] for start, size in zip(starts, sizes, strict=True)]
        busiest = max(sum(cost.total for cost in stage) for stage in stages) or 1.0
        gains.append(min(workers, work / largest))
        continuous, al_fm = (alone / (simulate(name, costs, workers, batches) or 1.0) for name in CONCURRENT)
        # al-fm has a thread for every layer, so its figure only holds with a core for each.
        shown = f"{al_fm:.2f}x" if workers == len(costs) else ""
        cut = " | ".join(" ".join(cost.name for cost in stage) for stage in stages)
        rows.append((str(count), f"{gains[-1]:.2f}x", f"{continuous:.2f}x", shown, f"{work / busiest:.2f}x", cut))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    best = max(range(len(counts)), key=lambda number: (round(gains[number], 4), -counts[number]))
    lines.append(
        f"{counts[best]} worker{'s' * (counts[best] > 1)} sharing all layers: {gains[best]:.2f}x, the most of these; "
        f"{most_of(costs)}"
    )
    return "\n".join(lines)


def _costs(text: str) -> list[LayerCost]:
    """Read costs from the command line or from a file. Raises ValueError with a message of one line."""
    path = Path(text)
    if path.suffix == ".json" or os.path.isfile(text):  # False for a list that is too long for a name
        try:
            layers = _find(json.loads(path.read_text(encoding="utf-8")))
            if not layers:
                raise ValueError("it holds no plan with layers")
            return [
                LayerCost(
                    str(layer["name"]), _time(layer["forward_ms"]), _time(layer["backward_ms"]), int(layer["bytes"])
                )
                for layer in layers
            ]
        except (OSError, ValueError, LookupError, TypeError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else getattr(error, "strerror", None) or error
            raise ValueError(f"--costs: {path}: {reason}") from None
    costs = []
    for number, item in enumerate(text.split(","), start=1):
        name, equals, value = item.rpartition("=")
        try:
            seconds = _time(value)
        except ValueError:
            raise ValueError(f"--costs: got {item!r}; expected ms per layer, such as 151,121,30,10") from None
        layer = name.strip() if equals else f"layer_{number}"
        costs.append(LayerCost(layer, seconds * FORWARD, seconds * (1 - FORWARD)))
    return costs


def _time(value: Any) -> float:
    """Return ms as s."""
    seconds = float(value) / 1e3
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"got {value}; expected a finite number of ms")
    return seconds


def _find(value: Any) -> list[dict[str, Any]]:
    """Return the layers of the first plan inside `value`."""
    if isinstance(value, dict):
        layers = value.get("layers")
        if isinstance(layers, list) and layers and all(isinstance(layer, dict) for layer in layers):
            return layers
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        if layers := _find(item):
            return layers
    return []


def exit_code() -> int:
    """Run `main` as a process and return its exit code, whatever the standard streams are.

    Where the table cannot be written: 141, as a shell reports it, if the reader of a pipe has left; 2 otherwise.
    """
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main()
        except SystemExit as end:  # argparse's
            code = int(end.code or 0)
    lost = _write(sys.stdout, out.getvalue())
    if lost is not None and code == 0:
        code = 141 if lost.errno == errno.EPIPE else 2
        if code == 2:
            print(f"error: the standard output cannot be written ({lost.strerror})", file=err)
    _write(sys.stderr, err.getvalue())  # where that fails, nobody can be told
    return code


def _write(stream: TextIO | None, text: str) -> OSError | None:
    """Write the text to where a standard stream goes, and return what went wrong. Python keeps nothing to flush."""
    if stream is None:
        return OSError(errno.EBADF, "it is closed") if text else None
    try:
        descriptor = stream.fileno()
    except io.UnsupportedOperation:  # a notebook's, or a test's
        stream.write(text)
        return None
    try:
        with open(descriptor, "w", encoding=stream.encoding, errors="backslashreplace", closefd=False) as file:
            file.write(text)
    except OSError as error:
        return error
    return None


if __name__ == "__main__":
    sys.exit(exit_code())
