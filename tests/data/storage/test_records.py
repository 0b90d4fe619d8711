"""Lines and csv records of a text file: marks, line ends, separators, and what is no text at all."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from data.errors import DataError
from data.storage.records import read_lines, read_records

ROWS = [["1", "a, b", "c"], ["2", 'd "e"', "f\ng"]]


def pair(row: list[str]) -> bool:
    return len(row) == 3


def test_line_ends_and_a_byte_order_mark_are_no_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    text = '1,"a, b",c\n2,"d ""e""","f\ng"\n'
    for end in ("\n", "\r\n", "\r"):
        path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", end).encode())
        rows = [row for _, row in read_records(path, pair)]
        assert [[field.replace(end, "\n") for field in row] for row in rows] == ROWS
    path.write_bytes(b"a\rb")
    assert list(read_lines(path)) == ["a\r", "b"]


@pytest.mark.parametrize(("separator", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
@pytest.mark.parametrize("quote", ["", '"'])
def test_another_separator_is_named(tmp_path: Path, separator: str, name: str, quote: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(separator.join(f"{quote}{field}{quote}" for field in ("1", "a title", "a text, and more")))
    with pytest.raises(DataError, match=rf"rows\.csv: its columns are separated by {name}; save it with commas"):
        list(read_records(path, pair))


def test_a_wrong_first_record_is_left_to_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("1,a;b\n")
    assert [row for _, row in read_records(path, pair)] == [["1", "a;b"]]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"404: Not Found", r"holds a server's answer \('404: Not Found'\) instead of data; get the file again"),
        (b"403 Forbidden\n", "holds a server's answer"),
        (b"HTTP/1.1 502 Bad Gateway", "holds a server's answer"),
        (b'{"message": "Not Found"}', "holds a server's answer"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "holds a server's answer"),
        (b"\n<!DOCTYPE html>\n<html><body>Quota exceeded" + b" " * 5000, "holds a web page instead of data"),
        (b"\xef\xbb\xbf<HTML>", "holds a web page"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n",
            "pointer of Git LFS; run `git lfs pull`",
        ),
        ("1,a,b\n".encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
        (b"\xfe\xff" + "1,a,b\n".encode("utf-16-be"), "is UTF-16 text"),
        (gzip.compress(b"1,a,b\n", mtime=0), "is a gzip file, not text; unpack it"),
        (b"PK\x03\x04....", "is a zip archive, not text; unpack it"),
        ("1,a,b\n".encode("utf-16-le"), "line 1: a NUL byte"),
    ],
)
def test_what_is_no_text_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        list(read_lines(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["500 Days of Summer", "404 Not Found is a film that I can recommend, warmly.", "<b>Bold</b>", "{a} b", ""]
)
def test_a_document_is_not_taken_for_an_answer(tmp_path: Path, text: str) -> None:
    path = tmp_path / "0_9.txt"
    path.write_text(text)
    assert "".join(read_lines(path)) == text


def test_a_column_may_be_as_long_as_a_book(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f'1,a,"{"word " * 100_000}"\n')
    assert [len(row[2]) for _, row in read_records(path, pair)] == [500_000]


def test_a_quote_that_is_never_closed_is_placed_where_its_record_begins(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('1,a,b\n\n1,a,"b\n' + "1,a,b\n" * 7)
    with pytest.raises(DataError, match=r"rows\.csv lines 3 to 10: unexpected end of data; .* fix that record"):
        list(read_records(path, pair))
