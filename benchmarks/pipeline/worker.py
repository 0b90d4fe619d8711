"""One fresh process of a measurement: `python -m benchmarks.pipeline.worker <job as JSON>`, with one line of JSON out.

Nothing heavy is imported before the process is tied to its cores, so that every thread it ever starts is tied too.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Do the job and print what came of it."""
    job = json.loads(sys.argv[1])
    os.sched_setaffinity(0, job["cores"])
    import torch

    from . import contestants, measure

    torch.set_num_threads(1)
    base = memory("VmRSS")
    do = {
        "bp": contestants.back_propagation,
        "al": contestants.associated_learning,
        "stages": contestants.pipeline_stages,
        "search": contestants.search_stages,
        "ddp": contestants.data_parallel,
        "bp-costs": measure.bp_costs,
        "al-costs": measure.al_costs,
    }[job["do"]]
    result: dict[str, Any] = do(job)
    result |= {"base_mib": base, "peak_mib": memory("VmHWM"), "torch": torch.__version__}
    print(json.dumps(result), flush=True)


def memory(field: str) -> float:
    """Return a field of this process's memory status in MiB: VmRSS now, VmHWM at most so far.

    VmHWM is what getrusage calls ru_maxrss, less what that inherits from the process that started this one.
    """
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return round(int(line.split()[1]) / 1024, 1)
    raise RuntimeError(f"/proc/self/status has no {field}; this benchmark needs Linux")


if __name__ == "__main__":
    main()
