"""One sentence about a run: what holds it back, and what to do about it.

Every sentence has to be true of the run that it is printed for. So what would help, and what could not, is computed:
`bound` gives the least time of any run with these layers' times, on other workers or in other places.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from ALPackage.stage.crew import Member, bound, crew

#: A run that is so near to the least time that its layers allow is held back by them, or by the workers; in percent.
NEAR, QUITE_NEAR = 90.0, 80.0
#: A wait of so much of the time has a reason that is worth a sentence, in percent.
NOTABLE = 15.0
#: Changes of less than this share of the time are not worth a word, and times are not known better.
SMALL = 0.03
#: Seconds; layers that take less per batch are not much longer at work than it takes to hand a batch on, or may wait
#: for Python's lock for some of it.
TINY, BRIEF = 0.5e-3, 5e-3
#: Layers at work that have a core for less than this share of their time have to share it with something else.
ON_CORES = 0.75
#: Of a layer's time, what passes before the next one gets the batch.
FORWARD = 1 / 3


@dataclass(frozen=True)
class Facts:
    """What is known of a run of the continuous schedule. Times in s, of the whole run; shares in percent of it."""

    places: Mapping[str, torch.device]
    """Where each layer was placed, first to last."""
    seconds: Mapping[str, float]
    """The time that went into each layer."""
    workers: Sequence[str]
    """Their names, as in `Member`."""
    wall: float
    batches: int
    epochs: int
    busy: float
    """Mean over the workers, like the next two."""
    data: float
    idle: float
    copying: Mapping[str, float]
    """By worker."""
    threads: int
    cores: int
    gpus: int
    """How many the machine has."""
    asked: int | None = None
    """How many CPU workers the user asked for."""
    computed: float | None = None
    """The seconds in which cores worked for the process, where they are known."""

    @property
    def names(self) -> list[str]:
        """The layers' names."""
        return list(self.places)

    @property
    def on_cpu(self) -> int:
        """How many workers are on the CPU."""
        return sum(name.startswith("cpu") for name in self.workers)

    @property
    def at_once(self) -> float:
        """How many CPU workers can compute at the same time."""
        return max(1.0, self.cores / self.threads)

    @property
    def mean(self) -> float:
        """The mean time of a layer with a batch."""
        return sum(self.seconds.values()) / (len(self.places) * max(1, self.batches))

    @property
    def costs(self) -> list[float]:
        """The time of each layer, on cores that no more workers share than there are.

        Of more workers than cores some wait for one in the middle of a layer, which a layer's time includes.
        """
        used = sum(self.seconds[name] for name, place in self.places.items() if place.type == "cpu")
        shared = min(1.0, self.at_once * self.wall / used) if used else 1.0
        return [self.seconds[name] * (shared if place.type == "cpu" else 1.0) for name, place in self.places.items()]

    def members(self, *, workers: int | None = None, places: Sequence[torch.device] | None = None) -> list[Member]:
        """Return the workers of the run, or those of one with other places or another number of CPU workers."""
        on_gpu = [name.split(" stream ")[0] for name in self.workers if not name.startswith("cpu")]
        streams = max((on_gpu.count(name) for name in on_gpu), default=1)
        given = list(self.places.values()) if places is None else list(places)
        count = max(1, workers or self.on_cpu, len(_ties_of(given)))
        return crew(given, workers=count, threads=self.threads, streams_per_device=streams)

    def least(
        self,
        *,
        workers: int | None = None,
        places: Sequence[torch.device] | None = None,
        at_once: float | None = None,
        costs: Sequence[float] | None = None,
    ) -> float:
        """Return the least time of such a run. `at_once`: with cores for so many CPU workers."""
        members = self.members(workers=workers, places=places)
        costs = self.costs if costs is None else costs
        return bound(costs, members, self.at_once if at_once is None else at_once)


