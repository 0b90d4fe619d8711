"""Download data sets that have a public address: resumable, checked, and put in place by one rename or not at all.

    python -m data.download NAME [--data-root DIR]

pooch checks the MD5 of what is downloaded. A file that the user put there is used as it is and never replaced. pooch's
own downloader and processors are not used: they start an interrupted download again from the first byte, report a web
page that a host sent instead of the file as a wrong checksum only, and unpack in place without checking the members.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import pooch
import requests
from tqdm import tqdm

from .errors import DataError
from .registry import entries, match, resolve
from .resource import RemoteFile, Resource
from .storage.archives import unpack
from .storage.files import exclusive_lock
from .storage.folders import find_archive, find_folder, holds, kind
from .storage.streams import exit_code

TIMEOUTS = (10.0, 30.0)  # seconds: to connect, and between two chunks of the answer
ATTEMPTS = 4
PAUSE = 1.0  # seconds before the second attempt; doubled for each further one
CHUNK = 1 << 16  # bytes

#: What can be downloaded besides data sets.
OTHERS = {"glove": "data.text.vector_search:RESOURCE"}


def resource_names() -> list[str]:
    """Return the names that `find_resource` knows, except those of embedded data sets."""
    return [*(entry.name for entry in entries() if entry.resource is not None), *OTHERS]


def find_resource(name: str) -> Resource | None:
    """Return what is downloaded under a name (any case), None for an embedded data set. Raises DataError."""
    embedded = [entry.name for entry in entries() if entry.embedded]
    name = match(name, [*resource_names(), *embedded])
    if name in embedded:
        return None
    targets = OTHERS | {entry.name: entry.resource for entry in entries()}
    resource = resolve(targets[name], name)
    if not isinstance(resource, Resource):
        raise DataError(f"{name}: its resource is a {type(resource).__name__}; expected data.resource.Resource")
    return resource


def locate(resource: Resource, root: Path) -> tuple[Path, list[str]]:
    """Return the folder of a data set, and notes if it lies elsewhere than expected; unpack or download it if need be.

    Found is what `find_folder` finds. Otherwise an archive in `root` is unpacked, and failing that, the data set is
    downloaded. Raises DataError.
    """
    found = resource.markers and find_folder(
        root, resource.result, resource.markers, title=resource.name, distinctive=resource.distinctive
    )
    return found or (fetch(resource, root), [])


def fetch(resource: Resource, root: Path) -> Path:
    """Unpack or download what is missing of `resource` into `root` and return where it lies.

    What is there already is left alone. An archive that the user put into `root` is unpacked and kept; one that was
    downloaded is removed after it is unpacked. An interrupted download leaves a `.part` file, which the next call
    completes. `DataError` says what was tried, why it failed, and which file to put where by hand.
    """
    if _is_complete(resource, root):
        return root / resource.result  # before anything is written: the root may be read-only
    if unpack_provided(resource, root):
        return root / resource.result
    if not resource.files:
        raise DataError(f"{resource.name} cannot be downloaded: put {resource.by_hand} into {root}")
    with _locked(resource.name, root):  # of several runs that start together, one downloads and the rest wait
        for file in resource.files if not _is_complete(resource, root) else ():
            if not _is_present(resource, file, root):
                _fetch_file(resource, file, root)
    return root / resource.result


def unpack_provided(resource: Resource, root: Path, markers: Sequence[str] = ()) -> bool:
    """Unpack the archive of this data set that the user put into `root`; return whether there was one.

    The archive is kept. `markers`: what is wanted of it, where that is less than all that the resource has. What it
    unpacks to is put in place as `unpack` does it, and an archive that does not hold it is a DataError.
    """
    folders = dict.fromkeys([root, *((root / file.path).parent for file in resource.files)])
    archive = next(filter(None, (find_archive(folder, resource.archive_stems) for folder in folders)), None)
    if archive is None:
        return False
    wanted, place = tuple(markers) or resource.markers, root / resource.result
    with _locked(resource.name, root):
        if wanted:
            if not (kind(place) == "folder" and holds(place, wanted)):  # unless another run has just unpacked it
                unpack(archive, root, resource.result, wanted)
        elif not _is_complete(resource, root):
            unpack(archive, root)
            _check_content(resource, archive, root)
    return True


def _is_complete(resource: Resource, root: Path) -> bool:
    place = root / resource.result
    if resource.markers and kind(place) == "folder" and holds(place, resource.markers):
        return True
    return bool(resource.files) and all(_is_present(resource, file, root) for file in resource.files)


def _is_present(resource: Resource, file: RemoteFile, root: Path) -> bool:
    # With markers, an archive's folder is there only if it has them: it may as well be empty.
    return not (file.holds and resource.markers) and file.find(root) is not None


@contextlib.contextmanager
def _locked(name: str, root: Path) -> Iterator[None]:
    """Hold the lock of `root`, which is created; an OSError inside becomes a DataError: the root cannot be written."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(root / ".lock"):
            yield
    except OSError as error:
        where = error.filename if error.filename and os.path.lexists(error.filename) else root  # one of another user
        raise DataError(f"{name}: cannot write to {where} ({_reason(error)}); set another --data-root") from error


def _fetch_file(resource: Resource, file: RemoteFile, root: Path) -> None:
    """Download `file`, and unpack it if it is an archive."""
    path = root / file.path
    _download(resource.name, file, path)
    if not file.holds:
        return
    try:
        if resource.markers:
            unpack(path, root, resource.result, resource.markers)
        else:
            unpack(path, root)
            _check_content(resource, path, root)
    except DataError:
        path.unlink(missing_ok=True)
        raise
    path.unlink()


