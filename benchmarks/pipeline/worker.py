"""One fresh process of a measurement: `python -m benchmarks.pipeline.worker <job as JSON>`, with one line of JSON out.

Nothing heavy is imported before the process is tied to its cores, so that every thread it ever starts is tied too.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from benchmarks.launch import memory_mib


def main() -> None:
    """Do the job and print what came of it."""
    job = json.loads(sys.argv[1])
    os.sched_setaffinity(0, job["cores"])
    import torch

    from . import contestants, measure, stages

    torch.set_num_threads(job.get("threads", 1))
    base = memory_mib("VmRSS")
    do = {
        "bp": contestants.back_propagation,
        "al": contestants.associated_learning,
        "al-ranks": contestants.over_ranks,
        "stages": stages.pipeline_stages,
        "search-stages": stages.search_stages,
        "search-cuts": contestants.search_cuts,
        "link": contestants.measure_link,
        "ddp": contestants.data_parallel,
        "costs": measure.layer_costs,
    }[job["do"]]
    result: dict[str, Any] = do(job)
    result |= {"base_mib": base, "peak_mib": memory_mib("VmHWM")}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
