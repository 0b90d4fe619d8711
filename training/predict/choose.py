"""Which weights a command means: the result that it names, and the turn; nothing here needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..checkpoints.info import FileType, read_json
from ..errors import UsageError, reason
from ..report.results import Result, named_folder
from ..weights.info import RUN_FILE, KeptRun, KeptTurn, before_path, models_folder, turn_path


@dataclass(frozen=True)
class Kept:
    """The JSON files of the weights of a turn, and where they are."""

    folder: Path
    run: KeptRun
    turn: KeptTurn
    reported: int
    """The epoch of the turn that the results report."""
    result: Result


def choose(
    text: str,
    *,
    dataset: str | None = None,
    model: str | None = None,
    method: str | None = None,
    turn: int | None = None,
) -> Kept:
    """Return the kept weights of a result in the folder that `text` names; None: whatever there is, if it is one.

    Of the turns the one that is best on validation is taken, the earlier of equals. Raises UsageError.
    """
    folder = named_folder(text)
    asked = {"dataset": dataset, "model": model, "method": method}
    fitting = [one for one in folder.results if all(_fits(one, key, name) for key, name in asked.items())]
    if not fitting:
        words = " ".join(name for name in asked.values() if name is not None)
        raise UsageError(f"{folder.path}: there is no result of {words} in it; there are {_listed(folder.results)}")
    if len(fitting) > 1:
        differing = [f"--{key}" for key in asked if len({getattr(one.record, key) for one in fitting}) > 1]
        raise UsageError(
            f"{folder.path}: holds several results ({_listed(fitting)}); choose one with {' and '.join(differing)}"
        )
    return _kept(fitting[0], turn)


def _fits(result: Result, key: str, name: str | None) -> bool:
    if key == "model" and name is not None and name == (result.info.network or {}).get("function"):
        return True  # a network of the user's, as the run's command named it
    return name is None or str(getattr(result.record, key)).casefold() == name.casefold()


def _listed(results: Sequence[Result]) -> str:
    return ", ".join(f"{one.record.dataset} {one.record.model} {one.method}" for one in results)


def _kept(result: Result, turn: int | None) -> Kept:
    place = models_folder(result.path.parent, *result.run, result.method)
    folder = place / _run_in(place, result)
    run = _read(folder / RUN_FILE, KeptRun)
    epochs = result.summary.chosen_epoch
    turns = [_turn(folder, number, epochs) for number in _turns(folder)]
    if not turns:
        raise UsageError(f"{folder}: holds the weights of no turn; run the command again")
    if turn is not None:
        numbers = ", ".join(str(one.turn) for one in turns)
        turns = [one for one in turns if one.turn == turn]
        if not turns:
            raise UsageError(f"--turn {turn}: {folder} has no weights of it; there are those of turn {numbers}")
    best = max(turns, key=lambda one: (one.val_acc, -one.turn))
    reported = epochs[best.turn - 1] if best.turn <= len(epochs) else best.epoch
    return Kept(folder, run, best, reported, result)


def _run_in(place: Path, result: Result) -> str:
    """Return the name of the run that the results are of, whose weights are in `place`. Raises UsageError."""
    run = result.info.run
    if run is None:
        raise UsageError(f"{result.path}: is from before weights were kept; run the command again")
    if (place / run).is_dir():
        return run
    again = "run the command again"
    if result.info.config.get("keep_best") is False:
        raise UsageError(f"{result.path}: the run kept no weights; {again} with --set keep_best=true")
    if others := sorted(path.name for path in place.glob("*Z")):
        raise UsageError(f"{place}: the weights are of another run ({others[-1]}) than the results ({run}); {again}")
    raise UsageError(
        f"{place / run}: there is no such folder, and the weights should be in it; put it back, or {again}"
    )


def _turn(folder: Path, number: int, epochs: Sequence[int]) -> KeptTurn:
    """Return what is kept of a turn: the epoch before the last kept one, where a killed run has not reported that."""
    kept, before = _read(turn_path(folder, number), KeptTurn), before_path(folder, number)
    if before.exists() and number <= len(epochs) and kept.epoch != epochs[number - 1]:
        return _read(before, KeptTurn)
    return kept


def _turns(folder: Path) -> list[int]:
    return sorted(int(path.stem[4:]) for path in folder.glob("turn*.json") if path.stem[4:].isdecimal())


def _read(path: Path, kind: type[FileType]) -> FileType:
    try:
        return read_json(path, kind)
    except FileNotFoundError:
        raise UsageError(f"{path}: is missing; put it back, or run the command again") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({reason(error)})") from None
    except ValueError as error:
        problem = str(error).partition("\n")[0]
        raise UsageError(f"{path}: cannot be used ({problem}); run the command again") from None
