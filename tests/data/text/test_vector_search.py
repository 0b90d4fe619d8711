"""Which file of word vectors a run takes: names, paths, folders, archives, and what is said if there is none."""

from __future__ import annotations

import gzip
import os
import zipfile
from pathlib import Path

import pytest
import torch

from data.errors import DataError
from data.text.embeddings import load_vectors
from data.text.vector_search import find_file

WORDS = ["<pad>", "<unk>", "the", "of"]


def lines(dim: int, start: float = 0.0) -> str:
    return "".join(f"{word} " + " ".join(str(start + i) for i in range(dim)) + "\n" for word in ("the", "of"))


def write(path: Path, dim: int, start: float = 0.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(lines(dim, start))
    return path


@pytest.mark.parametrize(
    ("name", "file", "dim"),
    [
        ("glove.840B.300d", "glove.840B.300d.txt", 300),
        ("glove.42B.300d", "glove.42B.300d.txt", 300),
        ("glove.twitter.27B.25d", "glove.twitter.27B.25d.txt", 25),
        ("glove.6B.50d", "glove.6B.50d.txt", 50),
        ("fasttext.simple.300d", "wiki.simple.vec", 300),
    ],
)
def test_published_vectors_are_found_by_name_or_say_what_to_put_where(
    tmp_path: Path, name: str, file: str, dim: int
) -> None:
    with pytest.raises(DataError, match=rf"pretrained_model {name}: no {file} in .*; put it there, or .* https://"):
        find_file(dim, tmp_path, name)
    path = write(tmp_path / file, dim)
    assert find_file(dim, tmp_path, name) == path
    vectors, notes = load_vectors(WORDS, dim, root=tmp_path, seed=0, model=name)
    assert torch.equal(vectors[2], torch.arange(dim, dtype=torch.float32))
    assert str(path) in notes[0]
    with pytest.raises(DataError, match=rf"{name}: its vectors have {dim} numbers, but embedding_dim is 7; set embedd"):
        find_file(7, tmp_path, name)


@pytest.mark.parametrize("place", [".", "glove.6B", "glove", "vectors", ".vector_cache", ".."])
def test_a_published_file_may_lie_in_a_folder_of_the_root_or_beside_it(tmp_path: Path, place: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    path = write(root / place / "glove.6B.5d.txt", 5)
    found = find_file(5, root)
    assert found is not None
    assert found.samefile(path)


def test_a_path_is_taken_from_the_working_directory_then_from_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, work = tmp_path / "root", tmp_path / "work"
    write(root / "my" / "mine.vec", 3, 1.0)
    work.mkdir()
    monkeypatch.chdir(work)
    assert find_file(3, root, "my/mine.vec") == root / "my" / "mine.vec"
    with pytest.raises(
        DataError, match=r'no file "other\.vec" in the working directory .*work nor in .*root; expected'
    ):
        find_file(3, root, "other.vec")
    with pytest.raises(DataError, match="is a folder; name a file of word vectors in it"):
        find_file(3, root, "./my")
    write(work / "my" / "mine.vec", 3, 2.0)
    found = find_file(3, root, "my/mine.vec")
    assert found is not None
    assert found.samefile(work / "my" / "mine.vec")
    absolute = str(root / "my" / "mine.vec")
    assert find_file(3, root, absolute) == Path(absolute)
    monkeypatch.setenv("HOME", str(root))
    assert find_file(3, root, "~/my/mine.vec") == root / "my" / "mine.vec"
    with pytest.raises(DataError, match=r"mine\.vec: its vectors have 3 numbers, but embedding_dim is 4; set embedd"):
        find_file(4, root, "~/my/mine.vec")


@pytest.mark.parametrize("archive", ["glove.6B.zip", "glove.6B.50d.zip", "glove.6B.50d.txt.zip", "GLOVE.6b.ZIP"])
@pytest.mark.parametrize("inside", ["", "glove.6B/"])
def test_an_archive_in_the_root_is_unpacked(tmp_path: Path, archive: str, inside: str) -> None:
    with zipfile.ZipFile(tmp_path / archive, "w") as packed:
        packed.writestr(f"{inside}glove.6B.50d.txt", lines(50))
    vectors, notes = load_vectors(WORDS, 50, root=tmp_path, seed=0)
    assert torch.equal(vectors[3], torch.arange(50, dtype=torch.float32))
    assert "glove.6B.50d.txt" in notes[0]
    assert (tmp_path / archive).is_file()


def test_an_archive_without_the_file_or_of_an_error_text_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "glove.6B.zip", "w") as packed:
        packed.writestr("glove.6B.50d.txt", lines(50))
    with pytest.raises(DataError, match=r"glove\.6B\.zip: does not hold glove\.6B\.100d\.txt"):
        find_file(100, tmp_path)
    (tmp_path / "glove.6B.zip").write_text("404: Not Found")
    with pytest.raises(DataError, match=r"glove\.6B\.zip: "):
        find_file(100, tmp_path)


def test_no_archive_is_unpacked_for_a_dimension_that_glove_6b_has_not(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "glove.6B.zip", "w") as packed:
        packed.writestr("glove.6B.50d.txt", lines(50))
    assert find_file(128, tmp_path) is None
    assert not (tmp_path / "glove.6B.50d.txt").exists()


def test_a_file_by_its_name_may_be_packed_or_lie_in_a_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "crawl-3d.vec.zip", "w") as packed:
        packed.writestr("crawl-3d.vec", lines(3))
    assert find_file(3, tmp_path, "crawl-3d.vec") == tmp_path / "crawl-3d.vec"
    with pytest.raises(DataError, match=r"crawl-3d\.vec\.zip: is a zip archive, not text; unpack it"):
        find_file(3, tmp_path, "crawl-3d.vec.zip")
    path = write(tmp_path / "fasttext" / "mine.vec", 3)
    assert find_file(3, tmp_path, "mine.vec") == path
    (tmp_path / "cc.vec.gz").write_bytes(gzip.compress(lines(3).encode()))
    assert find_file(3, tmp_path, "cc.vec") == tmp_path / "cc.vec.gz"


