"""What slow links cost: AL, DDP and 1F1B over two hosts of this machine, each with the cut that suits the link."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ALPackage.placement.over_ranks import over_ranks
from ALPackage.ranks.messages import WIRES
from benchmarks.launch import WorkerError
from benchmarks.pipeline.contest import FLOWING, count_batches, figures, jobs_of, launch, measure_layers, two_cores
from benchmarks.pipeline.search import RANKS, search_pipeline
from benchmarks.pipeline.workload import MODELS, batch_size
from benchmarks.record import Record, say
from data.storage.streams import exit_code

from .cable import Cable, NoCableError
from .links_table import CONTESTANTS, links

HERE = Path(__file__).resolve().parent
#: By name: what may pass in either direction.
RATES: dict[str, str | None] = {"unlimited": None, "1 Gbit/s": "1gbit", "100 Mbit/s": "100mbit"}
#: By name of AL's ways: how it sends.
AL = {"al-ranks": "fp32", "al-compressed": "compressed", "al-bf16": "bf16"}
#: Seconds for a measurement, beside what the layers' costs say: a batch may have to wait for the link.
PATIENCE = 600.0


def main(argv: Sequence[str] | None = None) -> int:
    """Read the options, measure, and print the tables of all models that are in the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distributed.links", description=__doc__)
    parser.add_argument("model", choices=MODELS, help="the others' figures in the results stay as they are")
    parser.add_argument("--repeats", type=int, default=3, help="interleaved repetitions (default 3)")
    parser.add_argument("--seconds", type=float, default=6.0, help="of a measurement of BP on one core (default 6)")
    parser.add_argument("--out", type=Path, default=HERE / "links.json")
    parser.add_argument("--quick", action="store_true", help="a smoke test: a tiny model, few batches, two speeds")
    words = sys.argv[1:] if argv is None else list(argv)
    given = parser.parse_args(words)
    cores = two_cores(None)
    size, repeats = ("quick", 1) if given.quick else ("half", given.repeats)
    rates = [rate for rate in RATES if not given.quick or rate != "1 Gbit/s"]
    settings = {"size": size, "repeats": repeats, "seconds": given.seconds, "cores": cores, "rates": rates}
    # Without this a SIGTERM would leave the hosts, and what runs in them, behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with Cable() as cable:
            record = Record(given.out, "benchmarks.distributed.links", words, settings, part=given.model)
            if "prepared" not in record.results:
                record.results["prepared"] = prepare(given.model, size, cores, given.seconds, rates, cable)
                record.keep()

            def one(repeat: int, rate: str, contestant: str) -> dict[str, Any]:
                return measure(given.model, size, contestant, record.results["prepared"], rate, cores, cable)

            record.take(
                [
                    {"repeat": repeat, "rate": rate, "contestant": contestant}
                    for repeat in range(repeats)
                    for contestant in CONTESTANTS
                    for rate in rates
                ],
                one,
            )
    except NoCableError as error:
        print(f"error: links: network namespaces are not permitted here: {error}", file=sys.stderr)
        return 2
    print(links(record.finish()))
    return 0


def prepare(
    model: str, size: str, cores: Sequence[int], seconds: float, rates: Sequence[str], cable: Cable
) -> dict[str, Any]:
    """Measure the layers and every speed of the link, and choose everyone's cut for it.

    AL gets the cut that the program itself would choose; of 1F1B all cuts are tried.
    """
    say(f"{model}: layer costs")
    costs, workload = measure_layers(model, size, cores)
    batches = count_batches(costs, size, seconds)
    found: dict[str, Any] = {"costs": costs, "workload": workload, "batches": batches, "links": {}}
    for rate in rates:
        cable.limit(RATES[rate])

        def run(jobs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
            return launch(jobs, timeout=PATIENCE, hosts=cable.hosts, model=model, size=size)

        speed = run([{"do": "link", "cores": [core]} for core in cores])[0]["bytes_per_s"]
        say(f"{rate}: {speed / 1e6:.1f} MB/s")
        al, handed_on = list(costs["al"].values()), [layer["sent_bytes"] for layer in workload["al"]]
        micro = (2,) if size == "quick" else (2, 4, 8)
        found["links"][rate] = {
            "bytes_per_s": speed,
            "choices": {
                **{
                    name: {"ranks": over_ranks(al, [WIRES[wire] * one for one in handed_on], RANKS, speed=speed)}
                    for name, wire in AL.items()
                },
                "1f1b": search_pipeline("1f1b", len(costs["bp"]), micro, run, cores),
            },
        }
    return found


def measure(
    model: str,
    size: str,
    contestant: str,
    prepared: Mapping[str, Any],
    rate: str,
    cores: Sequence[int],
    cable: Cable,
) -> dict[str, Any]:
    """Measure one contestant once over a link of that speed. Raises WorkerError where it cannot run."""
    choice = prepared["links"][rate]["choices"].get(contestant, {})
    if "failed" in choice:
        raise WorkerError(choice["failed"])
    cable.limit(RATES[rate])
    if "ranks" in choice:
        how = {"do": "al-ranks", "ranks_of_layers": choice["ranks"], "wire": AL[contestant]}
        jobs = [{**how, "cores": [core]} for core in cores]
    else:
        jobs = jobs_of(contestant, choice, cores)
    batches = prepared["batches"]["flowing" if contestant in (*FLOWING, *AL) else "joined"]
    done = launch(jobs, timeout=PATIENCE, hosts=cable.hosts, model=model, size=size, batches=batches)
    on_wire = sum(process.get("on_wire", 0) for process in done)
    return {**figures(done, batches, batch_size(model, size)), "on_wire": on_wire}


if __name__ == "__main__":
    sys.exit(exit_code(main))
