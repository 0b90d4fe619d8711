"""Drawn configs and command lines end with exit code 0 or 2 and one line, never with a traceback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from benchmarks.faults.cases import Case, cases
from benchmarks.faults.fuzz import check, playground, run

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", autouse=True)
def _folder() -> Iterator[None]:
    with playground():
        yield


@seed(1)
@settings(
    max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
)
@given(cases())
def test_no_input_gives_a_traceback(case: Case) -> None:
    code, said = run(case)
    check(case, code, said)


@pytest.mark.parametrize(
    ("config", "argv", "words"),
    [
        (b'{"outputpath": "a\\u0000b"}', [], "cannot be the name of a file or a folder"),
        (b'{"outputpath": "\\ud800"}', [], "outputpath: got"),
        (b'{"outputpath": "~nobody-here/x"}', [], "cannot be the name of a file or a folder"),
        (b"{}", ["--data-root", "~nobody-here"], "cannot be the name of a file or a folder"),
        (b"{}", ["--data-root", "x" * 300], "cannot be the name of a file or a folder"),
        (b"{}", ["--trace", "\0"], "cannot be the name of a file or a folder"),
        (b"{}", ["--out", "\udcff\ud800"], "which is not UTF-8"),
        (b"{}", ["--data-root", "\ud800"], "cannot be the name of a file or a folder"),
    ],
)
def test_what_cannot_name_a_file_is_refused(config: bytes, argv: list[str], words: str) -> None:
    case = Case("vision", config, ["digits", "vgg", "--config", "config.json", *argv])
    code, said = run(case)
    check(case, code, said)
    assert code == 2
    assert words in said
