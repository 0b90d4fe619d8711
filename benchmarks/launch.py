"""Start fresh processes on given cores, wait for them no longer than allowed, and collect what they print."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
#: gloo stays on this machine.
ENVIRONMENT = {"GLOO_SOCKET_IFNAME": "lo", "PYTHONUNBUFFERED": "1"}


class WorkerError(RuntimeError):
    """A process of a measurement failed or took too long."""


def run_jobs(
    module: str,
    jobs: Sequence[Mapping[str, Any]],
    *,
    timeout: float,
    environment: Mapping[str, str] | None = None,
    hosts: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Run `python -m module <job as JSON>` for every job, all at once, and return the JSON that each prints, in order.

    Every job is told its rank, the number of ranks and a file to meet at; its "threads" (default 1) are those of every
    library that an operation may end in. `hosts`: network namespaces, one per job, in which the interface of the same
    name leads to the others; by default all are on this machine's loopback. Raises WorkerError, with the end of what
    the process said, if one fails or if `timeout` seconds have passed; no process outlives this call.
    """
    with tempfile.TemporaryDirectory() as folder:
        processes: list[subprocess.Popen[str]] = []
        outputs = [(Path(folder, f"out{rank}"), Path(folder, f"err{rank}")) for rank in range(len(jobs))]
        try:
            for rank, (job, (out, err)) in enumerate(zip(jobs, outputs, strict=True)):
                told = {**job, "rank": rank, "ranks": len(jobs), "meeting": str(Path(folder, "meeting"))}
                threads = str(job.get("threads", 1))
                own = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
                inside = ["ip", "netns", "exec", hosts[rank]] if hosts else []
                if hosts:
                    own["GLOO_SOCKET_IFNAME"] = hosts[rank]
                with out.open("w") as out_file, err.open("w") as err_file:
                    processes.append(
                        subprocess.Popen(
                            [*inside, sys.executable, "-m", module, json.dumps(told)],
                            cwd=ROOT,
                            env={**os.environ, **ENVIRONMENT, **own, **(environment or {})},
                            stdout=out_file,
                            stderr=err_file,
                            text=True,
                            start_new_session=True,
                        )
                    )
            _wait(processes, outputs, timeout)
        finally:
            for process in processes:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        return [json.loads(out.read_text().splitlines()[-1]) for out, _ in outputs]


def _wait(processes: list[subprocess.Popen[str]], outputs: list[tuple[Path, Path]], timeout: float) -> None:
    """Wait for all of them; one that fails ends the wait, since the others would wait for it."""
    deadline = time.monotonic() + timeout
    while any(process.poll() is None for process in processes):
        if time.monotonic() > deadline:
            raise WorkerError(f"not done within {timeout:.0f} s: {_last_words(outputs)}")
        if any(process.poll() not in (None, 0) for process in processes):
            break
        time.sleep(0.05)
    for rank, process in enumerate(processes):
        if process.poll() not in (None, 0):
            raise WorkerError(f"process {rank} ended with code {process.poll()}: {_last_words(outputs[rank:])}")


def _last_words(outputs: list[tuple[Path, Path]]) -> str:
    return "\n".join(err.read_text()[-2000:] for _, err in outputs)


def memory_mib(field: str) -> float:
    """Return a field of this process's memory status in MiB: VmRSS now, VmHWM at most so far.

    VmHWM is what getrusage calls ru_maxrss, less what that inherits from the process that started this one.
    """
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return round(int(line.split()[1]) / 1024, 1)
    raise RuntimeError(f"/proc/self/status has no {field}; this benchmark needs Linux")