def advise(facts: Facts) -> str:
    """Return the sentence for a run of the continuous schedule."""
    if not any(facts.seconds.values()):
        return "nothing was trained, so nothing is known of the layers"
    if (found := _elsewhere(facts)) is not None:
        return found
    nearness = 100 * facts.least() / facts.wall
    if nearness >= NEAR:
        return _bounded(facts) or _cores(facts, only=True) or _balanced(facts)
    found = _waits(facts)
    if found is None and nearness >= QUITE_NEAR:
        found = _bounded(facts) or _cores(facts, only=False)
    return found or _unexplained(facts)


def _elsewhere(facts: Facts) -> str | None:
    """Say so if the workers were at work, but hardly on a core. Threads of a layer wait for each other, so of one."""
    if facts.computed is None or facts.threads > 1 or facts.on_cpu < len(facts.workers):
        return None
    # The process also loads data, so the workers had less than this.
    share = facts.computed / (facts.wall * min(facts.cores, facts.on_cpu * facts.busy / 100))
    if share > ON_CORES:
        return None
    who, its = ("the worker had", "its") if facts.on_cpu == 1 else (f"the {facts.on_cpu} workers had", "their")
    reason = "other processes use the cores"
    if facts.mean < BRIEF and facts.on_cpu > 1:
        reason += ", or the layers are so small that the workers wait for each other in Python"
    return f"{who} a core for only {100 * share:.0f} % of {its} time at work: {reason}"


def _bounded(facts: Facts) -> str | None:
    """Say which ties, number of workers, layers or devices hold the run back."""
    return _ties(facts) or _workers(facts) or _layers(facts) or _devices(facts)


def _ties(facts: Facts) -> str | None:
    """Say so if layers are tied to workers, and the run could be faster if they were not."""
    tied: dict[str, list[str]] = {}
    for name, place in facts.places.items():
        if place.type == "cpu" and place.index is not None:
            tied.setdefault(str(place), []).append(name)
    if not tied:
        return None
    default = min(int(facts.at_once), sum(place.type == "cpu" for place in facts.places.values()))
    now = facts.least()

    def untied(workers: Sequence[str]) -> tuple[float, int]:
        """Return the least time without the ties to these workers, and how many workers there are then."""
        count = facts.asked or max(default, len(tied) - len(workers))
        free = [name for worker in workers for name in tied[worker]]
        places = [torch.device("cpu") if name in free else place for name, place in facts.places.items()]
        return facts.least(workers=count, places=places), count

    worker = min(tied, key=lambda worker: untied([worker]))
    least, count = untied([worker])
    if least < (1 - SMALL) * now:
        names = tied[worker]
        verb = "is" if len(names) == 1 else "are"
        return (
            f"{_names(names)} with {_share(facts, names):.0f} % of the work {verb} tied to {worker}: "
            f'write "cpu" instead in al_gpu_list, and any of {count} workers may run {_it(names)}'
        )
    least, count = untied(list(tied))
    if least < (1 - SMALL) * now:
        return (
            f"layers are tied to {_listed(list(tied))}, which keeps other workers from running them: "
            f'write "cpu" instead in al_gpu_list, and any of {count} workers may'
        )
    return None


def _workers(facts: Facts) -> str | None:
    """Say so if there are cores for more workers, and the layers have work for them."""
    most = int(facts.at_once)
    if not facts.on_cpu or facts.on_cpu >= most:
        return None
    best = facts.least(workers=most)
    if best >= (1 - SMALL) * facts.least():
        return None
    enough = next(n for n in range(facts.on_cpu + 1, most + 1) if facts.least(workers=n) <= best / (1 - SMALL))
    used = facts.on_cpu * facts.threads
    who = "the worker uses" if facts.on_cpu == 1 else f"the {facts.on_cpu} workers use"
    return f"{who} {used} of {facts.cores} cores, and the layers have work for more: --workers {enough}"


