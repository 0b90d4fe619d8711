"""Processes that do not belong together, or do not find one another: one line that says why, exit code 2, in all."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from training.config.launch import Launch
from training.errors import UsageError
from training.runs.meeting import _begin

from ..launched import SMALL, launch

pytestmark = pytest.mark.timeout(300)
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


def begin(store: Any, rank: int, world: int, seconds: float = 5.0) -> Future[Any]:
    """Let a process of that rank begin, on a thread; the result is its part of the store."""
    result: Future[Any] = Future()

    def work() -> None:
        try:
            result.set_result(_begin(Launch(rank, world), store, seconds))
        except UsageError as error:
            result.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return result


def test_a_start_at_a_store_that_was_used_before_finds_nothing_there() -> None:
    """Guards a hang: with --standalone torchrun starts a command again at the same store."""
    store = dist.HashStore()  # type: ignore[attr-defined]
    store.set("hello/1", "from a process that died before the others came")
    for start in range(3):
        first, second, third = [end.result(timeout=5.0) for end in [begin(store, rank, 3) for rank in (2, 1, 0)]]
        first.set("order", str(start))
        assert second.get("order") == third.get("order") == str(start).encode()


def test_a_second_process_of_a_rank_is_found_out_however_late_it_comes() -> None:
    """Guards a bug: rank 0 answered only those that were missing."""
    store = dist.HashStore()  # type: ignore[attr-defined]
    ends = [begin(store, 0, 3), begin(store, 1, 3)]
    time.sleep(0.3)
    ends.append(begin(store, 1, 3))
    for end in ends:
        with pytest.raises(UsageError, match="there are two processes with rank 1 of 3"):
            end.result(timeout=5.0)


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_process_that_does_not_come_is_named(tmp_path: Path) -> None:
    told = [{"WORLD_SIZE": 3}, {"WORLD_SIZE": 3}]
    with launch(tmp_path, 2, f"{COMMAND} --out {tmp_path / 'out'}", told=told) as launched:
        ends = launched.ends(100.0)
    for end in ends:
        assert (end.code, end.text.count("\n")) == (2, 1), end.text
        assert f"the processes did not meet: nothing was heard of rank 2 for {TIMEOUT} s" in end.text


@pytest.mark.slow
def test_a_port_that_another_program_has(tmp_path: Path, port: int) -> None:
    """Guards a hang: torch waits for the other program's answer without a limit."""
    told = [{"MASTER_PORT": port}] * 2
    with launch(tmp_path, 2, f"{COMMAND} --out {tmp_path / 'out'}", told=told) as launched:
        first, second = launched.ends(100.0)
    assert (first.code, second.code) == (2, 2), first.text + second.text
    assert f"port {port} is in use; give another one with --master-port" in first.text
    assert f"no rank 0 answers at 127.0.0.1:{port}" in second.text
    assert (first.text.count("\n"), second.text.count("\n")) == (1, 1)


@pytest.mark.slow
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
