"""Fetch the data sets that have a public address: resumed, checked, and in place by one rename or not at all.

    python -m data.download NAME [--data-root DIR]

Checksums guard what is downloaded here. A file that the user put there is used as it is, and never replaced.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pooch
import requests
from tqdm import tqdm

from .errors import DataError
from .registry import TEXT, VISION, match
from .storage.archives import unpack
from .storage.locks import locked

TIMEOUTS = (10.0, 30.0)  # seconds: to connect, between two pieces of the answer
ATTEMPTS = 4
PAUSE = 1.0  # seconds before the second attempt; doubles with each further one
PIECE = 1 << 16  # bytes


@dataclass(frozen=True)
class RemoteFile:
    """A file to download to `path` (relative to the data root).

    `holds`: what an archive unpacks to; such a file is wanted until all of it is there. `also`: other places
    where the user may have put a plain file.
    """

    path: str
    url: str
    md5: str
    holds: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    def find(self, root: Path) -> Path | None:
        """Return where the file (or what it holds) lies under `root`, None if it is not there."""
        if self.holds:
            return root / self.holds[0] if all((root / name).exists() for name in self.holds) else None
        return next((root / name for name in (self.path, *self.also) if (root / name).is_file()), None)


@dataclass(frozen=True)
class Resource:
    """What one name stands for: the files to fetch, and `result`, where they lie then under the data root.

    `by_hand`: for a resource without an address, what to put under the root, and where it is to be had.
    """

    name: str
    result: str
    files: tuple[RemoteFile, ...] = ()
    by_hand: str = ""


def _archive(name: str, result: str, path: str, url: str, md5: str, *holds: str) -> Resource:
    return Resource(name, result, (RemoteFile(path, url, md5, holds or (result,)),))


def _fashion(stem: str, md5: str) -> RemoteFile:
    folder = "FashionMNIST/raw/"
    url = f"https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/{stem}.gz"
    return RemoteFile(f"{folder}{stem}.gz", url, md5, also=(f"{folder}{stem}", f"{stem}.gz", stem))


def _agnews(path: str, md5: str) -> RemoteFile:
    return RemoteFile(path, f"https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/{path}", md5)


_ALL = (
    _archive(
        "tinyImageNet",
        "tiny-imagenet-200",
        "tiny-imagenet-200.zip",
        "https://cs231n.stanford.edu/tiny-imagenet-200.zip",
        "90528d7ca1a48142e341f4ef8d21d0de",
    ),
    _archive(
        "cifar10",
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "c58f30108f718f92721af3b95e74349a",
    ),
    _archive(
        "cifar100",
        "cifar-100-python",
        "cifar-100-python.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        "eb9058c3a382ffc7106e4002c42a8d85",
    ),
    Resource(
        "fashionMNIST",
        "FashionMNIST/raw",
        (
            _fashion("train-images-idx3-ubyte", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
            _fashion("train-labels-idx1-ubyte", "25c81989df183df01b3e8a0aad5dffbe"),
            _fashion("t10k-images-idx3-ubyte", "bef4ecab320f06d8554ea6380940ec79"),
            _fashion("t10k-labels-idx1-ubyte", "bb300cfdad3c16e7a12a480ee83cd310"),
        ),
    ),
    Resource(
        "agnews",
        "ag_news_csv",
        (
            _agnews("ag_news_csv/train.csv", "b1a00f826fdfbd249f79597b59e1dc12"),
            _agnews("ag_news_csv/test.csv", "d52ea96a97a2d943681189a97654912d"),
        ),
    ),
    _archive(
        "dbpedia",
        "dbpedia_csv",
        "dbpedia_csv.tar.gz",
        "https://drive.usercontent.google.com/download?id=0Bz8a_Dbh9QhbQ2Vic1kxMmZZQ1k&export=download&confirm=t",
        "dca7b1ae12b1091090db52aa7ec5ca64",
    ),
    Resource(
        "imdb",
        "IMDB_Dataset.csv",
        by_hand="IMDB_Dataset.csv (or 'IMDB Dataset.csv', columns review,sentiment), or the folder aclImdb/ of "
        "https://ai.stanford.edu/~amaas/data/sentiment/",
    ),
    _archive(
        "glove",
        ".",
        "glove.6B.zip",
        "https://nlp.stanford.edu/data/glove.6B.zip",
        "056ea991adb4740ac6bf1b6d9b50408b",
        *(f"glove.6B.{width}d.txt" for width in (50, 100, 200, 300)),
    ),
)

#: What can be fetched, by the name that the user writes.
RESOURCES = {resource.name: resource for resource in _ALL}


def fetch(resource: Resource, root: Path) -> Path:
    """Bring `resource` under `root` and return where it lies; what is there already is left alone.

    An archive that the user put into `root` is unpacked and kept; one that was downloaded is removed once it
    is unpacked. A cut download leaves a `.part` file, from which the next call goes on. `DataError` says what
    was tried, why it failed, and which file to put where by hand.
    """
    if not resource.files:
        raise DataError(f"{resource.name} cannot be downloaded: put {resource.by_hand} into {root}")
    if all(file.find(root) for file in resource.files):
        return root / resource.result  # asked before anything is written: the root may be read-only
    try:
        root.mkdir(parents=True, exist_ok=True)
        with alone(root):
            for file in resource.files:
                if file.find(root) is None:
                    _bring(resource.name, file, root)
    except OSError as error:
        raise DataError(f"{resource.name}: cannot write to {root} ({_reason(error)}); give --data-root") from error
    return root / resource.result


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Let one process at a time work in `folder`: of several that start together, one fetches and the rest wait.

    Where the system has no file locks every process goes ahead; each write is atomic, so they only do it twice.
    """
    with locked(folder / ".lock", wait=True):
        yield


