"""What a report says in words, before any figure: which method, by how much, and what the turns allow to say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..comparison import spread
from ..curves import chosen, loss_panels
from ..verdict import ENOUGH, difference
from .plots import Shown

#: Methods whose speed and depths are told one by one.
FEW = 4
#: Depths that a sentence lists.
LISTED = 8


def summary(runs: Sequence[Shown]) -> list[str]:
    """Return the paragraphs about the test accuracy of the methods of a data set and model."""
    return [" ".join([*_what(runs), *_progress(runs), *_accuracy(runs)]), *comparisons(with_reference(runs))]


def remarks(runs: Sequence[Shown]) -> list[str]:
    """Return the paragraphs about the rest: speed and depths of a few, and what is wrong with the losses."""
    # Of many methods, the table and the pictures are easier to read.
    told = [" ".join([*_speed(runs), *_depths(runs)])] if len(runs) <= FEW else []
    return [*told, *_gaps(runs)]


def with_reference(runs: Sequence[Shown]) -> list[tuple[Shown, Shown]]:
    """Return each run with the one that it is compared with: BP, or else the first."""
    reference = next((run for run in runs if run.result.method == "bp"), runs[0])
    return [(run, reference) for run in runs if run is not reference]


def comparisons(pairs: Sequence[tuple[Shown, Shown]]) -> Iterator[str]:
    """Yield what can be said about each run in comparison with the other one."""
    for run, other in pairs:
        yield " ".join(_compared(run, other))
    if len(pairs) > 2:
        yield "Each comparison is made on its own: among many, one may show a difference by chance."


def listed(names: Sequence[str]) -> str:
    """Return `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def counted(number: int, word: str) -> str:
    """Return the number with the word, in the plural where need be."""
    return f"{number:,} {word}{'s' * (number != 1)}"


def signed(value: float) -> str:
    """Return a difference in percentage points."""
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")  # + 0.0, or what rounds to zero may be minus zero


def turns_of(run: Shown) -> str:
    """Return how many turns and epochs a run has, or is to have."""
    epochs = run.result.info.config.get("epochs")
    of = f" of {counted(epochs, 'epoch')}" if isinstance(epochs, int) else ""
    turns = len(run.result.info.seeds)
    return f"{'one turn' if turns == 1 else counted(turns, 'turn')}{of}"


def _what(runs: Sequence[Shown]) -> Iterator[str]:
    dataset, model = runs[0].result.run
    samples = {run.result.info.train_samples for run in runs}
    only = " only" if any(run.result.info.config.get("limit_train") for run in runs) else ""
    size = f" ({counted(samples.pop(), 'training sample')}{only})" if len(samples) == 1 else ""
    plans = [turns_of(run) for run in runs]
    if len(set(plans)) > 1:
        how = listed([f"{run.label} in {plan}" for run, plan in zip(runs, plans, strict=True)])
    else:
        how = f"in {plans[0]}{' each' * (len(runs) > 1)}"
        if len(runs) > 1 and len({tuple(run.result.info.seeds) for run in runs}) == 1:
            how += ", with the same seeds"
    yield f"{listed([run.label for run in runs])} trained {model} on {dataset}{size}, {how}."


def _progress(runs: Sequence[Shown]) -> Iterator[str]:
    """Say which runs are not finished."""
    open_ = [run for run in runs if not run.result.finished]
    if open_:
        told = listed([f"{run.label} is at {run.result.state}" for run in open_])
        yield f"The run is not finished: {told}. The figures below will change."


def _accuracy(runs: Sequence[Shown]) -> Iterator[str]:
    several = any(run.result.summary.turns > 1 for run in runs)
    figures = [f"{spread(run.result.summary.test_acc)} % with {run.label}" for run in runs]
    if len(runs) == 1:
        figures = [f"{spread(runs[0].result.summary.test_acc)} %"]
    open_ = ", unfinished ones included" if not all(run.result.finished for run in runs) else ""
    what = f" (mean ± standard deviation over the turns{open_})" if several else ""
    yield f"Test accuracy at the epoch chosen on validation is {listed(figures)}{what}."


def _compared(run: Shown, other: Shown) -> Iterator[str]:
    found = difference(run.result.finals, other.result.finals)
    if found is None:
        yield f"Before {run.label} and {other.label} have both finished a turn, there is nothing to compare."
        return
    gap = abs(round(found.mean, 2))
    better, worse = (run, other) if found.mean > 0 else (other, run)
    shared = len(found.each)
    so_far = part = ""
    if not (run.result.finished and other.result.finished):
        so_far = part = " in the turns that both have finished"
    elif 0 < shared < max(len(run.result.finals), len(other.result.finals)):
        part = " in the turn with the same seed" if shared == 1 else f" in the {shared} turns with the same seeds"
    ahead = f"{better.label} is {gap:.2f} percentage points above {worse.label}"
    if gap == 0:
        ahead = f"{run.label} and {other.label} are level"
    ahead += " on average" * (found.turns > 1) + part
    if found.turns == 1:
        more = "at least three turns would be needed" if so_far == "" else "more turns are to come"
        yield f"{ahead}. One turn has no spread, so this does not say which is better; {more}."
        return
    if found.each and not any(round(value, 2) for value in found.each):
        yield f"{run.label} and {other.label} are level in every turn{part}."
        return
    sign = 1.0 if better is run else -1.0
    each = sorted(sign * value for value in found.each)
    by_turn = f"; by turn, from {signed(each[0])} to {signed(each[-1])}" if each else "; their seeds differ"
    yield f"{ahead}{by_turn}."
    if found.turns < ENOUGH:
        yield "Two turns are too few to tell a difference from chance."
    elif found.interval is None:
        yield "The difference does not vary between the turns, so they say nothing about its spread."
    else:
        low, high = (signed(end) for end in sorted(sign * end for end in found.interval))
        start = f"Over {found.turns} turns the 95 % interval of the mean difference is {low} to {high}"
        if found.shown:
            yield f"{start}, which excludes zero: on this test set, the seeds alone do not explain the difference."
            if found.turns < 5:
                yield "With so few turns, this assumes that the differences are normally distributed."
        else:
            yield f"{start}, which includes zero: these turns do not show which is better."


def _speed(runs: Sequence[Shown]) -> Iterator[str]:
    timed = [(run, run.result.summary.samples_per_s) for run in runs]
    known = [(run, speed) for run, speed in timed if speed]
    if not known:
        return
    told = [f"{run.label} trained at {speed:,.0f} samples/s ({_machine(run)})" for run, speed in known]
    yield f"{listed(told)}."
    if len(known) == 2:
        (one, fast), (other, slow) = sorted(known, key=lambda pair: -pair[1])
        if fast < 1.05 * slow:
            yield "So they were about equally fast here."
        elif max(_seconds(one)) < min(_seconds(other)):
            yield f"So {one.label} was {fast / slow:.2f} times as fast as {other.label} here."
        else:
            yield f"{one.label} was {fast / slow:.2f} times as fast, but the times of the turns overlap."


def _seconds(run: Shown) -> list[float]:
    """Return the seconds per epoch of each turn."""
    summary, epochs = run.result.summary, run.result.record.epochs_done
    return [seconds / max(1, done) for seconds, done in zip(summary.train_time, epochs, strict=True)]


def _machine(run: Shown) -> str:
    info = run.result.info
    devices = list(dict.fromkeys(info.devices))
    threads = counted(info.threads, "thread")
    where = devices[0] if len(devices) == 1 else f"{len(devices)} devices"
    if info.schedule is None:
        return f"{where}, {threads}"
    return f"{info.schedule} schedule, {where}, {threads} per worker"


def _depths(runs: Sequence[Shown]) -> Iterator[str]:
    for run in runs:
        columns = run.saved.depths
        if 1 < len(columns) <= LISTED:
            means = [f"{value:.1f}" for value in chosen(run.table)[columns].mean().dropna()]
            if len(means) > 1:  # a stack that grows may have one layer yet
                yield f"With its first layers alone, from 1 to {len(means)}, {run.label} reaches {listed(means)} %."


def _gaps(runs: Sequence[Shown]) -> Iterator[str]:
    """Say where losses are not numbers."""
    by_method = {run.result.method: run for run in runs}
    told = set()
    for panel in loss_panels({name: run.saved for name, run in by_method.items()}):
        run = by_method[panel.method]
        fine = np.isfinite(run.table[panel.columns].to_numpy(dtype=float)) | run.saved.absent(panel.columns)
        bad = ~fine.all(axis=1)
        if bad.any() and run.label not in told:
            told.add(run.label)
            first = run.table[bad].iloc[0]
            yield (
                f"Losses of {run.label} are not finite, first in turn {first['turn']:.0f}, epoch {first['epoch']:.0f}; "
                "their curves have gaps there."
            )
