"""Where a file of a known name is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.storage.search import find_file


@pytest.mark.parametrize("place", [".", "expected", "any other", "../beside"])
def test_a_file_is_found_in_the_root_in_its_folders_and_where_it_is_expected(tmp_path: Path, place: str) -> None:
    root = tmp_path / "root"
    (root / place).mkdir(parents=True)
    (root / "broken").symlink_to("nowhere")
    expected = [root / "expected", tmp_path / "beside"]
    assert find_file(root, ["a.txt", "a.txt.gz"], expected) is None
    file = root / place / "a.txt.gz"
    file.write_text("x")
    found = find_file(root, ["a.txt", "a.txt.gz"], expected)
    assert found is not None
    assert found.samefile(file)


def test_the_root_and_the_first_name_come_first_and_a_folder_is_no_file(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "sub/a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert find_file(tmp_path, ["b.txt", "a.txt"]) == tmp_path / "b.txt"
    (tmp_path / "a.txt").unlink()
    (tmp_path / "a.txt").mkdir()
    assert find_file(tmp_path, ["a.txt"]) == tmp_path / "sub" / "a.txt"
    assert find_file(tmp_path / "absent", ["a.txt"]) is None