def _bring(name: str, file: RemoteFile, root: Path) -> None:
    """Download `file`, and unpack it if it is an archive."""
    path = root / file.path
    placed = path.is_file()
    if not placed:
        _download(name, file, path)
    if not file.holds:
        return
    try:
        unpack(path, root)
        if file.find(root) is None:
            raise DataError(f"{path}: does not hold {' and '.join(file.holds)}; remove it and fetch {name} again")
    except DataError:
        if not placed:
            path.unlink(missing_ok=True)
        raise
    if not placed:
        path.unlink()


def _download(name: str, file: RemoteFile, path: Path) -> None:
    pooch.get_logger().setLevel("WARNING")  # its notices would cut the progress bar
    by_hand = f"download it in a browser and put it at {path}, or run the command again"
    while True:
        pull = _Resuming(path.with_name(path.name + ".part"))
        try:
            pooch.retrieve(file.url, f"md5:{file.md5}", path.name, path.parent, downloader=pull)
            return
        except requests.RequestException as error:
            raise DataError(f"{name}: could not download {file.url} ({_reason(error)}); {by_hand}") from error
        except ValueError as error:
            # Pooch has removed the file. One that was pieced together may have had a stale beginning: once
            # more, and this time from the first byte. One that came in one piece is simply another file.
            if not pull.resumed:
                raise DataError(
                    f"{name}: what {file.url} sent is not the expected file (its md5 is not {file.md5}), so it "
                    f"was removed; {by_hand}"
                ) from error


