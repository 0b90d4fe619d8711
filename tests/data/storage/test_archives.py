"""Archives are unpacked whole or not at all, and never outside their target. No network, no GPU."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from data import DataError
from data.storage import archives
from data.storage.archives import unpack


def make_zip(path: Path, members: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in members.items():
            zipped.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return path


def make_tar(path: Path, members: Mapping[str, bytes | tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as tarred:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tarred.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tarred.addfile(info, io.BytesIO(content))
    return path


def link(kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo("set/link")
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@pytest.mark.parametrize("name", ["set.zip", "set.tar", "set.tar.gz"])
def test_unpacks_every_member_and_leaves_nothing_else(tmp_path: Path, name: str) -> None:
    members = {"set/a.txt": b"a" * 1000, "set/deep/b.txt": b"", "other.txt": b"c"}
    archive = (make_zip if name.endswith("zip") else make_tar)(tmp_path / name, members)
    target = tmp_path / "target"
    target.mkdir()
    assert unpack(archive, target) == [target / "other.txt", target / "set"]
    found = {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()}
    assert found == members


def test_keeps_what_is_already_there(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the user's")
    unpack(make_zip(tmp_path / "set.zip", {"a.txt": b"ours", "b.txt": b"ours"}), tmp_path)
    assert (tmp_path / "a.txt").read_text() == "the user's"
    assert (tmp_path / "b.txt").read_text() == "ours"


LIST = {"list.txt": b"l", "part_1": b"1", "part_2": b"2"}


@pytest.mark.parametrize("where", ["", "set/", "x/", "set/set/", "x/y/set/"])
@pytest.mark.parametrize("ending", ["zip", "tar.gz"])
def test_the_wanted_folder_is_found_wherever_it_lies_in_the_archive(tmp_path: Path, where: str, ending: str) -> None:
    members = {f"{where}{name}": content for name, content in LIST.items()}
    members |= {f"__MACOSX/{where}._{name}": b"fork" for name in LIST} | {".DS_Store": b"x"}
    make = make_zip if ending == "zip" else make_tar
    unpack(make(tmp_path / f"set.{ending}", members), tmp_path, "set", ("list.txt", "part_*"))
    assert {name: (tmp_path / "set" / name).read_bytes() for name in LIST} == LIST
    assert sorted(os.listdir(tmp_path)) == ["set", f"set.{ending}"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_a_folder_made_of_a_flat_archive_is_open_to_those_to_whom_a_new_folder_is(tmp_path: Path) -> None:
    unpack(make_zip(tmp_path / "set.zip", LIST), tmp_path, "set", ("list.txt",))
    (tmp_path / "new").mkdir()
    assert (tmp_path / "set").stat().st_mode == (tmp_path / "new").stat().st_mode


def test_an_archive_in_an_archive_is_unpacked_too(tmp_path: Path) -> None:
    inner = make_tar(tmp_path / "inner.tar.gz", {f"set/{name}": content for name, content in LIST.items()})
    outer = make_zip(tmp_path / "set.zip", {"deep/inner.tar.gz": inner.read_bytes(), "readme.txt": b"hello"})
    inner.unlink()
    unpack(outer, tmp_path, "set", ("list.txt", "part_*"))
    assert sorted(os.listdir(tmp_path)) == ["set", "set.zip"]
    assert sorted(os.listdir(tmp_path / "set")) == sorted(LIST)


def test_two_folders_that_fit_are_not_guessed_between(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "set.zip", {"a/list.txt": b"", "b/list.txt": b""})
    with pytest.raises(DataError, match=r"set\.zip: a and b in it both hold list\.txt"):
        unpack(archive, tmp_path, "set", ("list.txt",))
    with pytest.raises(DataError, match=r"set\.zip: does not hold wanted; remove it"):
        unpack(archive, tmp_path, "set", ("wanted",))
    assert os.listdir(tmp_path) == ["set.zip"]


def test_what_lies_in_the_target_stays_and_the_rest_is_added(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/part_1").write_bytes(b"the user's")
    unpack(make_zip(tmp_path / "set.zip", LIST), tmp_path, "set", ("list.txt", "part_*"))
    assert (tmp_path / "set/part_1").read_bytes() == b"the user's"
    assert (tmp_path / "set/list.txt").read_bytes() == b"l"


def test_names_with_backslashes_are_folders(tmp_path: Path) -> None:
    """Packers of Windows wrote them for years."""
    unpack(make_zip(tmp_path / "set.zip", {"set\\list.txt": b"l"}), tmp_path, "set", ("list.txt",))
    assert (tmp_path / "set/list.txt").read_bytes() == b"l"


def test_an_archive_without_rights_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(tarfile, "is_tarfile", refuse)
    with pytest.raises(DataError, match=r"set\.zip: cannot be read \(Permission denied\); check its permissions"):
        unpack(make_zip(tmp_path / "set.zip", LIST), tmp_path)


@pytest.mark.parametrize("name", ["../out", "set/../../out", "/out", "C:\\out", "..\\out", "\\out"])
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_refuses_members_that_point_outside(tmp_path: Path, name: str, make: Callable[..., Path]) -> None:
    target = tmp_path / "target"
    target.mkdir()
    archive = make(tmp_path / "bad", {"good.txt": b"1", name: b"2"})
    with pytest.raises(DataError, match="points outside"):
        unpack(archive, target)
    assert list(target.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "target"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_refuses_links_and_devices_in_a_tar(tmp_path: Path, kind: bytes) -> None:
    archive = make_tar(tmp_path / "bad.tar", {"good": b"1", "link": link(kind)})
    with pytest.raises(DataError, match="link or device"):
        unpack(archive, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.tar"]


def test_refuses_a_symbolic_link_in_a_zip(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as zipped:
        zipped.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="link or device"):
        unpack(tmp_path / "bad.zip", tmp_path)


@pytest.mark.parametrize("name", ["bomb.zip", "bomb.tar.gz"])
def test_refuses_more_bytes_than_an_archive_of_its_size_may_hold(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MIN_ROOM", 1 << 20)
    make = make_zip if name.endswith("zip") else make_tar
    archive = make(tmp_path / name, {"zeros": bytes(2 << 20)})
    with pytest.raises(DataError, match="over 20 times its size"):
        unpack(archive, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["cut.zip", "cut.tar.gz"])
def test_a_damaged_archive_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    whole = tmp_path / "whole"
    noise = bytes((7 * i * i + i // 3) % 251 for i in range(200_000))
    archive = make_zip(whole, {"a": noise}) if name.endswith("zip") else make_tar(tmp_path / "w.gz", {"a": noise})
    content = bytearray(archive.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 40] = bytes(40)
    archive.unlink()
    bad = tmp_path / name
    bad.write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: cannot be unpacked"):
        unpack(bad, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_unpacked_files_get_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a")
    info.mode = 0o4711
    unpack(make_tar(tmp_path / "set.tar", {"a": info}), tmp_path)
    (tmp_path / "new").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "new").stat().st_mode


def test_a_python_that_cannot_unpack_a_tar_safely_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make_tar(tmp_path / "set.tar", {"a": b"1"})
    monkeypatch.delattr(tarfile, "data_filter")
    with pytest.raises(DataError, match=r"use Python 3\.10\.12, 3\.11\.4 or newer"):
        unpack(archive, tmp_path)


def test_refuses_what_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "page.zip").write_text("<html>quota exceeded</html>")
    with pytest.raises(DataError, match="neither a zip nor a tar"):
        unpack(tmp_path / "page.zip", tmp_path)
