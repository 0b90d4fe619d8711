"""Where results go: the files of a method, the folder, the lock that keeps two commands apart, and write errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from data.storage.files import atomic_write_text, check_writable, exclusive_lock, remove_stale

from ..config.load import method_title
from ..config.paths import user_path
from ..errors import UsageError, reason


def csv_path(out: Path, dataset: str, model: str, method: str) -> Path:
    """Return where the epochs of a method are recorded."""
    return out / f"{dataset}_{model}_{method}.csv"


def json_path(out: Path, dataset: str, model: str, method: str) -> Path:
    """Return where everything else about a method is recorded."""
    return out / f"{dataset}_{model}_{method}.json"


def prepare_output(path: str | Path) -> Path:
    """Make the folder of the results and return it; raise UsageError if nothing can be written there."""
    out = user_path(str(path))
    try:
        out.mkdir(parents=True, exist_ok=True)
        check_writable(out)
    except OSError as error:
        raise UsageError(
            f"{out}: results cannot be written there ({reason(error)}); name another folder with --out"
        ) from None
    return out


@contextlib.contextmanager
def lock_results(out: Path, dataset: str, model: str, method: str) -> Iterator[None]:
    """Be the only command that writes this method's results in `out`, and remove what a killed one left there.

    Raises UsageError while another command does.
    """
    path = csv_path(out, dataset, model, method)
    with contextlib.ExitStack() as held:
        with write_errors(path):
            try:
                held.enter_context(exclusive_lock(path.with_name(f".{path.stem}.lock"), wait=False))
            except BlockingIOError:
                raise UsageError(
                    f"{out}: another command is at work on {dataset} {model} with {method_title(method)} there; wait "
                    "for its end, or name another folder with --out"
                ) from None
            for file in (path, json_path(out, dataset, model, method)):
                remove_stale(out, file.name)
        yield


@contextlib.contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn a failure to write `path` into a UsageError."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({reason(error)}); name another folder with --out") from None


def replace_text(path: Path, text: str) -> None:
    """Write the file as a whole. Raises UsageError."""
    with write_errors(path):
        atomic_write_text(path, text)
