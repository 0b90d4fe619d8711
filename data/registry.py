"""The data sets by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from .errors import DataError

if TYPE_CHECKING:
    pass


#: The data sets of each task, as they are written, and what they are in a few words.
VISION = {
    "tinyImageNet": "natural images of 200 classes (any number in wnids.txt), 64x64 RGB",
    "cifar10": "natural images of 10 classes, 32x32 RGB",
    "cifar100": "natural images of 100 classes, 32x32 RGB",
    "fashionMNIST": "articles of clothing in 10 classes, 28x28 gray",
    "digits": "handwritten digits, 8x8 gray (embedded: nothing to download)",
}


TEXT = {
    "agnews": "news in 4 classes",
    "dbpedia": "first lines of encyclopedia articles in 14 classes",
    "imdb": "film reviews, positive or negative (to be fetched by hand)",
    "docstrings": "docstrings of the installed packages, by package (embedded: nothing to download)",
}


def match(name: str, known: Iterable[str], what: str = "data set") -> str:
    """Return the member of `known` that is `name` but for case; `DataError` lists them and names the nearest."""
    spelled = {right.lower(): right for right in known}
    wanted = name.strip().lower()
    if wanted in spelled:
        return spelled[wanted]
    near = difflib.get_close_matches(wanted, spelled, n=1)
    hint = f"did you mean {spelled[near[0]]}? " if near else ""
    raise DataError(f"unknown {what} {name!r}: {hint}Known: {', '.join(spelled.values())}")


def canonical(name: str, task: Literal["vision", "text"]) -> str:
    """Return the data set's name as it is written, whatever the case of `name`.

    `DataError` on any other name lists the right ones, and says so if the name belongs to the other task.
    """
    mine, other, program = (VISION, TEXT, "nlpmain.py") if task == "vision" else (TEXT, VISION, "cvmain.py")
    if name.strip().lower() in {right.lower() for right in other}:
        right = match(name, other)
        raise DataError(f"{right} is not a {task} data set: use {program} for it. Known: {', '.join(mine)}")
    return match(name, mine, f"{task} data set")
