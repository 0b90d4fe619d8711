"""A command over several processes: the same numbers, one word for all, and nobody stays when one dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.faults.outcome import differences, outcome

from ..launched import ROOT, SMALL, epochs_in, free_port, launch
from ..test_experiment import rows

#: Seconds within which all processes have to end, from the fault on: `python -m benchmarks.faults.ends` shows how many
#: it takes.
LIMIT = 10.0
TEXT = (
    "imdb transformer --method al --set epochs=2 --set embedding_dim=50 --set x_hid=8 --set y_hid=8 "
    "--set batch_size=16 --set max_len=12"
)


def alone(text: str, script: str = "cvmain.py") -> None:
    """Run a command in one process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, script, *text.split()], cwd=ROOT, env=environment, check=True, capture_output=True)


COMMAND = f"{SMALL} --set checkpoint_keep=9 --set epochs=2"


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of one process."""
    out = tmp_path_factory.mktemp("one")
    alone(f"{COMMAND} --out {out}")
    return out


def test_two_processes_leave_what_one_does(one: Path, tmp_path: Path) -> None:
    """Losses, accuracies at every depth, and the weights of the best epoch, bit for bit."""
    two, command = tmp_path / "two", COMMAND
    expected = rows(one / "digits_vgg_al.csv")
    with launch(tmp_path, 2, f"{command} --out {two}") as launched:
        first, second = launched.ends()
    assert (first.code, second.code) == (0, 0), first.text + second.text
    assert second.text == "", "only rank 0 prints"
    assert rows(two / "digits_vgg_al.csv") == expected
    kept = "models/digits_vgg_al/turn1.json"
    assert list(differences(outcome(two)[kept], outcome(one)[kept])) == []
    info = json.loads((two / "digits_vgg_al.json").read_text())
    assert info["schedule"] == "distributed"
    ranks = info["utilization"]["ranks"]
    assert [layer for rank in ranks for layer in rank["layers"]] == ["conv_1", "conv_2", "conv_3", "conv_4"]
    assert sum(rank["weights"] for rank in ranks) == info["utilization"]["weights"] > 0
    assert info["devices"] == [f"rank{rank['rank']}" for rank in ranks for _ in rank["layers"]]
    assert ranks[0]["sent"]["rank1"] > 0
    exits = [json.loads((out / "digits_vgg_al.json").read_text())["early_exit"] for out in (two, one)]
    assert exits[0] == exits[1]
    assert exits[0][0]["epoch"] == 1, "the best epoch's weights, not the last one's"


@pytest.mark.slow
def test_two_processes_go_on_where_one_was(one: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(one, tmp_path / "out"))
    forget_the_last_epoch(out)
    with launch(tmp_path, 2, f"{COMMAND} --resume --out {out}") as launched:
        assert [end.code for end in launched.ends()] == [0, 0]
    assert rows(out / "digits_vgg_al.csv") == rows(one / "digits_vgg_al.csv")
    assert json.loads((out / "digits_vgg_al.json").read_text())["resumptions"] == 1


def forget_the_last_epoch(out: Path, name: str = "digits_vgg_al") -> None:
    [run] = (out / "checkpoints" / name).iterdir()
    removed = [path for path in run.iterdir() if "epoch2" in path.name]
    assert removed
    for path in removed:
        path.unlink()


def test_a_mistake_is_the_same_line_and_code_in_every_process(tmp_path: Path) -> None:
    with launch(tmp_path, 2, f"{SMALL} --schedule sequential --out {tmp_path / 'out'}") as launched:
        for end in launched.ends():
            assert (end.code, end.text.count("\n")) == (2, 1), end.text
            assert end.text.startswith("error: schedule: got sequential; over several processes")


@pytest.mark.slow
def test_processes_with_different_commands_say_what_differs(tmp_path: Path) -> None:
    with launch(tmp_path, 2, SMALL, f"--out {tmp_path / 'a'}", f"--out {tmp_path / 'b'} --set epochs=3") as launched:
        for end in launched.ends():
            assert end.code == 2
            assert end.text.startswith("error: epochs: rank 1 has 3, rank 0 has 20; all ranks need the same command")


@pytest.mark.slow
def test_a_mistake_in_one_process_ends_all_and_says_where(tmp_path: Path) -> None:
    """Such as another configuration file on one of the hosts."""
    with launch(tmp_path, 2, f"{SMALL} --out {tmp_path / 'out'}", "", "--set epochs=nine") as launched:
        first, second = launched.ends()
    assert (first.code, second.code) == (2, 2), first.text + second.text
    assert second.text.startswith("error: --set epochs=nine: epochs: ")
    assert first.text.strip() == f"{second.text.splitlines()[0]} (in rank 1)"


@pytest.mark.slow
def test_a_mistake_that_only_rank_0_can_see_ends_all(tmp_path: Path) -> None:
    """Such as data that is not there: the other processes need none."""
    missing = f"tinyImageNet vgg --method al --data-root {tmp_path / 'nothing'} --out {tmp_path / 'out'}"
    with launch(tmp_path, 2, f"{missing} --set width=0.05") as launched:
        first, second = launched.ends()
    assert (first.code, second.code) == (2, 2)
    words = first.text.strip().removeprefix("error: ")
    assert second.text.strip().endswith(words)
    assert second.text.startswith("rank 1 (")


@pytest.mark.slow
@pytest.mark.parametrize("dies", [0, 1])
def test_a_process_that_is_killed_ends_the_others_with_its_name(tmp_path: Path, dies: int) -> None:
    out = tmp_path / "out"
    with launch(tmp_path, 2, f"{SMALL} --set epochs=500 --out {out}") as launched:
        launched.wait_for(lambda: epochs_in(out) >= 1)
        launched.send(dies, signal.SIGKILL)
        end = launched.ends()[1 - dies]
    assert (end.code, end.seconds < LIMIT) == (1, True), end.text
    *_, line = end.text.strip().splitlines()
    assert f"rank {dies} (" in line
    assert "conv_" in line or dies == 0
    assert "Traceback" not in end.text


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [0, 1])
def test_a_process_that_is_stopped_is_killed(tmp_path: Path, stopped: int) -> None:
    out = tmp_path / "out"
    with launch(tmp_path, 2, f"{SMALL} --set epochs=500 --out {out}") as launched:
        launched.wait_for(lambda: epochs_in(out) >= 1)
        launched.send(stopped, signal.SIGSTOP)
        ends = launched.ends()
    assert ends[stopped].code == -signal.SIGKILL
    assert (ends[1 - stopped].code, ends[1 - stopped].seconds < LIMIT) == (1, True), ends[1 - stopped].text
    assert f"rank {stopped} (" in ends[1 - stopped].text.strip().splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("ranks", [(0,), (1,), (0, 1)])
def test_a_signal_to_any_process_ends_all_with_a_checkpoint(
    tmp_path: Path, signum: int, code: int, ranks: tuple[int, ...]
) -> None:
    one, out, command = tmp_path / "one", tmp_path / "out", f"{SMALL} --set epochs=12"
    with launch(tmp_path, 2, f"{command} --out {out}") as launched:
        launched.wait_for(lambda: epochs_in(out) >= 2)
        for rank in ranks:
            launched.send(rank, signum)
        ends = launched.ends()
    assert [end.code for end in ends] == [code, code], ends[0].text + ends[1].text
    assert all(end.seconds < LIMIT for end in ends)
    assert "with --resume continues from the last checkpoint" in ends[0].text
    with launch(tmp_path, 2, f"{command} --resume --out {out}") as launched:
        assert [end.code for end in launched.ends()] == [0, 0]
    alone(f"{command} --out {one}")
    assert rows(out / "digits_vgg_al.csv") == rows(one / "digits_vgg_al.csv")


@pytest.mark.slow
def test_a_text_model_and_a_list_of_ranks_and_of_three_processes_on_in_one(datasets: Path, tmp_path: Path) -> None:
    one, three = tmp_path / "one", tmp_path / "three"
    text = f"{TEXT} --data-root {datasets} --set checkpoint_keep=9"
    alone(f"{text} --out {one}", "nlpmain.py")
    places = "--set al_gpu_list=rank0,rank2,rank2,rank1"
    with launch(tmp_path, 3, f"{text} {places} --out {three}", script="nlpmain.py") as launched:
        ends = launched.ends()
    assert [end.code for end in ends] == [0, 0, 0], ends[0].text
    expected = rows(one / "imdb_transformer_al.csv")
    assert rows(three / "imdb_transformer_al.csv") == expected
    forget_the_last_epoch(three, "imdb_transformer_al")
    alone(f"{text} --resume --out {three}", "nlpmain.py")
    assert rows(three / "imdb_transformer_al.csv") == expected


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pgrep") is None, reason="pgrep finds the processes that torchrun has started")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("standalone", [False, True])
def test_torchrun_starts_again_what_was_killed_and_nothing_differs(tmp_path: Path, standalone: bool) -> None:
    """Guards a hang: with --standalone it starts at the same store, where the orders of before still stood."""
    one, out = tmp_path / "one", tmp_path / "out"
    command = f"{SMALL} --set epochs=8 --set checkpoint_every=3"
    alone(f"{command} --out {one}")
    where = ["--standalone"] if standalone else ["--master-port", str(free_port())]
    torchrun = [sys.executable, "-m", "torch.distributed.run", *where, "--nproc-per-node", "2", "--max-restarts", "3"]
    with subprocess.Popen(
        [*torchrun, "cvmain.py", *command.split(), "--out", str(out)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        for epochs, local_rank in ((2, 1), (5, 0)):
            deadline = time.monotonic() + 60
            while epochs_in(out) < epochs and time.monotonic() < deadline:
                time.sleep(0.02)
            found = subprocess.run(["pgrep", "-P", str(running.pid)], capture_output=True, text=True, check=True)
            os.kill(sorted(map(int, found.stdout.split()))[local_rank], signal.SIGKILL)
        text, _ = running.communicate(timeout=200)
    assert running.returncode == 0, text
    assert rows(out / "digits_vgg_al.csv") == rows(one / "digits_vgg_al.csv")
    assert json.loads((out / "digits_vgg_al.json").read_text())["resumptions"] == 2


@pytest.mark.slow
def test_what_torchrun_starts_takes_over_no_earlier_run(tmp_path: Path) -> None:
    """Guards a bug: a start after a failure went on with a run that an earlier command had finished."""
    out, command = tmp_path / "out", f"{SMALL} --set epochs=1"
    alone(f"{command} --out {out}")
    before = json.loads((out / "digits_vgg_al.json").read_text())
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    torchrun += ["--master-port", str(free_port())]
    done = subprocess.run(
        [*torchrun, "cvmain.py", *command.split(), "--out", str(out)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TORCHELASTIC_RESTART_COUNT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "finished before" not in done.stdout
    after = json.loads((out / "digits_vgg_al.json").read_text())
    assert after["provenance"]["date"] > before["provenance"]["date"]
    assert after["resumptions"] == 0
