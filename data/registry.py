"""The data sets by name: what is known about each before any of its files is read, and how to add one.

A plug-in is one Python file outside the packages that calls `register_dataset`:

    from data import DatasetEntry, register_dataset

    def load(root, image_size):
        from data import Images  # here, because it imports torch
        ...
        return Images(classes=["cat", "dog"], train=(images, labels), test=(test_images, test_labels))

    register_dataset(DatasetEntry("pets", "vision", "cats and dogs, 64x64 RGB", load))

This module must not import torch, numpy or anything else that is slow to import: the command line reads it to
answer `--help`, `--list` and a misspelled name. That is why the entries below name their loaders as strings, and why a
plug-in should import what is slow inside its function.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from importlib import import_module
from typing import Any, Literal

from .errors import DataError
from .resource import Resource

Task = Literal["vision", "text"]

#: The augmentations of images, from weakest to strongest (see `data.vision.augment`).
AUGMENTATIONS = ("none", "basic", "strong")


@dataclass(frozen=True)
class DatasetEntry:
    """Everything about a data set that is known without reading it.

    `load` is called with positional arguments when the data is needed and reads it whole:

    - vision: `load(root: Path, image_size: int) -> data.vision.images.Images`
    - text: `load(root: Path) -> data.text.source.Source`

    `root` is the data root, which need not exist yet. A loader reports missing or unusable files as `DataError`, and
    may call `data.download.locate(resource, root)` to find, unpack or download them. Resizing, tokenizing, the
    vocabulary, the split into train and validation, and batches are the library's business.
    """

    name: str
    """As it is written in results and file names: letters, digits and `_ . + -`. Users may type it in any case."""
    task: Task
    about: str
    """One line for `--list`."""
    load: Callable[..., Any] | str
    """A function, or "package.module:function", imported when it is first needed."""
    _: KW_ONLY
    embedded: bool = False
    """Whether the data comes with the installed packages, so that there is nothing to download."""
    resource: Resource | str | None = None
    """What `python -m data.download NAME` fetches: a `Resource`, or "package.module:CONSTANT"."""
    augmentation: str = "strong"
    """Vision: what "auto" means for this data set, one of `AUGMENTATIONS`."""
    image_size: int = 32
    """Vision: the default side of an image in pixels."""
    max_len: int = 128
    """Text: the default number of tokens that are read of a document."""

    def __post_init__(self) -> None:
        """Raise `DataError` for a value that could only fail later."""
        where = f"data set {self.name!r}"
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", self.name):
            raise DataError(f"{where}: a name consists of letters, digits and _ . + -; rename it")
        if self.task not in ("vision", "text"):
            raise DataError(f'{where}: task: got {self.task!r}; expected "vision" or "text"')
        if not callable(self.load) and ":" not in str(self.load):
            raise DataError(f'{where}: load: got {self.load!r}; expected a function or "package.module:function"')
        if self.augmentation not in AUGMENTATIONS:
            expected = ", ".join(AUGMENTATIONS)
            raise DataError(f"{where}: augmentation: got {self.augmentation!r}; expected one of {expected}")
        if self.image_size < 1 or self.max_len < 1:
            raise DataError(f"{where}: image_size and max_len must be at least 1")


_ENTRIES: dict[str, DatasetEntry] = {}


class _Descriptions(Mapping[str, str]):
    """A live view of the registry: name -> `about` of the data sets of one task, in the order of registration."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def __getitem__(self, name: str) -> str:
        found = _ENTRIES[name]
        if found.task != self._task:
            raise KeyError(name)
        return found.about

    def __iter__(self) -> Iterator[str]:
        return (name for name, found in _ENTRIES.items() if found.task == self._task)

    def __len__(self) -> int:
        return sum(1 for _ in self)


#: The data sets of each task, spelled as in results, with a description of one line.
VISION: Mapping[str, str] = _Descriptions("vision")
TEXT: Mapping[str, str] = _Descriptions("text")


def register_dataset(entry: DatasetEntry) -> None:
    """Add a data set to those that the commands know.

    Raises:
        DataError: another data set, of either task, has this name in any case. Registering the same data set again,
            as a plug-in that is imported twice does, is fine: the later entry counts.
    """
    taken = next((other for name, other in _ENTRIES.items() if name.lower() == entry.name.lower()), None)
    if taken is not None and _identity(taken) != _identity(entry):
        raise DataError(f"data set {entry.name!r}: there is already a {taken.task} data set {taken.name}; rename it")
    _ENTRIES[entry.name] = entry