def _layers(facts: Facts) -> str | None:
    """Say so if the largest layer, or several, set the pace: a layer works on one batch at a time."""
    costs = facts.costs
    now, largest = facts.least(), max(costs)
    pacing = [name for name, cost in zip(facts.names, costs, strict=True) if cost >= (1 - SMALL) * largest]
    smaller = [cost * (0.9 if name in pacing else 1.0) for name, cost in zip(facts.names, costs, strict=True)]
    if largest < (1 - SMALL) * now or facts.least(costs=smaller) > (1 - SMALL) * now:
        return None
    several = len(pacing) > 1
    share = f"{_share(facts, pacing[:1]):.0f} % of the work{' each' * several}"
    what = f"{_names(pacing)} {'are' if several else 'is'} {share}"
    smaller_then = f"make {_it(pacing)} smaller or divide {_it(pacing)}"
    if any(place.type != "cpu" for place in facts.places.values()):
        return f"{what} and set{'' if several else 's'} the pace, wherever the other layers are: {smaller_then}"
    limit = largest / (1 - SMALL)
    fewest = max(1, len(_ties_of(facts.places.values())))
    enough = next(n for n in range(fewest, facts.on_cpu + 1) if _alone(facts, n) <= limit)
    threads = ""
    if 2 * facts.threads * enough <= facts.cores:
        threads = f", or give `threads` ({facts.cores} cores are enough for {facts.cores // enough} per worker)"
    return f"{what}: more than {_number(enough)} worker{'s' * (enough > 1)} cannot help; {smaller_then}{threads}"


def _ties_of(places: Iterable[torch.device]) -> set[torch.device]:
    """Return the CPU workers that layers are tied to."""
    return {place for place in places if place.type == "cpu" and place.index is not None}


def _alone(facts: Facts, workers: int) -> float:
    """Return the least time with so many workers, and cores for all of them."""
    return facts.least(workers=workers, at_once=math.inf)


def _devices(facts: Facts) -> str | None:
    """Say which GPU sets the pace, and whether another one could do some of its work."""
    costs, places = facts.costs, list(facts.places.values())
    used = dict.fromkeys(place for place in places if place.type != "cpu")
    if not used:
        return None
    now = facts.least()
    work = {gpu: sum(cost for cost, place in zip(costs, places, strict=True) if place == gpu) for gpu in used}
    busiest = max(work, key=lambda gpu: work[gpu])
    streams = sum(name.split(" stream ")[0] == str(busiest) for name in facts.workers)
    if work[busiest] / max(1, streams) < (1 - SMALL) * now:
        return None
    what = f"{busiest} has {100 * work[busiest] / sum(costs):.0f} % of the work and sets the pace"

    def moved(number: int, gpu: torch.device) -> float:
        return facts.least(places=[*places[:number], gpu, *places[number + 1 :]])

    here = [number for number, place in enumerate(places) if place == busiest]
    others = [
        gpu for gpu in {**used, **dict.fromkeys(torch.device("cuda", n) for n in range(facts.gpus))} if gpu != busiest
    ]
    moves = [(number, gpu) for number in here for gpu in others]
    best = min(moves, key=lambda move: moved(*move), default=None)
    if best is not None and moved(*best) < (1 - SMALL) * now:
        return f"{what}: place {facts.names[best[0]]} on {best[1]}, which has less to do"
    new = torch.device("cuda", max(gpu.index or 0 for gpu in used) + 1)
    helps = min(moved(number, new) for number in here) < (1 - SMALL) * now
    return (
        f"{what}; less work per batch{', another GPU' * helps} or, where a layer does not fill it, more "
        '"streams_per_device" could make it faster'
    )


