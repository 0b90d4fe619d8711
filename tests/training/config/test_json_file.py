"""A config file as editors, shells and people leave it: read, or one line with the place and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.config.json_file import read_object
from training.errors import ConfigError


def written(folder: Path, content: str | bytes) -> Path:
    """Return a file with this content."""
    path = folder / "c.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_windows_writes_is_read(tmp_path: Path, encoding: str, end: str) -> None:
    """PowerShell's `>` writes UTF-16, and editors put a byte order mark in front."""
    path = written(tmp_path, end.join(["{", '"outputpath": "é",', '"epochs": 3', "}", ""]).encode(encoding))
    assert read_object(path) == {"outputpath": "é", "epochs": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{\n  "epochs": 3,\n}\n',
            "line 2, column 14: broken JSON: there is a comma before the closing }; take it out",
        ),
        ('{"epochs": 3,\r\n}', "line 1, column 13: broken JSON: there is a comma before the closing }; take it out"),
        ('{"a": [1,\n2, ]}', "line 2, column 2: broken JSON: there is a comma before the closing ]; take it out"),
        ('{"a": 1,, "b": 2}', "line 1, column 8: broken JSON: there is a comma before another; take it out"),
        *(
            (text, f"{place}: broken JSON: this is a comment, which JSON does not have; take it out")
            for text, place in [
                ('// mine\n{"a": 1}', "line 1, column 1"),
                ('{\n"a": 1, // one\n"b": 2}', "line 2, column 9"),
                ('{"a": 1 # one\n}', "line 1, column 9"),
                ('{"a": /* one */ 1}', "line 1, column 7"),
                ('{"a": 1, // the last\n}', "line 1, column 10"),
                ('{"a": 1}\n# done', "line 2, column 1"),
            ]
        ),
        ("{'epochs': 3}", "line 1, column 2: broken JSON: ' is not a quotation mark in JSON; write \" instead"),
        ('{"a": ‘x’}', 'line 1, column 7: broken JSON: ‘ is not a quotation mark in JSON; write " instead'),
        ('{"a": True}', "line 1, column 7: broken JSON: True is Python; write true"),
        ('{"a": None}', "line 1, column 7: broken JSON: None is Python; write null"),
        ("{epochs: 3}", 'line 1, column 2: broken JSON: epochs has no quotation marks; write "epochs"'),
        ('{"act": relu}', 'line 1, column 9: broken JSON: relu has no quotation marks; write "relu"'),
        *(
            (f'{{"a": {number}}}', f": broken JSON: {number} is not a number in JSON; write it as in 0.5, 3 or 1e-4")
            for number in (".5", "1.", "+1", "007", "0x10", "1_000", "1e")
        ),
        ('{"a": 0,5}', "line 1, column 9: broken JSON: there is a comma within a number; write a point, as in 0.5"),
        ('{"a": 1\n "b": 2}', "line 2, column 2: broken JSON: a comma is missing before this"),
        ('{"a" 3}', "line 1, column 6: broken JSON: a colon is missing between the key and its value"),
        ('{"a" = 3}', "line 1, column 6: broken JSON: a colon is missing between the key and its value"),
        ('{"a": }', "line 1, column 7: broken JSON: a value is missing before this"),
        ('{, "a": 1}', "line 1, column 2: broken JSON: a key is missing before this"),
        ('{"a": 1', "line 1, column 8: broken JSON: the file ends too early; close what is open with } or ]"),
        ('{"a": 1}}', "line 1, column 9: broken JSON: there is more text after the end of the object; take it out"),
        ('{"a": "x}', 'line 1, column 7: broken JSON: this text does not end; put a " after it'),
        ('{"a": "x,\n"b": 2}', 'column 10: broken JSON: the line ends within a text; is a " missing before it?'),
        (
            r'{"a": "C:\Users\me"}',
            r"line 1, column 10: broken JSON: there is a single \ in a text; write \\, or / in a path",
        ),
        (
            "404: Not Found",
            'column 1: broken JSON: the file begins with "404: Not Found"; expected an object such as {"epochs": 20}',
        ),
        (
            "\n<!DOCTYPE html>\n<p>",
            'line 2, column 1: broken JSON: the file begins with "<!DOCTYPE html>"; expected an',
        ),
        ("epochs: 3\n", 'the file begins with "epochs: 3"; expected an object'),
        ("[training]\nepochs=3", 'the file begins with "[training]"; expected an object'),
        ("", 'line 1, column 1: broken JSON: the file is empty; expected an object such as {"epochs": 20}'),
        ("\ufeff \r\n", "the file is empty"),
        ("[1]", "holds [1]; expected an object"),
        ("null", "holds null; expected an object"),
    ],
)
def test_broken_notation_is_told_with_the_place_and_the_remedy(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_object(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,\n "b": {"a": 2},\n "a": 3}', 'line 3, column 2: "a" is there twice; leave one of them out'),
        ('{"a": {"vgg": 1,\n"vgg": 2}}', 'line 2, column 1: "vgg" is there twice; leave one of them out'),
        ('{"a": 1, "\\u0061": 2}', 'line 1, column 10: "a" is there twice; leave one of them out'),
        ('{"a": "NaN",\n "b": NaN}', "line 2, column 7: NaN is not a number in JSON; give a finite number"),
        ('{"a": [1, -Infinity]}', "line 1, column 11: -Infinity is not a number in JSON; give a finite number"),
    ],
)
def test_what_json_readers_let_pass_is_refused_with_the_place(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_object(path)
    assert str(caught.value) == f"{path}: {message}"


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not text in UTF-8 \(byte 0\); save it as UTF-8"):
        read_object(written(tmp_path, b"\x89PNG\r\n\x1a\n"))
    with pytest.raises(ConfigError, match="is not text"):
        read_object(written(tmp_path, '{"epochs": 3}'.encode("utf-16")[:-1]))
