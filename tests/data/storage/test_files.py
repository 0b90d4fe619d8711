"""Files that are replaced as a whole, and locks between processes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from data.storage import files
from data.storage.files import atomic_write, atomic_write_text, exclusive_lock, remove_stale


def test_the_new_text_replaces_the_old_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    atomic_write_text(path, "one\r\n")
    atomic_write_text(path, "zwö\n")
    assert path.read_bytes() == "zwö\n".encode()
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_block_that_fails_leaves_the_old_file(tmp_path: Path, failure: BaseException) -> None:
    path = tmp_path / "a.json"
    atomic_write_text(path, "one")

    def fail() -> None:
        with atomic_write(path) as file:
            file.write(b"tw")
            raise failure

    with pytest.raises(type(failure)):
        fail()
    assert path.read_text() == "one"
    assert os.listdir(tmp_path) == ["a.json"]


def test_the_content_is_on_the_disk_before_the_file_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (events.append("fsync"), fsync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda *names: (events.append("replace"), replace(*names)))
    atomic_write_text(tmp_path / "a.json", "one")
    assert events[:2] == ["fsync", "replace"]


def test_only_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    for name in (".a.json.123.tmp", "a.json", ".hidden", "b.tmp"):
        (tmp_path / name).write_text("x")
    remove_stale(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".hidden", "a.json", "b.tmp"]


def test_threads_that_write_the_same_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    both_open = threading.Barrier(2)
    failures: list[BaseException] = []

    def write(letter: bytes) -> None:
        try:
            with atomic_write(path) as file:
                both_open.wait(10)
                file.write(1000 * letter)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert path.read_bytes() in (1000 * b"a", 1000 * b"b")
    assert os.listdir(tmp_path) == ["a.json"]


HOLD = """
import sys
from pathlib import Path
from data.storage.files import exclusive_lock
with exclusive_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_keeps_other_processes_out_until_its_holder_ends(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(BlockingIOError), exclusive_lock(path, wait=False):
                pass
        finally:
            holder.kill()
    with exclusive_lock(path, wait=False), pytest.raises(BlockingIOError), exclusive_lock(path, wait=False):
        pass
    with exclusive_lock(path):
        pass


@pytest.mark.parametrize("failure", [OSError(errno.ENOLCK, "No locks available"), NotImplementedError("no flock")])
def test_where_there_are_no_locks_every_process_goes_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    class Lockless(files.FileLock):  # type: ignore[misc,valid-type]
        def acquire(self, *_: object, **__: object) -> None:  # type: ignore[override]
            raise failure

    monkeypatch.setattr(files, "FileLock", Lockless)
    done = []
    with exclusive_lock(tmp_path / ".lock"):
        done.append(1)
    assert done == [1]


def test_a_lock_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("where a folder should be")
    with pytest.raises(OSError, match="file"), exclusive_lock(tmp_path / "file" / ".lock"):
        pass
