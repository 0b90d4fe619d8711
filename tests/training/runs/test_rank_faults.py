"""What fails in one process of a command, and when: all end in time, with the right code and one line that says why.

Memory, disks, exceptions and signals, before, during and after training. Deaths and signals while batches are under way
are in `test_ranks`, hosts in `test_two_hosts`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.faults.disk import NoDiskError, fill, small_disk
from benchmarks.faults.faulty import MOMENTS

from ..launched import ROOT, SMALL, End, epochs_in, free_port, launch
from .test_ranks import LIMIT

pytestmark = pytest.mark.timeout(240)
FAULTY = f"--plugin {ROOT / 'benchmarks' / 'faults' / 'faulty.py'}"
SHORT = f"{SMALL} --set epochs=2"
#: What happens while batches are under way is in `test_ranks`.
BESIDES_BATCHES = [moment for moment in MOMENTS if moment != "during"]


#: Runs a command in two processes with a fault, and returns how they ended.
Run = Callable[..., list[End]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:

    def run(fault: str) -> list[End]:
        monkeypatch.setenv("FAULT", fault)
        monkeypatch.setenv("FAULT_NOTE", str(note := tmp_path / "note"))
        with launch(tmp_path, 2, f"{SHORT} {FAULTY} --out {tmp_path / 'out'}") as launched:
            ends = launched.ends(150.0, note)
        assert all(end.code is not None for end in ends), f"it hangs: {ends}"
        # Who ends with 0 has done its work, however long that took.
        assert max(end.seconds for end in ends if end.code) < LIMIT
        return ends

    return run


def last_line(end: End) -> str:
    return end.text.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "fault",
    [
        "ALPackage.layer:LocalLayer.backward 2 torch:OutOfMemoryError",  # the check of the layers
        pytest.param("ALPackage.layer:LocalLayer.backward 40 MemoryError", marks=pytest.mark.slow),
        pytest.param("ALPackage.layer:LocalLayer.update 40 torch:OutOfMemoryError", marks=pytest.mark.slow),
        pytest.param("ALPackage.stage.runner:LayerRunner.infer 2 MemoryError", marks=pytest.mark.slow),  # an evaluation
    ],
)
def test_too_little_memory_for_a_layer_is_one_line_and_a_mistake(run: Run, fault: str) -> None:
    """Guards two bugs: the cause got lost on its way to rank 0, and "rank 1 has left the run" came before it."""
    first, second = run(f"1 {fault}")
    assert (first.code, second.code) == (2, 2), first.text + second.text
    expected = 'of AL in rank 1 ran out of memory; the devices are "auto", a batch has 32 samples in training'
    assert last_line(first).startswith("error: layer conv_")
    assert expected in last_line(first)
    assert second.text.count("\n") == 1
    assert expected in second.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "words"),
    [("MemoryError", "there is too little memory to make the layers"), ("data:DataError", "data:DataError on purpose")],
)
def test_a_mistake_that_only_rank_1_meets_ends_all_with_2(run: Run, what: str, words: str) -> None:
    """While rank 0 waits for it at another place."""
    first, second = run(f"1 training.runs.follow:set_layout 1 {what}")
    assert (first.code, second.code) == (2, 2), first.text + second.text
    assert last_line(first).startswith("error: rank 1 (")
    assert words in last_line(first)
    assert second.text.startswith(f"error: {words}")
    assert second.text.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("ALPackage.layer:LocalLayer.backward 2", "failed on batch 0 in rank 1: ValueError: ValueError on purpose"),
        ("ALPackage.layer:LocalLayer.backward 40", "in rank 1: ValueError: ValueError on purpose"),
        ("ALPackage.stage.runner:LayerRunner.infer 2", "in rank 1: ValueError: ValueError on purpose"),
        ("training.runs.follow:set_layout 2", "conv_4): ValueError: ValueError on purpose"),
    ],
)
def test_an_exception_in_rank_1_has_its_traceback_there_and_one_line_in_rank_0(
    run: Run, where: str, words: str
) -> None:
    first, second = run(f"1 {where} ValueError")
    assert (first.code, second.code) == (1, 1), first.text + second.text
    assert last_line(first).startswith(("error: layer 'conv_", "error: rank 1 ("))
    assert words in last_line(first)
    assert "Traceback" not in first.text
    assert "in failing" in second.text


@pytest.mark.slow
def test_an_exception_in_rank_0_has_its_traceback_there_and_one_line_in_rank_1(run: Run) -> None:
    first, second = run("0 training.report.gallery:Gallery.draw 1 ValueError")
    assert (first.code, second.code) == (1, 1)
    assert "in failing" in first.text
    assert second.text.startswith("error: rank 0 (")
    assert "conv_1" in second.text
    assert second.text.endswith("): ValueError: ValueError on purpose\n")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["SIGKILL", "SIGSTOP"])
@pytest.mark.parametrize("moment", BESIDES_BATCHES)
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_dies_or_stops_ends_the_others(
    run: Run, tmp_path: Path, rank: int, moment: str, what: str
) -> None:
    ends = run(f"{rank} {MOMENTS[moment][rank]} {what}")
    dead, other = ends[rank], ends[1 - rank]
    assert dead.code == -signal.SIGKILL, "what is stopped is killed"
    if (rank, moment) == (1, "after"):
        # Nothing more was wanted of it: rank 0 has the results, writes them, and ends as ever.
        assert (other.code, epochs_in(tmp_path / "out")) == (0, 2), other.text
        return
    assert other.code == 1, other.text
    assert last_line(other).startswith(f"error: rank {rank} (")
    assert "conv_" in last_line(other) or moment == "before"
    assert "Traceback" not in other.text


@pytest.mark.slow
@pytest.mark.parametrize(("what", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.parametrize("moment", BESIDES_BATCHES)
@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_ends_all_with_its_code(
    run: Run, tmp_path: Path, rank: int, moment: str, what: str, code: int
) -> None:
    ends = run(f"{rank} {MOMENTS[moment][rank]} {what}")
    assert [end.code for end in ends] == [code, code], ends[0].text + ends[1].text
    assert last_line(ends[0]).startswith("interrupted: ")
    assert "interrupted: " in last_line(ends[1])
    if moment == "after":
        assert epochs_in(tmp_path / "out") == 2


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for one checkpoint of 5 MB, and no more."""
    try:
        with small_disk(tmp_path / "disk") as disk:
            yield disk
    except NoDiskError as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.parametrize("keep", [2, 0])
