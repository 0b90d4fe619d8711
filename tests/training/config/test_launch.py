"""What a process takes over from torchrun, and device lists that name processes. No process is started here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from training.config.arguments import read_command
from training.config.launch import (
    Launch,
    launched,
    note_cause,
    prepare_launch,
    split_rank,
    torchrun_began,
)
from training.errors import UsageError
from training.runs.resolve import Machine, find_machine

ROOT = Path(__file__).resolve().parents[3]


def launch(monkeypatch: pytest.MonkeyPatch, **variables: object) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))


def place(places: str, replicas: list[int] | None = None, *settings: str) -> Machine:
    more = [part for one in (f"stage_replicas={json.dumps(replicas)}", *settings) for part in ("--set", one)]
    command = read_command("vision", ["digits", "vgg", "--method", "al", "--set", f"al_gpu_list={places}", *more])
    return find_machine(command.config, "vgg", "al")


def test_a_process_that_nobody_launched_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert launched() == Launch(rank=0, world=1)


def test_a_launched_process_knows_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, RANK=3, WORLD_SIZE=4, LOCAL_RANK=1)
    assert launched() == Launch(rank=3, world=4, local_rank=1)
    assert not launched().leads


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="only Linux says when a process began")
def test_when_torchrun_began_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it starts again goes on with a run of its own, and never with an older one."""
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert torchrun_began() is None
    asked = (
        "import os; os.environ['TORCHELASTIC_RUN_ID'] = 'none'; from training.config.launch import torchrun_began; "
        "print(torchrun_began().timestamp())"
    )
    before = time.time()
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {asked!r}])"  # this one is the parent
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, cwd=ROOT, check=True)
    assert before - 2.5 < float(done.stdout) <= time.time()


def test_the_first_cause_is_what_torchrun_reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "error.json"
    launch(monkeypatch, TORCHELASTIC_ERROR_FILE=file)
    before = int(time.time())
    note_cause("a mistake\nin two lines")
    note_cause("what came of it")
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=2, error_file=str(file))
    assert before <= failure.timestamp <= time.time()
    summary = str(ChildFailedError("cvmain.py", {0: failure}))
    assert "traceback : a mistake in two lines\n" in summary
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "nowhere" / "error.json"))
    note_cause("it cannot be written, and nobody minds")
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE")
    note_cause("nobody has launched it")


@pytest.mark.parametrize(("rank", "world"), [("2", "2"), ("-1", "2"), ("", "2"), ("0", "two")])
def test_variables_that_do_not_fit_are_refused(rank: str, world: str, monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, RANK=rank, WORLD_SIZE=world)
    with pytest.raises(UsageError, match=f"^RANK={rank}, WORLD_SIZE={world}, .*: these are set by torchrun"):
        launched()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rank1", (1, None)),
        ("rank12:cuda:0", (12, "cuda:0")),
        ("cuda:1", (None, "cuda:1")),
        ("rank", (None, "rank")),
    ],
)
def test_an_entry_names_a_process_and_a_device(name: str, expected: tuple[int | None, str | None]) -> None:
    assert split_rank(name) == expected


@pytest.mark.parametrize(
    ("world", "places", "words"),
    [
        (5, "auto", "there are 5 of them for 4 layers, and a layer cannot be divided; start at most 4 processes"),
        (2, "cpu,cpu,cpu,cpu", '\'cpu\' names no rank; with several processes write "rank0" or "rank1:cuda:0"'),
        (3, "rank1,rank1,rank0,rank2", "rank 0 reads the batches, so it needs the first layer"),
        (2, "rank0,rank1,rank0,rank1", "the layers of a rank have to be neighbors"),
        (3, "rank0,rank0,rank1,rank1", r"expected each of the 3 ranks \(0 to 2\) to have a layer"),
        (
            1,
            "rank0,rank0,rank1,rank1",
            "'rank1' is a process of a run that torchrun starts: torchrun --nproc-per-node 2",
        ),
        (2, "rank0:cuda:9,rank0,rank1,rank1", "'cuda:9' is not there; this machine has cpu"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(
    world: int, places: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch(monkeypatch, RANK=0, WORLD_SIZE=world)
    with pytest.raises(UsageError, match=f"^al_gpu_list: .*{words}"):
        place(places)


@pytest.mark.parametrize(
    ("world", "replicas", "words"),
    [
        (3, [2, 2], "stage_replicas: got 2, 2, which is 4 ranks; expected numbers of at least 1 that make 3"),
        (6, [2, 1, 1, 1, 1], "stage_replicas: got 2, 1, 1, 1, 1: 5 stages for 4 layers"),
        (5, None, 'give stages replicas, which divide the rows: "stage_replicas": [2, 1, 1, 1]'),
        (1, [2, 1], "stage_replicas: got [2, 1]; start that many processes with torchrun --nproc-per-node 3"),
    ],
)
def test_numbers_of_replicas_that_do_not_fit_are_refused(
    world: int, replicas: list[int] | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch(monkeypatch, RANK=0, WORLD_SIZE=world)
    with pytest.raises(UsageError) as refused:
        place("auto", replicas)
    assert words in str(refused.value)


def test_replicas_and_a_cuda_graph_at_any_price_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a bug: the graph was left out without a word."""
    launch(monkeypatch, RANK=0, WORLD_SIZE=3)
    with pytest.raises(UsageError, match='cuda_graph: got "on" with stage_replicas'):
        place("auto", [2, 1], "cuda_graph=on")
    place("auto", [1, 1, 1], "cuda_graph=on")


def test_a_list_places_every_layer_on_a_device_of_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another process has, such as GPUs, is not asked for here."""
    launch(monkeypatch, RANK=0, WORLD_SIZE=2)
    machine = place("rank0,rank0:cpu:1,rank1:cuda:7,rank1")
    assert (machine.world, machine.ranks) == (2, (0, 0, 1, 1))
    assert machine.devices == ("auto", "cpu:1", "cuda:7", "auto")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--schedule al-fm", "schedule: got al-fm; over several processes"),
        ("--set compile=true", "compile: not over several processes"),
    ],
)
def test_what_several_processes_cannot_do_is_said(words: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, RANK=0, WORLD_SIZE=2)
    with pytest.raises(UsageError, match=f"^{told}"):
        read_command("vision", ["digits", "vgg", *words.split()])


@pytest.mark.parametrize(("asked", "left"), [("1", None), ("2", "2")])
def test_the_one_thread_that_torchrun_sets_is_not_taken_for_a_wish(
    asked: str, left: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch(monkeypatch, OMP_NUM_THREADS=asked, TORCHELASTIC_RUN_ID="none")
    monkeypatch.setattr("training.config.launch.of_parent", lambda name: False)
    prepare_launch()
    assert os.environ.get("OMP_NUM_THREADS") == left


def test_what_the_user_has_set_before_torchrun_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, OMP_NUM_THREADS=1, TORCHELASTIC_RUN_ID="none")
    monkeypatch.setattr("training.config.launch.of_parent", lambda name: name == "OMP_NUM_THREADS")
    prepare_launch()
    assert os.environ["OMP_NUM_THREADS"] == "1"
