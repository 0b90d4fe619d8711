"""Files of word vectors as they are published: words with spaces, headers, marks, gzip; and what is none."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from data.errors import DataError
from data.text.embeddings import get_vectors
from data.text.vector_file import dimension, read_vectors

PLAIN = b"the 1 2 3\nof 4 5 6\n"


def look_up(path: Path, *words: str) -> list[list[float]]:
    return [list(map(float, row)) for row in get_vectors(list(words), path, dimension(path)).tolist()]


def test_a_byte_order_mark_is_no_part_of_the_first_word(tmp_path: Path) -> None:
    path = tmp_path / "glove.txt"
    path.write_bytes(b"\xef\xbb\xbf" + PLAIN)
    assert look_up(path, "the", "of") == [[1, 2, 3], [4, 5, 6]]


def test_words_may_hold_spaces(tmp_path: Path) -> None:
    """As `. . .` and `at name@domain.com` in glove.840B; torchtext 0.18 refuses such a file."""
    path = tmp_path / "glove.840B.3d.txt"
    path.write_text("the 1 2 3\n. . . 4 5 6\nat name@domain.com 7 8 9\n1 10 11 12\n")
    assert look_up(path, "the", ". . .", "at name@domain.com", "at", ".", "1") == [
        [1, 2, 3],
        [4, 5, 6],
        [7, 8, 9],
        [0, 0, 0],
        [0, 0, 0],
        [10, 11, 12],
    ]


def test_a_first_word_with_spaces_does_not_change_the_dimension(tmp_path: Path) -> None:
    path = tmp_path / "glove.txt"
    path.write_text(". . . 4 5 6\nthe 1 2 3\nof 1 2 3\n")
    assert dimension(path) == 3


def test_fasttext_files_have_a_header_trailing_spaces_and_words_with_unusual_spaces(tmp_path: Path) -> None:
    path = tmp_path / "wiki.en.vec"
    words = ["the", "new\u00a0york", "\u3000", "\u0085", "\u2028", "3"]
    path.write_text(f"{len(words)} 3\n" + "".join(f"{word} {i} 0.5 -1e-3 \n" for i, word in enumerate(words)), "utf-8")
    assert [row[0] for row in look_up(path, *words)] == [0, 1, 2, 3, 4, 5]
    read = read_vectors(path, 3, set())
    assert (read.words, read.announced) == (6, 6)


@pytest.mark.parametrize("name", ["cc.en.3.vec.gz", "packed-without-saying-so.txt"])
def test_a_gzipped_file_is_read_as_it_is(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"2 3\n" + PLAIN))
    assert look_up(path, "of") == [[4, 5, 6]]
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(DataError, match="cannot be unpacked") as caught:
        read_vectors(path, 3, set())
    assert str(path) in str(caught.value)


def test_windows_line_ends_and_blank_lines_are_no_part_of_the_numbers(tmp_path: Path) -> None:
    path = tmp_path / "glove.txt"
    path.write_bytes(b"\r\n" + PLAIN.replace(b"\n", b"\r\n") + b"\r\n")
    assert look_up(path, "of") == [[4, 5, 6]]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"404: Not Found", "holds a server's answer"),
        (b"<html>", "holds a web page"),
        (PLAIN.decode().encode("utf-16"), "is UTF-16 text"),
        (b"PK\x03\x04", "is a zip archive, not text; unpack it"),
        (b"2 3\n</s> \x00\x01\x02\x03", "is a binary file; expected text"),
        (gzip.compress(b"2 3\n</s> \x00\x01\x02\x03", mtime=0), "is a binary file; expected text"),
        (b"word,x,y\n", "line 1: 'word,x,y'; expected a word and its numbers, separated by one space each"),
        (b"the\t1\t2\n", "expected a word and its numbers, separated by one space each"),
        (b"the\t1 2 3\n", "expected a word and its numbers, separated by one space each"),
        (b"the  1  2\n", "separated by one space each"),
        (PLAIN.replace(b"\n", b"\r"), "its lines end in carriage returns alone; save it with line feeds"),
        (b"some prose that is no vector\n", "expected a word and its numbers"),
    ],
)
def test_what_is_no_file_of_vectors_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "vectors.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        dimension(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_number_too_many_is_no_word_with_a_space(tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_bytes(PLAIN + b"oil 1 2 3 4\n")
    with pytest.raises(DataError, match="line 3: 4 numbers; expected 3"):
        read_vectors(path, 3, set())
