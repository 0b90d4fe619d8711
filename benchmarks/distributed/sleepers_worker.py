"""One process with sleeping layers: `python -m benchmarks.distributed.sleepers_worker <job as JSON>`."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch
import torch.distributed as dist

from ALPackage import ALStack, make_schedule
from ALPackage.schedules.distributed import Distributed
from benchmarks.pipeline.timing import meet
from benchmarks.schedule.layers import RowSleeper

#: Numbers in a row of x.
SIZE = 64
WARMUP = 5


def main() -> None:
    """Do the job, and print on rank 0 how many seconds the batches took, fill and drain included."""
    job: dict[str, Any] = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    meet(job)
    stack = ALStack(RowSleeper(seconds, job["rows"]) for seconds in job["times"])
    seconds = 0.0
    with make_schedule(job["options"].pop("schedule"), stack, threads=1, **job["options"]) as schedule:
        if isinstance(schedule, Distributed) and not schedule.leads:
            schedule.serve()
        else:
            batch = torch.zeros(job["rows"], SIZE), torch.zeros(job["rows"], 1)
            for count in (WARMUP, job["batches"]):
                began = time.perf_counter()
                for _ in schedule.run(batch for _ in range(count)):
                    pass
                seconds = time.perf_counter() - began
    dist.destroy_process_group()
    print(json.dumps({"seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
