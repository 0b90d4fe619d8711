"""`--plan`: what a command would do, what its layers cost, and how long it would take. Nothing is kept or written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ALPackage import ALStack
from ALPackage.placement import Plan
from ALPackage.placement.over_ranks import best_replicas
from ALPackage.stage.crew import bound, crew
from models import parameter_counts
from utils import set_seed

from ..config.growth import growth_notes
from ..config.load import method_title
from ..config.spec import RunSpec
from .expectation import Expectation, expect
from .failures import told_failures
from .method import headline
from .placement import place, stages_of
from .ranks import Ranks
from .tasks import LoadedTask, training_batches

#: Numbers of workers whose ceilings are shown.
WORKERS = (1, 2, 4, 8)


#: What a proposal has to promise, as a share of the time.
LEAST_GAIN = 0.02


def preview(specs: Sequence[RunSpec], task: LoadedTask, ranks: Ranks | None = None) -> None:
    """Print what each method would do; its models are thrown away. Raises UsageError where memory does not suffice.

    `ranks`: the processes that would train, if there are several: they take part.
    """
    found: dict[str, Expectation] = {}
    for spec in specs:
        with told_failures(spec, task):
            found[method_title(spec.method)] = _preview(spec, task, ranks if spec.over_ranks else None)
    each = ", ".join(f"{title} {_time(one.seconds)}" for title, one in found.items())
    runs = f"{specs[0].turns} turn{'s' * (specs[0].turns > 1)} of {specs[0].config.epochs} epochs"
    total = sum(one.seconds for one in found.values()) * specs[0].turns * specs[0].config.epochs
    less = "; an epoch in which not all layers train takes less" if specs[0].config.grow else ""
    print(f"expected training time per epoch: {each}; all of {runs}: {_time(total)}, evaluation not counted{less}")
    print("nothing was trained or written; without --plan the same command runs", flush=True)


def _preview(spec: RunSpec, task: LoadedTask, ranks: Ranks | None) -> Expectation:
    """Print what one method would do."""
    torch.set_num_threads(spec.threads)
    set_seed(spec.seeds[0])
    model = task.build(spec.method)
    placement, plan = None, None
    if isinstance(model, ALStack):
        batch = next(iter(training_batches(task, "cpu", seed=spec.seeds[0])))
        placement = place(model, batch, spec, ranks, always=True)
        plan = placement.plan
    layers = dict(model.items()) if isinstance(model, ALStack) else dict(model.layers.items())
    parameters = {name: sum(one.numel() for one in layer.parameters()) for name, layer in layers.items()}
    if placement is not None:
        names = placement.names
    else:
        model.set_device(list(spec.devices or ()) or "auto")
        names = [str(device) for device in model.devices]
    print(headline(spec, names, len(layers), parameter_counts(model)[0]), flush=True)
    del model, layers  # two models may not fit
    _say(f"parameters: {', '.join(f'{name} {count:,}' for name, count in parameters.items())}")
    if plan is not None:
        for line in plan.text().splitlines():
            _say(line)
        for line in [_ceilings(plan)] if ranks is None else proposals(plan, spec, ranks.speed()):
            _say(line)
    for note in growth_notes(spec.config, spec.method, len(parameters)):
        _say(note)
    one = expect(spec, task, placement, placement.here(0) if placement else names, ranks)
    own = f"{sum(cost.bytes for cost in plan.costs) / 2**20:,.0f} MiB for the layers; " if plan else ""
    peak = "unknown" if one.peak_mb is None else f"{one.peak_mb:,.0f} MB"
    whole = "of the GPUs" if any(name.startswith("cuda") for name in names) else "of the process, its data included"
    _say(f"memory: {own}{peak} at the peak {whole}")
    _say(
        f"expected: {_time(one.seconds)} per epoch of {one.batches} batches ({one.measured} of them were tried out); "
        f"loading {one.loading * 1e3:.1f} ms per batch, checkpoint {one.snapshot * 1e3:.0f} ms"
    )
    return one


def _ceilings(plan: Plan) -> str:
    """Return what other numbers of workers that share all layers, with a core or device each, could bring."""
    seconds = [cost.total for cost in plan.costs]
    anywhere = [torch.device("cpu")] * len(seconds)
    least = [bound(seconds, crew(anywhere, workers=count)) for count in WORKERS]
    gains: list[Any] = [f"{sum(seconds) / one:.2f}x" for one in least]
    return f"ceiling for {', '.join(map(str, WORKERS))} workers with a core each: {', '.join(gains)}"


def proposals(plan: Plan, spec: RunSpec, speed: float) -> list[str]:
    """Return what other numbers of processes per stage could bring. `speed`: of a connection, in bytes per second."""
    stages = stages_of(plan.costs, spec, speed)
    work = sum(cost.total for cost in plan.costs)
    cores = "a core" if stages.workers == 1 else f"cores for {stages.workers} workers"
    lines = [
        f"connections: {speed / 1e6:,.0f} MB/s; estimated ceilings over one worker, with what is sent, where each "
        f"process has {cores}:"
    ]
    now = stages.slowest(plan.ranks, spec.config.stage_replicas)
    lines.append(f"  what is set: {work / now:.2f}x")
    for world in (spec.world, spec.world + 1):
        seconds, counts = best_replicas(stages, world)
        better = seconds < now * (1 - LEAST_GAIN)
        lines.append(
            f"  {world} processes: {f'stage_replicas {counts}, {work / seconds:.2f}x' if better else 'no better'}"
        )
    return lines


def _say(line: str) -> None:
    print(f"  {line}", flush=True)


def _time(seconds: float) -> str:
    """Return a time in the unit that a reader would take."""
    if seconds < 120:
        return f"{seconds:.{3 if seconds < 1 else 2 if seconds < 10 else 1}f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
