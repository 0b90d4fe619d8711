"""The names of published word vectors."""

import pytest

from data.errors import DataError
from data.text.vector_names import check_name, glove_6b, published


@pytest.mark.parametrize(
    ("name", "file", "archive", "dim"),
    [
        ("glove.6B.50d", "glove.6B.50d.txt", "glove.6B.zip", 50),
        ("GloVe.840b.300d", "glove.840B.300d.txt", "glove.840B.300d.zip", 300),
        ("glove.840B.300d.txt", "glove.840B.300d.txt", "glove.840B.300d.zip", 300),
        ("glove.42B.300d", "glove.42B.300d.txt", "glove.42B.300d.zip", 300),
        ("glove.twitter.27B.100d", "glove.twitter.27B.100d.txt", "glove.twitter.27B.zip", 100),
        ("fasttext.en.300d", "wiki.en.vec", "wiki.en.vec.gz", 300),
        ("fasttext.simple.300d", "wiki.simple.vec", "wiki.simple.vec.gz", 300),
    ],
)
def test_a_name_stands_for_a_file(name: str, file: str, archive: str, dim: int) -> None:
    found = published(name)
    assert found is not None
    assert (found.file, found.archive, found.dim) == (file, archive, dim)
    assert found.url.startswith("https://")


def test_glove_is_6b_of_any_dimension() -> None:
    assert glove_6b(7).file == "glove.6B.7d.txt"


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("GloVe", "glove"),
        ("None", "none"),
        ("glove.840b.300D", "glove.840B.300d"),
        ("vectors/mine", "vectors/mine"),
        ("mine.vec", "mine.vec"),
        ("../cc.de.300.vec.gz", "../cc.de.300.vec.gz"),
        ("C:\\vectors\\mine", "C:\\vectors\\mine"),
    ],
)
def test_names_are_spelled_out_and_paths_are_kept(given: str, taken: str) -> None:
    assert check_name(given) == taken


@pytest.mark.parametrize("name", ["bert", "glvoe", "", "glove.840B", "glove.6B.150d", "fasttext.en.100d", "a\0.txt"])
def test_what_is_neither_a_name_nor_a_path_is_refused(name: str) -> None:
    with pytest.raises(
        DataError, match=r'expected "glove", "none", the path of a file of word vectors, or a name such'
    ):
        check_name(name)