def _cores(facts: Facts, *, only: bool) -> str | None:
    """Say so if the workers use all the cores there are. `only`: whether that alone holds the run back."""
    if facts.on_cpu < max(len(facts.workers), int(facts.at_once)):
        return None
    one = facts.on_cpu == 1
    cores = "the one core that there is" if facts.cores == 1 else f"{facts.cores} cores"
    busy = f"{'the worker has' if one else f'the {facts.on_cpu} workers share'} {cores}"
    busy += f" and {'is' if one else 'are'} busy {facts.busy:.0f} % of the time"
    now = facts.least()
    # Two threads rarely do a layer in half the time, so where there are layers for more workers these use cores better.
    if facts.threads > 1 and facts.least(workers=facts.cores, at_once=facts.cores) < (1 - SMALL) * now:
        with_threads = f"with {facts.threads} threads{'' if one else ' each'}"
        better = "more workers with fewer `threads`" if facts.on_cpu < facts.cores else "fewer `threads`"
        return f"{busy}, {with_threads}; {better} may use the cores better"
    if _alone(facts, 2 * facts.on_cpu) >= (1 - SMALL) * now:
        return None
    return f"{busy}: {'only ' * only}more cores or less work per batch would make it faster"


def _balanced(facts: Facts) -> str:
    return (
        f"{_subject(facts)} busy {facts.busy:.0f} % of the time, near to the most that these workers and layers allow; "
        "less work per batch would make it faster"
    )


def _unexplained(facts: Facts) -> str:
    costs = sum(facts.costs)
    return (
        f"{costs / facts.wall:.2f} workers were at work on average where {costs / facts.least():.2f} could have been, "
        "mainly for another reason than data or copies; something else may be using the machine (--trace FILE shows "
        "when they were idle)"
    )


def _waits(facts: Facts) -> str | None:
    """Say so if the workers wait for data, for copies, at the ends of an epoch, or for each other's hand-overs."""
    data, filling = facts.data, _filling(facts)
    if data >= max(NOTABLE, filling):
        verb = "waits" if len(facts.workers) == 1 else "wait"
        its = "its" if len(facts.workers) == 1 else "their"
        return (
            f"the {_count(facts, 'worker')} {verb} {data:.0f} % of {its} time for data: make less to do for the loader "
            "per batch (augmentation, size of images, length of texts)"
        )
    copying = max(facts.copying, key=lambda name: facts.copying[name])
    if facts.copying[copying] >= max(NOTABLE, filling):
        return (
            f"{copying} copies {facts.copying[copying]:.0f} % of its time: place neighbors on one device where much is "
            "handed on"
        )
    still = f"{_subject(facts)} idle {facts.idle:.0f} % of the time, and would be less so with"
    if filling >= NOTABLE / 2 and facts.idle >= NOTABLE:
        each = facts.batches / facts.epochs
        return f"an epoch has only {each:.0f} batches, so filling and draining weigh: {still} more batches per epoch"
    if facts.mean < TINY and facts.idle >= NOTABLE:
        return (
            f"a layer takes only {1e3 * facts.mean:.2g} ms per batch, little more than handing it on: {still} larger "
            "batches or wider layers"
        )
    return None


def _filling(facts: Facts) -> float:
    """Return about how much of the time filling and draining cost, in percent.

    Until layer j has handed on the first batch, no more than j layers can be at work, where later as many are as the
    ceiling says; and so at the other end.
    """
    costs, ceiling = facts.costs, sum(facts.costs) / facts.least()
    lost = sum((ceiling - j) * (costs[j - 1] + costs[-j]) for j in range(1, len(costs) + 1) if j < ceiling)
    return 100 * FORWARD * facts.epochs * lost / (max(1, facts.batches) * ceiling * facts.wall)


def _share(facts: Facts, names: Sequence[str]) -> float:
    """Return the layers' share of all work, in percent."""
    return 100 * sum(facts.seconds[name] for name in names) / sum(facts.seconds.values())


def _subject(facts: Facts) -> str:
    return "the worker is" if len(facts.workers) == 1 else f"the {len(facts.workers)} workers are"


def _count(facts: Facts, word: str) -> str:
    return word if len(facts.workers) == 1 else f"{len(facts.workers)} {word}s"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _names(layers: Sequence[str]) -> str:
    return _listed(layers) if len(layers) <= 3 else f"{len(layers)} layers ({_listed(layers)})"


def _it(layers: Sequence[str]) -> str:
    return "it" if len(layers) == 1 else "them"


def _number(value: int) -> str:
    words = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    return words[value - 1] if value <= len(words) else str(value)