def _check_content(resource: Resource, archive: Path, root: Path) -> None:
    wanted = [name for file in resource.files for name in file.holds]
    if not all(kind(root / name) for name in wanted):
        raise DataError(f"{archive}: does not hold {' and '.join(wanted)}; remove it and fetch {resource.name} again")


def _download(name: str, file: RemoteFile, path: Path) -> None:
    pooch.get_logger().setLevel("WARNING")  # its notices would break the progress bar
    by_hand = f"download it in a browser and put it at {path}, or run the command again"
    while True:
        downloader = _ResumingDownloader(path.with_name(path.name + ".part"))
        try:
            pooch.retrieve(file.url, f"md5:{file.md5}", path.name, path.parent, downloader=downloader)
            return
        except OSError as error:  # every exception of requests is one
            if error.errno is not None and not isinstance(error, requests.RequestException):
                raise  # of the disk, not of the network
            raise DataError(f"{name}: could not download {file.url} ({_reason(error)}); {by_hand}") from error
        except ValueError as error:
            # pooch has removed the file. A resumed one may have begun with bytes of another version, so it is
            # downloaded again from the first byte. One that came in a single answer is simply another file.
            if not downloader.resumed:
                raise DataError(
                    f"{name}: what {file.url} sent is not the expected file (its md5 is not {file.md5}), so it "
                    f"was removed; {by_hand}"
                ) from error


class _ResumingDownloader:
    """A downloader for pooch that keeps what has arrived in `part` and asks only for the rest.

    It makes `ATTEMPTS` attempts when an answer is cut short. It gives up at once if the host never answered or the
    answer will not change (404). `resumed`: whether the file came in more than one answer.
    """

    def __init__(self, part: Path) -> None:
        self.part = part
        self.resumed = self.answered = False

    def __call__(self, url: str, output_file: str, _: object) -> None:
        """Download `url` to `output_file`."""
        with tqdm(desc=self.part.stem, unit="B", unit_scale=True, leave=False, disable=None) as bar:
            for attempt in range(ATTEMPTS):
                try:
                    self._request_rest(url, bar)
                    break
                except requests.RequestException as error:
                    status = getattr(error.response, "status_code", None)
                    final = status is not None and status < 500 and status not in (408, 429)
                    if final or not self.answered or attempt == ATTEMPTS - 1:
                        raise
                    time.sleep(PAUSE * 2**attempt)
                except ValueError as error:  # from below requests: the address that it was sent on to, or of the proxy
                    raise requests.exceptions.InvalidURL(error) from error
        os.replace(self.part, output_file)

    def _request_rest(self, url: str, bar: tqdm[NoReturn]) -> None:
        """Request once what is missing; raise `requests.RequestException` if it does not arrive completely."""
        have = self.part.stat().st_size if self.part.exists() else 0
        # With a compressed transfer the offsets in the part would mean nothing.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUTS) as answer:
            self.answered = True
            start, total = _content_range(answer)
            if answer.status_code == 416 and total == have:
                self.resumed = True
                return
            if answer.status_code == 416 or (answer.status_code == 206 and start != have):
                self.part.unlink()
                raise requests.ConnectionError("the file on the server has changed since the download began")
            answer.raise_for_status()
            if answer.headers.get("Content-Type", "").startswith("text/html"):
                raise requests.RequestException("the server sent a web page instead of the file", response=answer)
            continues = answer.status_code == 206
            self.resumed |= continues
            bar.total, bar.n = total, have if continues else 0
            cut = False
            with self.part.open("ab" if continues else "wb") as file:
                try:
                    for chunk in answer.iter_content(CHUNK):
                        file.write(chunk)
                        bar.update(len(chunk))
                except requests.exceptions.ChunkedEncodingError:
                    cut = True
        arrived = self.part.stat().st_size
        # Old versions of the libraries do not notice a short answer, so the size is compared here.
        if cut or (total is not None and arrived != total):
            raise requests.ConnectionError(f"the connection was cut after {arrived} of {total or '?'} bytes")


def _content_range(answer: requests.Response) -> tuple[int | None, int | None]:
    """Return (first byte of this answer, size of the whole file); None for what the server does not say."""
    extent, _, whole = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    if answer.status_code in (206, 416):
        first = extent.partition("-")[0]
        return int(first) if first.isdigit() else None, int(whole) if whole.isdigit() else None
    length = answer.headers.get("Content-Length", "")
    encoded = answer.headers.get("Content-Encoding", "identity") != "identity"
    return 0, int(length) if length.isdigit() and not encoded else None


def _reason(error: BaseException) -> str:
    """Return in a few words why a request failed: the libraries wrap the cause in several layers of text."""
    response = getattr(error, "response", None)
    if isinstance(error, requests.HTTPError) and response is not None:
        return f"the server answered {response.status_code} {response.reason}".strip()
    if isinstance(error, requests.exceptions.ProxyError) and error.args and isinstance(error.args[0], BaseException):
        return f"no connection through the proxy: {_reason(error.args[0])}"
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
    parser = argparse.ArgumentParser(prog="python -m data.download", description="Download a data set by name.")
    parser.add_argument("name", metavar="NAME", help=f"one of {', '.join(resource_names())} (any case)")
    parser.add_argument("--data-root", default="datasets", metavar="DIR", help="default: ./datasets")
    arguments = parser.parse_args(argv)
    try:
        resource = find_resource(arguments.name)
        if resource is None:
            print(f"{arguments.name} is embedded: nothing to download")
        else:
            # No shell expands the ~ of --data-root=~/datasets.
            folder, notes = locate(resource, Path(os.path.expanduser(arguments.data_root)))
            print(*notes, f"{resource.name}: {folder}", sep="\n")
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command continues where it stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
