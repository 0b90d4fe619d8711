"""The sentence about a run names what holds it back, and what it says of other runs follows from the layers' times."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from ALPackage.stage.crew import bound, crew
from training.report.advice import Facts, advise

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def run(
    times: Sequence[float],
    places: Sequence[str] = (),
    *,
    cores: int = 2,
    threads: int = 1,
    asked: int | None = None,
    streams: int = 1,
    near: float = 0.95,
    data: float = 0.0,
    copying: float = 0.0,
    **others: Any,
) -> Facts:
    """Return the facts of a run whose layers took `times`, which came `near` to the least time, or shared the cores."""
    devices = [torch.device(place) for place in places or ["cpu"] * len(times)]
    on_cpu = [place for place in devices if place.type == "cpu"]
    tied = {place for place in on_cpu if place.index is not None}
    workers = asked or max(1, min(cores // threads, len(on_cpu)), len(tied))
    members = crew(devices, workers=workers, threads=threads, streams_per_device=streams)
    wall = bound(list(times), members, max(1.0, cores / threads)) / near or 1.0
    busy = 100 * sum(times) / (len(members) * wall)
    values: dict[str, Any] = {
        "places": dict(zip("abcdefghijkl", devices, strict=False)),
        "seconds": dict(zip("abcdefghijkl", times, strict=False)),
        "workers": [member.name for member in members],
        "wall": wall,
        "batches": 1000,
        "epochs": 1,
        "busy": busy,
        "data": data,
        "idle": 100 - busy - data,
        "copying": {member.name: copying for member in members},
        "threads": threads,
        "cores": cores,
        "gpus": 0,
        "asked": asked,
    }
    return Facts(**values | others)


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        (run([0, 0]), "nothing was trained, so nothing is known of the layers"),
        (
            run([46, 27, 27], cores=3),
            "a is 46 % of the work: more than three workers cannot help; make it smaller or divide it",
        ),
        (
            run([60, 20, 20], cores=4),
            "a is 60 % of the work: more than two workers cannot help; make it smaller or divide it, or give `threads` "
            "(4 cores are enough for 2 per worker)",
        ),
        (
            run([25, 25, 25, 25], cores=4),
            "4 layers (a, b, c and d) are 25 % of the work each: more than four workers cannot help; make them smaller "
            "or divide them",
        ),
        (run([100], cores=1), "a is 100 % of the work: more than one worker cannot help; make it smaller or divide it"),
        (
            run([30, 20, 30, 20]),
            "the 2 workers share 2 cores and are busy 95 % of the time: only more cores or less work per batch would "
            "make it faster",
        ),
        (
            run([30, 20, 30, 20], near=0.85),
            "the 2 workers share 2 cores and are busy 85 % of the time: more cores or less work per batch would make "
            "it faster",
        ),
        (
            run([30, 70], cores=1),
            "the worker has the one core that there is and is busy 95 % of the time: only more cores or less work per "
            "batch would make it faster",
        ),
        (
            run([30, 20, 30, 20], cores=4, threads=2),
            "the 2 workers share 4 cores and are busy 95 % of the time, with 2 threads each; more workers with fewer "
            "`threads` may use the cores better",
        ),
        (
            run([30, 20, 30, 20], cores=2, threads=2),
            "the worker has 2 cores and is busy 95 % of the time, with 2 threads; more workers with fewer `threads` "
            "may use the cores better",
        ),
        (
            run([30, 20, 21, 29], ["cpu:0", "cpu:0", "cpu:0", "cpu"]),
            'a, b and c with 71 % of the work are tied to cpu:0: write "cpu" instead in al_gpu_list, and any of 2 '
            "workers may run them",
        ),
        (
            run([80, 20, 30], ["cpu:0", "cpu:0", "cpu:1"], cores=4),
            'a and b with 77 % of the work are tied to cpu:0: write "cpu" instead in al_gpu_list, and any of 3 workers '
            "may run them",
        ),
        (
            run([25] * 4, ["cpu:0", "cpu:0", "cpu:1", "cpu:1"], cores=4),
            'layers are tied to cpu:0 and cpu:1, which keeps other workers from running them: write "cpu" instead in '
            "al_gpu_list, and any of 4 workers may",
        ),
        (
            run([25] * 4, cores=8, asked=2),
            "the 2 workers use 2 of 8 cores, and the layers have work for more: --workers 4",
        ),
        (
            run([50, 30, 20], cores=8, asked=1),
            "the worker uses 1 of 8 cores, and the layers have work for more: --workers 2",
        ),
        (
            run([40, 30, 30], ["cuda:0", "cuda:0", "cuda:1"], gpus=2),
            "cuda:0 has 70 % of the work and sets the pace: place b on cuda:1, which has less to do",
        ),
        (
            run([40, 30, 30], ["cuda:0"] * 3, gpus=2),
            "cuda:0 has 100 % of the work and sets the pace: place a on cuda:1, which has less to do",
        ),
        (
            run([40, 30, 30], ["cuda:0"] * 3, gpus=1),
            "cuda:0 has 100 % of the work and sets the pace; less work per batch, another GPU or, where a layer does "
            'not fill it, more "streams_per_device" could make it faster',
        ),
        (
            run([70, 30], ["cuda:0", "cuda:1"], gpus=2),
            "a is 70 % of the work and sets the pace, wherever the other layers are: make it smaller or divide it",
        ),
        (
            run([30, 20, 30, 20], near=0.6, data=31),
            "the 2 workers wait 31 % of their time for data: make less to do for the loader per batch (augmentation, "
            "size of images, length of texts)",
        ),
        (
            run([30, 20], asked=1, cores=1, near=0.6, data=31),
            "the worker waits 31 % of its time for data: make less to do for the loader per batch (augmentation, size "
            "of images, length of texts)",
        ),
        (
            run([30, 20, 30, 20], ["cuda:0", "cuda:0", "cuda:1", "cuda:1"], gpus=2, near=0.6, copying=20),
            "cuda:0 copies 20 % of its time: place neighbors on one device where much is handed on",
        ),
        (
            run([25, 25, 25, 25], cores=4, near=0.6, batches=6, epochs=2),
            "an epoch has only 3 batches, so filling and draining weigh: the 4 workers are idle 40 % of the time, and "
            "would be less so with more batches per epoch",
        ),
        (
            run([0.03, 0.02, 0.03, 0.02], near=0.6),
            "a layer takes only 0.025 ms per batch, little more than handing it on: the 2 workers are idle 40 % of the "
            "time, and would be less so with larger batches or wider layers",
        ),
        (
            run([30, 20, 30, 20], near=0.6),
            "1.20 workers were at work on average where 2.00 could have been, mainly for another reason than data or "
            "copies; something else may be using the machine (--trace FILE shows when they were idle)",
        ),
        (
            run([30, 20, 30, 20], computed=60.0),
            "the 2 workers had a core for only 60 % of their time at work: other processes use the cores",
        ),
        (
            run([3, 2, 3, 2], computed=6.0),
            "the 2 workers had a core for only 60 % of their time at work: other processes use the cores, or the "
            "layers are so small that the workers wait for each other in Python",
        ),
    ],
)  # fmt: skip
def test_the_sentence_names_what_holds_the_run_back(facts: Facts, sentence: str) -> None:
    assert advise(facts) == sentence


def test_workers_that_share_too_few_cores_do_not_hide_that_the_cores_are_too_few() -> None:
    """Four at work on two cores: each layer's time is twice what it would be, and none of them sets the pace."""
    facts = run([60, 50, 50, 40], asked=4)
    crowded = run([120, 100, 100, 80], asked=4, wall=facts.wall, busy=95.0)
    assert sum(facts.costs) == pytest.approx(sum(crowded.costs), rel=0.06)
    assert advise(crowded).startswith("the 4 workers share 2 cores and are busy 95 % of the time: only more cores")


