"""Processes that do not belong together, or do not find one another: one line that says why, exit code 2, in all."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..launched import SMALL, launch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
#: The processes wait so long for one another, in s.
TIMEOUT = 15
COMMAND = f"{SMALL} --set timeout={TIMEOUT}"


@pytest.fixture
def port() -> Iterator[int]:
    """A port at which something listens that has nothing to say."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ([{"RANK": 0}, {"RANK": 1}, {"RANK": 1}], "there are two processes with rank 1 of 3"),
        ([{}, {"WORLD_SIZE": 3}], "as one of "),
        ([{"WORLD_SIZE": 3}, {}], "as one of "),
    ],
)
def test_numbers_that_do_not_fit_together(tmp_path: Path, told: list[dict[str, Any]], words: str) -> None:
    with launch(tmp_path, len(told), f"{COMMAND} --out {tmp_path / 'out'}", told=told) as launched:
        ends = launched.ends(100.0)
    for end in ends:
        assert (end.code, end.text.count("\n")) == (2, 1), end.text
        assert end.text.startswith("error: ")
        assert words in end.text
        assert "each process needs a RANK of its own, and all of them the same WORLD_SIZE" in end.text
    assert not (tmp_path / "out").exists()


def test_a_process_that_does_not_come_is_named(tmp_path: Path) -> None:
    told = [{"WORLD_SIZE": 3}, {"WORLD_SIZE": 3}]
    with launch(tmp_path, 2, f"{COMMAND} --out {tmp_path / 'out'}", told=told) as launched:
        ends = launched.ends(100.0)
    for end in ends:
        assert (end.code, end.text.count("\n")) == (2, 1), end.text
        assert f"the processes did not meet: nothing was heard of rank 2 for {TIMEOUT} s" in end.text


def test_a_port_that_another_program_has(tmp_path: Path, port: int) -> None:
    """Guards a hang: torch waits for the other program's answer without a limit."""
    told = [{"MASTER_PORT": port}] * 2
    with launch(tmp_path, 2, f"{COMMAND} --out {tmp_path / 'out'}", told=told) as launched:
        first, second = launched.ends(100.0)
    assert (first.code, second.code) == (2, 2), first.text + second.text
    assert f"port {port} is in use; give another one with --master-port" in first.text
    assert f"no rank 0 answers at 127.0.0.1:{port}" in second.text
    assert (first.text.count("\n"), second.text.count("\n")) == (1, 1)


def test_another_version_in_one_process(tmp_path: Path) -> None:
    plugin = tmp_path / "older.py"
    plugin.write_text(
        "import os\nfrom training.runs import follow\n"
        "if os.environ['RANK'] == '1':\n    follow.versions = lambda: {'torch': '2.0'}\n"
    )
    with launch(tmp_path, 2, f"{COMMAND} --plugin {plugin} --out {tmp_path / 'out'}") as launched:
        ends = launched.ends(100.0)
    for end in ends:
        assert (end.code, end.text.count("\n")) == (2, 1), end.text
        assert end.text.startswith('error: versions: rank 1 has {"torch": "2.0"}, rank 0 has {')
        assert end.text.endswith("all ranks need the same command, configuration and versions\n")
