"""Compare what two checkouts compute, bit for bit (see README.md)."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from data.storage.streams import exit_code

from .checkout import PARTS, Checkout, CheckoutError, Found

HERE = Path(__file__).resolve().parents[2]
#: What every checkout of this project has.
MARKS = ("cvmain.py", "nlpmain.py", "models/__init__.py", "ALPackage/__init__.py")
#: Differences that are told on the line of a part; the JSON has them all.
TOLD = 4


@dataclass
class Comparison:
    """What a part has found: `old` and `new` by case and by what was looked at."""

    seconds: float = 0.0
    differences: list[str] = field(default_factory=list)
    old: dict[str, Found] = field(default_factory=dict)
    new: dict[str, Found] = field(default_factory=dict)

    def __str__(self) -> str:
        if self.differences:
            more = len(self.differences) - TOLD
            told = "; ".join(self.differences[:TOLD]) + (f"; and {more} more" if more > 0 else "")
            return f"differs: {told} ({self.seconds:.0f} s)"
        values = sum(len(values or ()) for found in self.old.values() for values in found.values())
        aside = ", ".join(uncompared(self.old, self.new))
        told = f"{len(self.old)} cases, {values:,} values" + (f"; not compared: {aside}" if aside else "")
        return f"equal ({told}; {self.seconds:.0f} s)"


def compare(part: str, old: Checkout, new: Checkout) -> Comparison:
    """Run a part in both checkouts, side by side, and return what it found."""
    begun = time.monotonic()
    result = Comparison()
    with ThreadPoolExecutor(2) as pool:
        runs = {name: pool.submit(one.part, part) for name, one in (("old", old), ("new", new))}
        for name, run in runs.items():
            try:
                setattr(result, name, run.result())
            except CheckoutError as error:
                result.differences.append(f"{name} failed: {error}")
    if not result.differences:
        result.differences += differences(result.old, result.new)
        for name, found in (("old", result.old), ("new", result.new)):
            result.differences += [f"{name}: {line}" for line in _unlike_the_whole(found)]
    result.seconds = round(time.monotonic() - begun, 1)
    return result


def differences(one: Mapping[str, Found], two: Mapping[str, Found]) -> Iterator[str]:
    """Yield where two findings differ: case, what was looked at, and how."""
    for case in dict.fromkeys([*one, *two]):
        if case not in one or case not in two:
            yield f"{case}: in one of them only"
            continue
        for what in dict.fromkeys([*one[case], *two[case]]):
            if what not in one[case] or what not in two[case]:
                yield f"{case}: {what}: in one of them only"
            elif told := _difference(one[case][what], two[case][what]):
                yield f"{case}: {what}: {told}"


def _difference(one: list[str] | None, two: list[str] | None) -> str:
    if one is None or two is None or one == two:
        return ""
    if sorted(one) == sorted(two):
        return "the same in another order"
    if len(one) != len(two):
        return f"{len(one)} and {len(two)} values"
    places = [place for place, (first, second) in enumerate(zip(one, two, strict=True)) if first != second]
    place = places[0]
    return f"{len(places)} of {len(one)} differ, number {place + 1} first: {one[place]} and {two[place]}"


def uncompared(one: Mapping[str, Found], two: Mapping[str, Found]) -> list[str]:
    """Return the names of what one of them could not look into."""
    found = [item for side in (one, two) for whats in side.values() for item in whats.items()]
    return list(dict.fromkeys(what for what, values in found if values is None))


def _unlike_the_whole(found: Mapping[str, Found]) -> Iterator[str]:
    """Yield where a run that was resumed differs from the one that nobody killed."""
    for case in found:
        if (resumed := found.get(f"resumed {case}")) is not None:
            ends = [{k: v for k, v in one.items() if k != "resumptions"} for one in (found[case], resumed)]
            yield from (f"whole and resumed: {line}" for line in differences({case: ends[0]}, {case: ends[1]}))


def main(argv: Sequence[str] | None = None) -> int:
    """Compare and print a line per part; 0 where all are equal, 1 where one differs, 2 for a mistake of the user."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.equality", description=__doc__)
    parser.add_argument("old", type=Path, metavar="OLD", help="folder of a checkout")
    parser.add_argument("new", type=Path, metavar="NEW", nargs="?", default=HERE, help="of another (default: this one)")
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}"
    )
    parser.add_argument("--python", default=sys.executable, metavar="EXE", help="interpreter (default: this one)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was found")
    given = parser.parse_args(argv)
    if mistake := _mistake(given):
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    python = str(
        Path(shutil.which(given.python) or "").absolute()
    )  # as it is: a link into an environment means that one
    paths = {"old": given.old.resolve(), "new": given.new.resolve()}
    results: dict[str, Comparison] = {}
    with tempfile.TemporaryDirectory(prefix="equality-") as root:
        sides = []
        for name, path in paths.items():
            (Path(root) / name).mkdir()
            sides.append(Checkout(path, python, Path(root) / name))
        for part in dict.fromkeys(given.only):
            results[part] = compare(part, *sides)
            print(f"{part}: {results[part]}", flush=True)
    if given.json is not None:
        told = {
            "command": " ".join(["python -m benchmarks.equality", *(sys.argv[1:] if argv is None else argv)]),
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "commits": {name: _commit(path) for name, path in paths.items()},
            "parts": {part: asdict(result) for part, result in results.items()},
        }
        given.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return 1 if any(result.differences for result in results.values()) else 0


def _mistake(given: argparse.Namespace) -> str:
    for path in (given.old, given.new):
        if missing := [mark for mark in MARKS if not (path / mark).is_file()]:
            return f"{path} is no checkout of this project: there is no {missing[0]}"
    if shutil.which(given.python) is None:
        return f"--python {given.python} cannot be run"
    if given.json is not None and (given.json.is_dir() or not given.json.absolute().parent.is_dir()):
        return f"--json {given.json} is a folder, or in a folder that is not there"
    return ""


def _commit(path: Path) -> str:
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=path, capture_output=True, text=True, check=False
    )
    return told.stdout.strip()


if __name__ == "__main__":
    sys.exit(exit_code(main))