PLACES = st.sampled_from(["cpu", "cpu", "cpu:0", "cpu:1", "cpu:2"]), st.sampled_from(["cuda:0", "cuda:1", "cuda:2"])


@st.composite
def runs(draw: st.DrawFn) -> Facts:
    count = draw(st.integers(1, 6))
    places = draw(st.lists(PLACES[draw(st.integers(0, 3)) == 3], min_size=count, max_size=count))
    times = draw(st.lists(st.integers(1, 40), min_size=count, max_size=count))
    asked = draw(st.none() | st.integers(1, 5))
    assume(asked is None or len({place for place in places if place.startswith("cpu:")}) <= asked)
    threads = draw(st.integers(1, 3))
    near = draw(st.floats(0.7, 1.0))
    return run(
        times,
        places,
        cores=draw(st.integers(1, 9)),
        threads=threads,
        asked=asked,
        near=near,
        gpus=draw(st.integers(1, 4)),
    )


def least(facts: Facts, costs: Sequence[float] | None = None, at_once: float = math.inf, **changes: Any) -> float:
    """Return the least time of the run with other workers, places or costs."""
    places = changes.pop("places", list(facts.places.values()))
    workers = changes.pop("workers", max(1, facts.on_cpu))
    return bound(costs or facts.costs, crew(places, workers=workers, threads=facts.threads), at_once)