def _identity(entry: DatasetEntry) -> tuple[str, str, str]:
    # A plug-in that is run a second time defines its function anew, under the same name.
    load: Any = entry.load
    where = load if isinstance(load, str) else f"{load.__module__}:{getattr(load, '__qualname__', type(load))}"
    return entry.name, entry.task, where


def entry(name: str, task: Task) -> DatasetEntry:
    """Return the entry of a data set, by its name in any case. Raises DataError as `canonical` does."""
    return _ENTRIES[canonical(name, task)]


def entries() -> list[DatasetEntry]:
    """Return all entries, in the order of registration."""
    return list(_ENTRIES.values())


def canonical(name: str, task: Task) -> str:
    """Return the data set's name as it is spelled in results, whatever the case of `name`.

    `DataError` for any other name lists the known ones, and says so if the name belongs to the other task.
    """
    mine, other, program = (VISION, TEXT, "nlpmain.py") if task == "vision" else (TEXT, VISION, "cvmain.py")
    if name.strip().lower() in {right.lower() for right in other}:
        right = match(name, other)
        raise DataError(f"{right} is not a {task} data set: use {program} for it. Known: {', '.join(mine)}")
    return match(name, mine, f"{task} data set")


def match(name: str, known: Iterable[str], what: str = "data set") -> str:
    """Return the member of `known` that equals `name` but for case; `DataError` lists them and names the nearest."""
    spelled = {right.lower(): right for right in known}
    wanted = name.strip().lower()
    if wanted in spelled:
        return spelled[wanted]
    near = difflib.get_close_matches(wanted, spelled, n=1)
    hint = f"did you mean {spelled[near[0]]}? " if near else ""
    raise DataError(f"unknown {what} {name!r}: {hint}Known: {', '.join(spelled.values())}")


def resolve(target: Any, what: str) -> Any:
    """Import what "package.module:name" refers to; return anything but a string as it is.

    Raises DataError, which starts with `what`, where it cannot be imported.
    """
    if not isinstance(target, str):
        return target
    module, _, attribute = target.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise DataError(f"{what}: cannot import {target} ({error}); install what is missing, or correct it") from error


for _entry in (
    DatasetEntry(
        "tinyImageNet",
        "vision",
        "natural images of 200 classes (any number in wnids.txt), 64x64 RGB",
        "data.vision.tiny_imagenet:load",
        resource="data.vision.tiny_imagenet:RESOURCE",
    ),
    DatasetEntry(
        "cifar10",
        "vision",
        "natural images of 10 classes, 32x32 RGB",
        "data.vision.cifar:load_cifar10",
        resource="data.vision.cifar:CIFAR10",
    ),
    DatasetEntry(
        "cifar100",
        "vision",
        "natural images of 100 classes, 32x32 RGB",
        "data.vision.cifar:load_cifar100",
        resource="data.vision.cifar:CIFAR100",
    ),
    DatasetEntry(
        "fashionMNIST",
        "vision",
        "articles of clothing in 10 classes, 28x28 gray",
        "data.vision.fashion_mnist:load",
        resource="data.vision.fashion_mnist:RESOURCE",
        augmentation="basic",  # there is no color to jitter
    ),
    DatasetEntry(
        "digits",
        "vision",
        "handwritten digits, 8x8 gray (embedded: nothing to download)",
        "data.vision.digits:load",
        embedded=True,
        augmentation="none",  # a mirrored digit is another digit, or none
        image_size=16,
    ),
    DatasetEntry("agnews", "text", "news in 4 classes", "data.text.agnews:load", resource="data.text.agnews:RESOURCE"),
    DatasetEntry(
        "dbpedia",
        "text",
        "first lines of encyclopedia articles in 14 classes",
        "data.text.dbpedia:load",
        resource="data.text.dbpedia:RESOURCE",
    ),
    DatasetEntry(
        "imdb",
        "text",
        "film reviews, positive or negative (to be fetched by hand)",
        "data.text.imdb:load",
        resource="data.text.imdb:RESOURCE",
        max_len=256,  # reviews are twice as long as the documents of the others
    ),
    DatasetEntry(
        "docstrings",
        "text",
        "docstrings of the installed packages, by package (embedded: nothing to download)",
        "data.text.docstrings:load",
        embedded=True,
    ),
):
    register_dataset(_entry)