def test_a_gzipped_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "wiki.en.vec.gz"
    path.write_bytes(gzip.compress(b"2 300\n" + lines(300).encode()))
    assert find_file(300, tmp_path, "fasttext.en.300d") == path


def test_without_glove_the_note_names_what_else_is_there(tmp_path: Path) -> None:
    write(tmp_path / "glove.6B.50d.txt", 50)
    write(tmp_path / "crawl-300d-2M.vec", 300)
    _, (note,) = load_vectors(WORDS, 300, root=tmp_path, seed=0)
    assert "no glove.6B.300d.txt in" in note
    assert "There is crawl-300d-2M.vec, glove.6B.50d.txt: to use it, set pretrained_model to its name" in note


def test_a_header_that_promises_another_number_of_words_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "cut.vec"
    path.write_text("10 3\n" + lines(3))
    for _ in range(2):  # read, and from the cache
        _, notes = load_vectors(WORDS, 3, root=tmp_path, seed=0, model="cut.vec")
        assert f"{path} holds 2 words, but its first line says 10: is it complete?" in notes[1]


def test_another_file_gives_other_vectors(tmp_path: Path) -> None:
    write(tmp_path / "a.vec", 3, 1.0)
    write(tmp_path / "b.vec", 3, 2.0)
    first, _ = load_vectors(WORDS, 3, root=tmp_path, seed=0, model="a.vec")
    second, _ = load_vectors(WORDS, 3, root=tmp_path, seed=0, model="b.vec")
    assert first[2].tolist() == [1, 2, 3]
    assert second[2].tolist() == [2, 3, 4]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_is_refused(tmp_path: Path) -> None:
    """As the shell's `<(zcat vectors.gz)`: the second reading would find no word, and all would start at random."""
    os.mkfifo(tmp_path / "pipe.vec")
    with pytest.raises(DataError, match=r"pipe\.vec: is a pipe or device, not a file"):
        find_file(3, tmp_path, "pipe.vec")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_rights_is_named(tmp_path: Path) -> None:
    write(tmp_path / "glove.6B" / "glove.6B.5d.txt", 5)
    (tmp_path / "glove.6B").chmod(0)
    try:
        with pytest.raises(
            DataError, match=r"glove\.6B.*: cannot be read \(Permission denied\); check its permissions"
        ):
            find_file(5, tmp_path)
    finally:
        (tmp_path / "glove.6B").chmod(0o700)
