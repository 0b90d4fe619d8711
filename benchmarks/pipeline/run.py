"""Measure every contestant on every model, interleaved, each time in fresh processes, and keep every figure."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from .launch import ROOT, run_jobs
from .limits import BATCH, CONTESTANTS, MICRO, bound_seconds, candidates, choose_cut
from .table import markdown

__all__ = ["main"]

HERE = Path(__file__).resolve().parent
MODELS = ("vgg", "transformer")
WARMUP = 3
#: Keep freed memory instead of returning it to the system after every operation; the same for every contestant. As
#: glibc comes, tensors above 32 MB are mapped, and zeroed by the system page by page, each time anew.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**26),
    "MALLOC_ARENA_MAX": "1",
}
#: The contestants that are on no devices, so that no target is about them, are measured this often at most.
SHARED_REPEATS = 2
#: Layer costs are medians over this many batches; the search times this many, and its best ones again for longer.
COST_BATCHES, SEARCH_BATCHES, FINAL_BATCHES, FINALISTS = 10, 4, 10, 3


class Benchmark:
    """One run: its settings, its file, and what has been measured so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.cores: list[int] = options.cores or sorted(os.sched_getaffinity(0))[:2]
        if len(self.cores) != 2 or not set(self.cores) <= os.sched_getaffinity(0):
            raise SystemExit(f"cores: got {self.cores}; expected two of {sorted(os.sched_getaffinity(0))}")
        self.environment = KEEP_MEMORY if options.malloc == "keep" else {}
        settings = {
            "batches": options.batches,
            "repeats": options.repeats,
            "models": options.models,
            "batch": BATCH,
            "warmup": WARMUP,
            "quick": options.quick,
            "cores": self.cores,
            "environment": self.environment,
        }
        self.results: dict[str, Any] = {"settings": settings, "models": {}, "runs": [], "interruptions": 0}
        if options.resume and options.out.exists():
            self.results = json.loads(options.out.read_text(encoding="utf-8"))
            if self.results["settings"] != settings:
                raise SystemExit(f"resume: {options.out} has other settings; leave --resume out to start anew")
            self.results["interruptions"] += 1
        else:
            self.results |= _surroundings()

    def keep(self) -> None:
        """Write what there is, whole or not at all."""
        self.results["updated"] = _now()
        partial = self.options.out.with_suffix(".partial")
        partial.write_text(json.dumps(self.results, indent=1) + "\n", encoding="utf-8")
        partial.replace(self.options.out)

    def jobs(self, model: str, *jobs: dict[str, Any], timeout: float) -> list[dict[str, Any]]:
        """Run the jobs at the same time; a job without cores is tied to the core of its place."""
        common = {"model": model, "quick": self.options.quick, "warmup": WARMUP, "batches": self.options.batches}
        placed = [{**common, "cores": [core], **job} for core, job in zip(self.cores, jobs, strict=False)]
        done = run_jobs(placed, timeout=timeout, environment=self.environment)
        self.results["torch"] = done[0]["torch"]
        return done

    def prepare(self, model: str) -> None:
        """Measure what the layers cost, cut the continuous pipeline by it, and search the baselines' best settings."""
        if model in self.results["models"]:
            return
        print(f"{model}: layer costs", flush=True)
        facts: dict[str, Any] = {"load_before": os.getloadavg()}
        costs = {}
        for form, more in (("bp", {"micro": MICRO}), ("al", {})):
            job = {"do": f"{form}-costs", "batches": COST_BATCHES, **more}
            costs[form] = self.jobs(model, job, timeout=600)[0]
        trials = candidates(costs)
        print(f"{model}: searching {len(trials)} settings of the baselines", flush=True)
        self._time(model, trials, SEARCH_BATCHES, "seconds")
        finalists = []
        for contestant in dict.fromkeys(trial["contestant"] for trial in trials):
            own = sorted((t for t in trials if t["contestant"] == contestant), key=lambda t: t["seconds"])
            finalists += own[:FINALISTS]
        self._time(model, finalists, FINAL_BATCHES, "seconds_final")
        choices: dict[str, Any] = {name: choose_cut(costs, name) for name in ("continuous", "al-fm")}
        for trial in sorted(finalists, key=lambda t: t["seconds_final"], reverse=True):
            choices[trial["contestant"]] = {key: trial[key] for key in ("schedule", "cut", "micro")}
        facts |= {"costs": costs, "search": trials, "choices": choices}
        self.results["models"][model] = facts
        self.keep()

    def _time(self, model: str, trials: list[dict[str, Any]], batches: int, into: str) -> None:
        """Time the trials, all in one pair of processes, in seconds per batch."""
        batches = min(batches, self.options.batches)
        short = [{**trial, "warmup": 2, "batches": batches} for trial in trials]
        ranks = self.jobs(model, *[{"do": "search", "trials": short}] * 2, timeout=900)
        for number, trial in enumerate(trials):
            both = [rank["trials"][number] for rank in ranks]
            trial[into] = (max(r["stop"] for r in both) - min(r["start"] for r in both)) / batches

    def measure(self, model: str, contestant: str, repetition: int) -> None:
        """Measure one contestant once and keep the figures."""
        facts, batches = self.results["models"][model], self.options.batches
        choice = facts["choices"].get(contestant)
        expected = bound_seconds("bp-one-device", facts["costs"], None, batches + WARMUP)
        load = os.getloadavg()
        jobs: list[dict[str, Any]]
        if contestant == "bp-one-device":
            jobs = [{"do": "bp"}]
        elif contestant == "ddp":
            jobs = [{"do": "ddp"}] * 2
        elif contestant == "al-sequential":
            jobs = [{"do": "al", "schedule": "sequential", "stages": None, "options": {}}]
        elif contestant in ("al-fm", "continuous", "al-fm-shared", "continuous-shared"):
            schedule = contestant.removesuffix("-shared")
            options = {"stages": choice} if contestant == "continuous" else {}
            jobs = [{"do": "al", "schedule": schedule, "stages": choice, "options": options, "cores": self.cores}]
        else:
            jobs = [{"do": "stages", "trial": choice}] * 2
        done = self.jobs(model, *jobs, timeout=60 + 5 * expected)
        seconds = max(process["stop"] for process in done) - min(process["start"] for process in done)
        run = {
            "model": model,
            "contestant": contestant,
            "repetition": repetition,
            "samples_per_s": batches * BATCH / seconds,
            "seconds": seconds,
            "batches": batches,
            "bound_samples_per_s": batches * BATCH / bound_seconds(contestant, facts["costs"], choice, batches),
            "peak_mib": [process["peak_mib"] for process in done],
            "base_mib": [process["base_mib"] for process in done],
            "loss": [process["loss"] for process in done if process["loss"] is not None][-1],
            "load_before": load,
            "when": _now(),
        }
        self.results["runs"].append(run)
        self.keep()
        print(f"{repetition + 1} {model} {contestant}: {run['samples_per_s']:.1f} samples/s", flush=True)

    def run(self) -> None:
        """Prepare every model, then measure; in every repetition another contestant comes first."""
        self.keep()
        for model in self.options.models:
            self.prepare(model)
        have = {(run["model"], run["contestant"], run["repetition"]) for run in self.results["runs"]}
        for repetition in range(self.options.repeats):
            turn = repetition % len(CONTESTANTS)
            for model in self.options.models:
                for contestant in CONTESTANTS[turn:] + CONTESTANTS[:turn]:
                    if contestant.endswith("-shared") and repetition >= SHARED_REPEATS:
                        continue
                    if (model, contestant, repetition) not in have:
                        self.measure(model, contestant, repetition)