def test_a_full_disk_is_one_line_in_all_and_what_was_written_is_intact(disk: Path, tmp_path: Path, keep: int) -> None:
    """While a checkpoint is written, and, where none are kept, a table."""
    out = disk / "out"
    command = f"{SMALL} --set epochs=300 --set checkpoint_keep={keep} --out {out}"
    with launch(tmp_path, 2, command) as launched:
        launched.wait_for(lambda: epochs_in(out) >= 1)
        before = (out / "digits_vgg_al.csv").read_text()
        fill(disk)
        first, second = launched.ends()
    assert (first.code, second.code) == (2, 2), first.text + second.text
    assert max(first.seconds, second.seconds) < LIMIT
    assert last_line(first).startswith("error: ")
    assert "No space left on device" in last_line(first)
    assert "Traceback" not in first.text
    assert second.text.count("\n") == 1
    assert "No space left on device" in second.text
    assert (out / "digits_vgg_al.csv").read_text().startswith(before)


@pytest.mark.slow
def test_a_rank_other_than_0_writes_nothing_and_needs_no_disk_and_no_data(disk: Path, tmp_path: Path) -> None:
    """Its disk may be full, its output missing: a run goes on there from what rank 0 has."""
    fill(disk)
    out, command = tmp_path / "out", f"{SMALL} --set epochs=8"
    where = (f"--out {out}", f"--out {disk / 'out'} --data-root {disk / 'data'}")
    before = sorted(disk.rglob("*"))
    with launch(tmp_path, 2, command, *where) as launched:
        launched.wait_for(lambda: epochs_in(out) >= 2)
        launched.send(1, signal.SIGTERM)
        assert [end.code for end in launched.ends()] == [143, 143]
    assert epochs_in(out) < 8
    with launch(tmp_path, 2, f"{command} --resume", *where) as launched:
        assert [end.code for end in launched.ends()] == [0, 0]
    assert (epochs_in(out), json.loads((out / "digits_vgg_al.json").read_text())["resumptions"]) == (8, 1)
    assert sorted(disk.rglob("*")) == before


@pytest.mark.slow
def test_the_summary_of_torchrun_has_the_cause(tmp_path: Path) -> None:
    """And no stack of ours, nor advice to decorate the program."""
    what = "1 ALPackage.layer:LocalLayer.backward 2 MemoryError"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    torchrun += ["--master-port", str(free_port())]
    done = subprocess.run(
        [*torchrun, "cvmain.py", *f"{SHORT} {FAULTY} --out {tmp_path}".split()],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "FAULT": what},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1, "torchrun's own"
    _, found, summary = done.stderr.partition("cvmain.py FAILED")
    assert found
    assert summary.count("exitcode  : 2") == 2
    assert len(re.findall(r"traceback : layer conv_\d of AL in rank 1 ran out of memory", summary)) == 2
    assert "elastic/errors.html" not in summary
    assert len(summary.splitlines()) < 25
