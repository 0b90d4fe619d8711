"""Simulate 8, 64 and 512 devices from what was measured, and put the simulation beside the measured 2 to 4 processes.

It measures nothing: it reads the results of the other benchmarks of this folder.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from ALPackage.placement.rivals import ddp, one_f_one_b, zero_bubble
from ALPackage.placement.scale import al_seconds
from ALPackage.placement.scale_table import scale_rows
from ALPackage.placement.workload import Load, Workload, workload_of, written
from benchmarks.pipeline.search import RANKS, owners
from benchmarks.pipeline.table import speeds
from benchmarks.record import Record
from data.storage.streams import exit_code

from .simulation_table import simulation

HERE = Path(__file__).resolve().parent
DEVICES = (8, 64, 512)
#: The named workload: the benchmark's Transformer with more encoder layers, and a batch for many devices.
ENCODERS, ROWS = 48, 4096
#: Bytes per second of a link that nothing limits, where none was measured.
LOOPBACK = 1e9


def main(argv: Sequence[str] | None = None) -> int:
    """Read the results, write the workload and the simulation, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distributed.simulation", description=__doc__)
    parser.add_argument("--measured", type=Path, default=HERE, help="the folder with the other benchmarks' results")
    parser.add_argument("--out", type=Path, default=HERE / "simulation.json")
    words = sys.argv[1:] if argv is None else list(argv)
    given = parser.parse_args(words)
    measured = {name: _read(given.measured / f"{name}.json") for name in ("results", "links", "sleepers")}
    transformer = measured["results"].get("transformer", {}).get("prepared", {}).get("workload")
    if transformer is None:
        needed = "python -m benchmarks.distributed transformer"
        print(
            f"error: {given.measured / 'results.json'}: no costs of the Transformer; first `{needed}`", file=sys.stderr
        )
        return 2
    workload = many_encoders(workload_of(transformer), ENCODERS)
    file = given.out.with_name(f"transformer{ENCODERS}.json")
    file.write_text(json.dumps(written(workload), indent=1) + "\n", encoding="utf-8")
    record = Record(given.out, "benchmarks.distributed.simulation", words, {"rows": ROWS, "devices": DEVICES})
    links = {
        rate: link["bytes_per_s"]
        for figures in measured["links"].values()
        for rate, link in figures["prepared"]["links"].items()
    }
    record.results["scale"] = [
        {"rate": rate, "bytes_per_s": speed, "rows": scale_rows(workload.with_rows(ROWS), DEVICES, speed)}
        for rate, speed in (links or {"loopback, not measured": LOOPBACK}).items()
    ]
    free = links.get("unlimited", LOOPBACK)
    record.results["checks"] = [
        *of_results(measured["results"], free),
        *of_links(measured["links"]),
        *of_sleepers(measured["sleepers"]),
    ]
    print(simulation(record.finish()))
    return 0


def many_encoders(workload: Workload, count: int) -> Workload:
    """Return a Transformer with `count` encoder layers instead of those that were measured: like their median."""

    def repeated(loads: Sequence[Load]) -> tuple[Load, ...]:
        encoders = [one for one in loads if one.name.startswith("encoder")]
        # The last of AL's layers hands on nothing; one with another behind it does.
        middle = Load(
            "encoder",
            *(median(getattr(one, part) for one in encoders) for part in ("forward", "backward", "update")),
            max(one.sent for one in encoders),
            median(one.weights for one in encoders),
        )
        found: list[Load] = []
        for one in loads:
            if one is encoders[0]:
                found += [replace(middle, name=f"encoder_{number}") for number in range(1, count + 1)]
            elif one not in encoders:
                found.append(one)
        found[-1] = replace(found[-1], sent=0)
        return tuple(found)

    return Workload(repeated(workload.al), repeated(workload.bp), workload.rows)