def _surroundings() -> dict[str, Any]:
    """Return what a reader must know to judge the figures."""
    names = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "cpu": (names or [platform.processor()])[0],
        "cores_of_machine": os.cpu_count(),
        "memory_kib": next((int(line.split()[1]) for line in _lines("/proc/meminfo") if "MemTotal" in line), None),
        "system": platform.platform(),
        "python": platform.python_version(),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "command": " ".join(["python -m benchmarks.pipeline", *sys.argv[1:]]),
        "date": _now(),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines()


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def main() -> None:
    """Read the options, measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipeline", description=__doc__)
    parser.add_argument("--batches", type=int, default=60, help="batches per measurement (default 60)")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repetitions (default 5)")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--cores", nargs=2, type=int, help="the two cores (default: the first two allowed)")
    parser.add_argument(
        "--malloc", choices=("keep", "default"), default="keep", help="what glibc does with freed memory"
    )
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    parser.add_argument("--resume", action="store_true", help="go on with the file of an interrupted run")
    parser.add_argument("--quick", action="store_true", help="a smoke test: tiny models, 6 batches, 2 repetitions")
    options = parser.parse_args()
    if options.quick:
        options.batches, options.repeats = 6, 2
        if options.out == HERE / "results.json":
            options.out = HERE / "results.quick.json"
    if options.batches < 1 or options.repeats < 1:
        parser.error("--batches and --repeats: expected at least 1")
    benchmark = Benchmark(options)
    benchmark.run()
    print(markdown(benchmark.results))
