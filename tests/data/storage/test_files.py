"""Files that are replaced as a whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from data.storage.files import atomic_write, atomic_write_text, remove_stale


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


def test_what_a_killed_writer_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    for name in (".a.json.123.tmp", "a.json", ".hidden", "b.tmp"):
        (tmp_path / name).write_text("x")
    remove_stale(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".hidden", "a.json", "b.tmp"]