def of_results(results: Mapping[str, Any], speed: float) -> Iterator[dict[str, Any]]:
    """Yield the simulation of what was measured over two processes, beside it."""
    for model, figures in results.items():
        told = figures["prepared"].get("workload")
        if told is None:  # measured before costs were kept in parts
            continue
        choices = figures["prepared"]["choices"]
        for contestant in ("al-ranks", "1f1b", "zero-bubble", "ddp"):
            choice = choices.get("al-cut" if contestant == "al-ranks" else contestant, {})
            found = list(speeds(figures, contestant).values())
            if found:
                yield _check(f"{model}, 2 processes", contestant, found, workload_of(told), choice, speed)


def of_links(results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the simulation of what was measured over slowed links, beside it."""
    for model, figures in results.items():
        workload = workload_of(figures["prepared"]["workload"])
        for rate, link in figures["prepared"]["links"].items():
            for contestant in ("al-ranks", "1f1b", "ddp"):
                runs = {"runs": [run for run in figures["runs"] if run["rate"] == rate]}
                found = list(speeds(runs, contestant).values())
                choice = link["choices"].get(contestant, {})
                if "ranks" in choice:
                    choice = {"cut": [choice["ranks"].count(rank) for rank in range(RANKS)]}
                if found:
                    what = f"{model}, 2 hosts, {rate}"
                    yield _check(what, contestant, found, workload, choice, link["bytes_per_s"])


def of_sleepers(results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the simulation of layers that sleep, over up to four processes, beside what was measured."""
    good = [run for run in results.get("runs", []) if "failed" not in run and len(run["times"]) > 1]
    for case, milliseconds in dict.fromkeys((run["case"], run["milliseconds"]) for run in good):
        runs = [run for run in good if (run["case"], run["milliseconds"]) == (case, milliseconds)]
        loads = [Load(str(number), seconds, 0.0) for number, seconds in enumerate(runs[0]["times"])]
        ranks = runs[0]["ranks"]
        sizes = [ranks.count(rank) for rank in dict.fromkeys(ranks)]
        replicas = runs[0].get("replicas") or [1] * len(sizes)
        measured = median(results["settings"]["batches"] / run["seconds"] for run in runs)
        simulated = 1 / al_seconds(loads, sizes, replicas, LOOPBACK)
        what = f"sleeping layers, {case}, {milliseconds:g} ms (batches/s)"
        yield {"what": what, "who": "al-ranks", "measured": measured, "simulated": simulated}


def simulated_seconds(contestant: str, workload: Workload, choice: Mapping[str, Any], speed: float) -> float:
    """Return the seconds per batch that the simulation gives two processes with a setting that was measured."""
    if contestant == "al-ranks":
        return al_seconds(workload.al, choice["cut"], [1] * RANKS, speed)
    if contestant == "ddp":
        return ddp(workload.bp, RANKS, speed, workload.rows)
    if contestant == "1f1b":
        return one_f_one_b(workload.bp, choice["cut"], 1, choice["micro"], speed)
    loads, sizes = by_process(workload.bp, choice["cut"], owners(choice["schedule"], len(choice["cut"])))
    return zero_bubble(loads, sizes, 1, speed)


def by_process(loads: Sequence[Load], cut: Sequence[int], owner: Sequence[int]) -> tuple[list[Load], list[int]]:
    """Return the layers in the order of the processes that have them, and how many each has."""
    stages = [list(loads[sum(cut[:stage]) : sum(cut[: stage + 1])]) for stage in range(len(cut))]
    own = [
        [one for stage, rank in zip(stages, owner, strict=True) if rank == process for one in stage]
        for process in range(RANKS)
    ]
    return [one for layers in own for one in layers], [len(layers) for layers in own]


def _check(
    what: str,
    contestant: str,
    found: Sequence[float],
    workload: Workload,
    choice: Mapping[str, Any],
    speed: float,
) -> dict[str, Any]:
    simulated = workload.rows / simulated_seconds(contestant, workload, choice, speed)
    return {"what": what, "who": contestant, "measured": median(found), "simulated": simulated}


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


if __name__ == "__main__":
    sys.exit(exit_code(main))
