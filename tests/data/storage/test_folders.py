"""A data set's folder is found where people leave it, and what cannot be seen is an error. No network, no GPU."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from data import DataError
from data.storage.folders import find_archive, find_folder, kind, names_in, stem

MARKERS = ("list.txt", "part_*")


def make(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or ("list.txt", "part_1"):
        (folder / name).write_text("x")
    return folder


def find(root: Path, *, distinctive: bool = False) -> tuple[Path, list[str]] | None:
    return find_folder(root, "set", MARKERS, title="sample", distinctive=distinctive)


def test_in_its_place_there_is_nothing_to_say(tmp_path: Path) -> None:
    make(tmp_path / "set")
    assert find(tmp_path) == (tmp_path / "set", [])


@pytest.mark.parametrize("where", ["set/set", "set/other", "outer/set", "set"])
def test_elsewhere_it_is_found_with_a_note(tmp_path: Path, where: str) -> None:
    root = tmp_path / "datasets with a spáce"
    make(root / where)
    if where == "set":  # the data root given as the data set's own folder
        root = root / "set"
        where = "."
    folder, notes = find(root) or (Path(), [])
    assert folder == root / where
    assert notes == [f"sample: read from {folder}; its usual place is {root / 'set'}"]


def test_an_empty_folder_in_the_right_place_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/.DS_Store").write_text("x")
    assert find(tmp_path) is None
    make(tmp_path / "outer/set")
    assert find(tmp_path) is not None


def test_a_root_of_another_name_is_taken_only_if_nothing_else_looks_like_it(tmp_path: Path) -> None:
    make(tmp_path)
    assert find(tmp_path) is None
    assert find(tmp_path, distinctive=True) is not None
    (tmp_path / "list.txt").unlink()
    assert find(tmp_path, distinctive=True) is None


def test_a_whole_data_set_comes_before_a_part_and_a_part_before_nothing(tmp_path: Path) -> None:
    make(tmp_path / "set", "part_1")
    assert find(tmp_path) == (tmp_path / "set", [])
    make(tmp_path / "set/set")
    folder, notes = find(tmp_path) or (Path(), [])
    assert (folder, len(notes)) == (tmp_path / "set/set", 1)


def test_of_two_that_fit_equally_well_none_is_guessed(tmp_path: Path) -> None:
    make(tmp_path / "a/set")
    make(tmp_path / "b/set")
    with pytest.raises(DataError, match=r"sample: found in .*a/set and in .*b/set; keep one"):
        find(tmp_path)


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "set").write_text("404: Not Found")
    with pytest.raises(DataError, match=r"set: is a file, and sample needs a folder of this name"):
        find(tmp_path)
    with pytest.raises(DataError, match=r"set: is a file; set --data-root"):
        find(tmp_path / "set")
    assert find(tmp_path / "absent") is None


def test_links_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    (tmp_path / "set").symlink_to("unmounted")
    with pytest.raises(DataError, match=r"set: is a link to unmounted, which is not there"):
        find(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(DataError, match=r"loop: cannot be read \(Too many levels"):
        kind(tmp_path / "loop")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes among files")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "list.txt")
    with pytest.raises(DataError, match=r"list\.txt: is a pipe or device, not a file"):
        kind(tmp_path / "list.txt")


def test_a_message_stays_one_line_whatever_the_name_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\\nb: cannot be read") as caught:
        names_in(tmp_path / "a\nb")
    assert "\n" not in str(caught.value)


def test_a_folder_without_rights_is_an_error_in_its_place_and_passed_by_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests may run as root, whom no permissions bind."""
    make(tmp_path / "set")
    make(tmp_path / "private/set")
    closed = {tmp_path / "private"}
    listdir, access = os.listdir, os.access

    def guarded(path: Path) -> list[str]:
        if Path(path) in closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", guarded)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) not in closed and access(path, mode))
    assert find(tmp_path) == (tmp_path / "set", [])
    closed.add(tmp_path / "set")
    with pytest.raises(DataError, match=r"set: cannot be read \(Permission denied\); check its permissions"):
        find(tmp_path)


def test_what_operating_systems_leave_is_not_listed(tmp_path: Path) -> None:
    make(tmp_path, "b", "a", "Thumbs.db", "._a", ".DS_Store")
    (tmp_path / "__MACOSX").mkdir()
    assert names_in(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("name", ["set.zip", "SET.ZIP", "set.tar.gz", "set.tgz", "set.tar", "Set.tar.xz"])
def test_an_archive_is_found_by_its_name_in_any_case_with_any_ending(tmp_path: Path, name: str) -> None:
    make(tmp_path, name, "set.txt", "other.zip", "set.zip.part")
    (tmp_path / "more.zip").mkdir()
    assert find_archive(tmp_path, ["absent", "set"]) == tmp_path / name
    assert find_archive(tmp_path, ["more"]) is None
    assert find_archive(tmp_path / "absent", ["set"]) is None
    assert stem(name).lower() == "set"