@given(runs())
def test_whatever_is_said_of_other_runs_follows_from_the_layers_times(facts: Facts) -> None:
    said = advise(facts)
    now = least(facts, at_once=facts.at_once)
    fewer_ties = list(facts.places.values())
    if found := re.search(r"more than (\w+) workers? cannot help", said):
        workers = WORDS.index(found[1]) + 1
        assert workers <= facts.on_cpu
        assert least(facts, workers=workers + 1) >= 0.97 * least(facts, workers=workers)
        assert least(facts, workers=20) >= 0.97 * now
    if found := re.search(r"^(?:\d layers \()?([a-f, nd]+)\)? (?:is|are) \d+ % of the work", said):
        named = re.findall(r"\b[a-f]\b", found[1])
        assert named, said
        smaller = [cost * (0.9 if name in named else 1) for name, cost in zip(facts.names, facts.costs, strict=True)]
        assert least(facts, smaller, at_once=facts.at_once) <= 0.97 * now * (1 + 1e-9)
    if found := re.search(r"\((\d) cores are enough for (\d) per worker", said):
        assert int(found[1]) == facts.cores >= 2 * facts.threads
        assert int(found[2]) > facts.threads
    if found := re.search(
        r'tied to (.*)(?::|, which.*) write "cpu" instead in al_gpu_list, and any of (\d) workers', said
    ):
        fewer_ties = [torch.device("cpu") if str(place) in found[1] else place for place in fewer_ties]
        tied = len({place for place in fewer_ties if place.index is not None})
        default = max(1, tied, min(facts.cores // facts.threads, len(fewer_ties)))
        after = crew(fewer_ties, workers=facts.asked or default)
        assert len(after) == int(found[2])
        assert bound(facts.costs, after, facts.at_once) < 0.97 * now
    if found := re.search(r"--workers (\d)", said):
        workers = int(found[1])
        assert facts.on_cpu < workers <= facts.cores // facts.threads
        assert least(facts, workers=workers) < 0.97 * now
    if "more cores or" in said:
        assert facts.on_cpu >= facts.cores // facts.threads
        assert least(facts, workers=20) < 0.97 * now
    if "only more cores" in said and facts.threads == 1:
        free = [torch.device("cpu")] * len(fewer_ties)
        assert least(facts, places=free, workers=facts.cores, at_once=facts.cores) >= 0.97 * now
    if "fewer `threads`" in said:
        assert facts.threads > 1
        assert least(facts, workers=max(facts.on_cpu, facts.cores), at_once=facts.cores) < 0.97 * now
    if "more workers with fewer" in said:
        assert facts.on_cpu < facts.cores
    if found := re.search(r"place (\w) on (cuda:\d)", said):
        places = [torch.device(found[2]) if name == found[1] else place for name, place in facts.places.items()]
        assert least(facts, places=places) < 0.97 * now
        assert places != list(facts.places.values())
    assert said.count("\n") == 0