class _Resuming:
    """A downloader for pooch that keeps what has arrived in `part` and asks only for the rest.

    It gives up at once on a host that never answered and on an answer that will not change (404), and tries
    `ATTEMPTS` times when an answer was cut short. `resumed`: whether the file was pieced together.
    """

    def __init__(self, part: Path) -> None:
        self.part = part
        self.resumed = self.answered = False

    def __call__(self, url: str, output_file: str, _: object) -> None:
        """Download `url` to `output_file`."""
        with tqdm(desc=self.part.stem, unit="B", unit_scale=True, leave=False, disable=None) as bar:
            for attempt in range(ATTEMPTS):
                try:
                    self._pull(url, bar)
                    break
                except requests.RequestException as error:
                    status = getattr(error.response, "status_code", None)
                    settled = status is not None and status < 500 and status not in (408, 429)
                    if settled or not self.answered or attempt == ATTEMPTS - 1:
                        raise
                    time.sleep(PAUSE * 2**attempt)
        os.replace(self.part, output_file)

    def _pull(self, url: str, bar: tqdm[NoReturn]) -> None:
        """Ask for what is missing once; `requests.RequestException` if it did not arrive whole."""
        have = self.part.stat().st_size if self.part.exists() else 0
        # A compressed transfer would make the offsets of the part meaningless.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUTS) as answer:
            self.answered = True
            start, total = _extent(answer)
            if answer.status_code == 416 and total == have:
                self.resumed = True
                return
            if answer.status_code == 416 or (answer.status_code == 206 and start != have):
                self.part.unlink()
                raise requests.ConnectionError("the server has another file than the one begun")
            answer.raise_for_status()
            if answer.headers.get("Content-Type", "").startswith("text/html"):
                raise requests.RequestException("the server sent a web page instead of the file", response=answer)
            going_on = answer.status_code == 206
            self.resumed |= going_on
            bar.total, bar.n = total, have if going_on else 0
            cut = False
            with self.part.open("ab" if going_on else "wb") as file:
                try:
                    for piece in answer.iter_content(PIECE):
                        file.write(piece)
                        bar.update(len(piece))
                except requests.exceptions.ChunkedEncodingError:
                    cut = True
        arrived = self.part.stat().st_size
        # Old versions of the libraries take a short answer for a whole one, so the size is compared here.
        if cut or (total is not None and arrived != total):
            raise requests.ConnectionError(f"the connection was cut after {arrived} of {total or '?'} bytes")


def _extent(answer: requests.Response) -> tuple[int | None, int | None]:
    """Return (first byte of this answer, size of the whole file) as far as the server says."""
    extent, _, whole = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    if answer.status_code in (206, 416):
        first = extent.partition("-")[0]
        return int(first) if first.isdigit() else None, int(whole) if whole.isdigit() else None
    length = answer.headers.get("Content-Length", "")
    encoded = answer.headers.get("Content-Encoding", "identity") != "identity"
    return 0, int(length) if length.isdigit() and not encoded else None


def _reason(error: BaseException) -> str:
    """Say in a few words why a request failed: the libraries wrap the cause in several layers of text."""
    response = getattr(error, "response", None)
    if isinstance(error, requests.HTTPError) and response is not None:
        return f"the server answered {response.status_code} {response.reason}".strip()
    if isinstance(error, requests.ConnectTimeout):
        return f"no connection within {TIMEOUTS[0]:g} s"
    if isinstance(error, requests.Timeout):
        return f"nothing arrived for {TIMEOUTS[1]:g} s"
    cause: BaseException | None = error
    seen: list[BaseException] = []
    while cause is not None and cause not in seen:
        seen.append(cause)
        inner = [getattr(cause, "reason", None), cause.__cause__, cause.__context__, *cause.args[:1]]
        cause = next((each for each in inner if isinstance(each, BaseException)), None)
    deepest = next((each for each in reversed(seen) if isinstance(each, OSError) and each.strerror), seen[-1])
    text = deepest.strerror if isinstance(deepest, OSError) and deepest.strerror else str(deepest)
    return " ".join(text.split()) or type(deepest).__name__


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, 2 after an error (one line on stderr), 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m data.download", description="Fetch a data set by name.")
    embedded = [name for name, about in (VISION | TEXT).items() if "embedded" in about]
    parser.add_argument("name", metavar="NAME", help=f"one of {', '.join(RESOURCES)} (any case)")
    parser.add_argument("--data-root", type=Path, default=Path("datasets"), metavar="DIR", help="default: ./datasets")
    arguments = parser.parse_args(argv)
    try:
        name = match(arguments.name, [*RESOURCES, *embedded])
        if name in embedded:
            print(f"{name} is embedded: nothing to download")
        else:
            print(f"{name}: {fetch(RESOURCES[name], arguments.data_root)}")
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
