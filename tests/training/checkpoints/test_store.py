"""Checkpoints: whole or not there, the newest that can be read, and no code in them."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from training.checkpoints import info as module
from training.checkpoints import tensors
from training.checkpoints.info import CheckpointInfo, Position, RunRecord
from training.checkpoints.store import Checkpoint, Store, checkpoint_folder, run_name
from training.errors import UsageError

LOG: dict[str, Any] = {"rows": [{"loss": float("inf"), "epoch": 1}], "by_turn": {10: 1, 9: 2}}
RECORD = RunRecord(
    dataset="digits", model="vgg", method="al", methods_of_run=["al"], info={"config": {"seed": 1}, "threads": 1}
)
#: The files of a checkpoint, after its position.
FILES = (".1-a.pt", ".2-b_1.pt", ".json")


def info(*position: int) -> CheckpointInfo:
    turn, epoch, batch = position
    return CheckpointInfo(
        dataset="digits",
        model="vgg",
        method="al",
        date="2026-01-01",
        turn=turn,
        epoch=epoch,
        batch=batch,
        step=batch,
        turns=2,
        epochs=10,
        batches_per_epoch=100,
        train_time=1.5,
        losses={"count": 3},
        log=LOG,
    )


def state(number: int) -> dict[str, Any]:
    return {"a": {"layer": torch.full((3,), float(number))}, "b/1": [torch.tensor(number)]}


def open_store(folder: Path, keep: int, run: str) -> Store:
    """Return a store for another process of the run, or another run."""
    made = Store(folder, keep, run)
    made.begin(RECORD)
    return made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = open_store(tmp_path / "digits_vgg_al", 2, "20260101T000000.000000Z")
    yield made
    made.close()


def save(store: Store, *positions: tuple[int, int, int]) -> None:
    for position in positions:
        store.save(info(*position), state(position[2]))
    store.wait()


def newest(store: Store) -> Checkpoint:
    found = store.newest()
    assert found is not None
    return found


def stems(store: Store) -> list[str]:
    return sorted(path.name for path in (store.folder / store.run).iterdir() if path.name != "run.json")


def files(*positions: tuple[int, int, int]) -> list[str]:
    return sorted(f"turn{t}-epoch{e}-batch{b}{end}" for t, e, b in positions for end in FILES)


def test_what_was_saved_comes_back(store: Store) -> None:
    assert not store.written
    save(store, (1, 3, 20))
    assert store.written
    found = newest(store)
    assert (found.run, found.info.position) == (store.run, Position(1, 3, 20))
    assert found.record == RECORD
    assert found.info.step == 20
    assert list(found.layers) == ["a", "b/1"]
    assert torch.equal(found.layers["a"]["layer"], torch.full((3,), 20.0))
    assert found.info.log["rows"] == LOG["rows"]
    assert not found.info.finished
    assert store.notices == []


def test_the_last_ones_are_kept_and_order_is_that_of_numbers(store: Store) -> None:
    save(store, (1, 9, 100), (1, 10, 7), (1, 10, 20), (2, 1, 3))
    assert stems(store) == files((1, 10, 20), (2, 1, 3))
    assert newest(store).info.position == Position(2, 1, 3)


def test_whoever_changes_the_current_folder_does_not_move_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a bug: a tracker that went elsewhere for a moment made the thread that writes fail."""
    monkeypatch.chdir(tmp_path)
    store = open_store(Path("here") / "digits_vgg_al", 2, run_name())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    save(store, (1, 1, 3))
    store.close()
    assert list((tmp_path / "here" / "digits_vgg_al").glob("*/*.json"))
    assert not list((tmp_path / "elsewhere").iterdir())


def test_with_none_to_keep_nothing_is_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "none", 0, run_name())
    save(store, (1, 1, 1))
    assert store.newest() is None
    assert not store.folder.exists()


def test_a_later_run_replaces_the_earlier_ones_with_its_first_checkpoint(store: Store) -> None:
    save(store, (2, 9, 9))
    later = open_store(store.folder, 2, "20260101T000001.000000Z")
    assert newest(later).info.position == Position(2, 9, 9)
    save(later, (1, 1, 1))
    assert newest(later).info.position == Position(1, 1, 1)
    assert os.listdir(store.folder) == [later.run]
    assert run_name() > later.run


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit(path: Path) -> None:
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "epoch": 7}))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("suffix", "damage", "words"),
    [
        (".1-a.pt", cut, "its tensors are not what was written"),
        (".2-b_1.pt", flip, "its tensors are not what was written"),
        (".1-a.pt", empty, "its tensors are not what was written"),
        (".2-b_1.pt", Path.unlink, "turn1-epoch2-batch5.2-b_1.pt is missing"),
        (".json", cut, ""),
        (".json", empty, ""),
        (".json", edit, "its JSON is not what was written"),
    ],
)
def test_a_damaged_one_falls_back_to_the_one_before_and_says_so(
    store: Store, suffix: str, damage: Any, words: str
) -> None:
    save(store, (1, 1, 5), (1, 2, 5))
    damage(store.folder / store.run / f"turn1-epoch2-batch5{suffix}")
    assert newest(store).info.position == Position(1, 1, 5)
    (notice,) = store.notices
    assert "turn1-epoch2-batch5 cannot be used" in notice
    assert words in notice
    assert "\n" not in notice


@pytest.mark.parametrize("content", ["null", "5", "[]", "{}", '"text"'])
def test_json_that_is_something_else_is_passed_over(store: Store, content: str) -> None:
    save(store, (1, 1, 5), (1, 2, 5))
    (store.folder / store.run / "turn1-epoch2-batch5.json").write_text(content)
    assert newest(store).info.position == Position(1, 1, 5)


@pytest.mark.parametrize("name", [name for name in CheckpointInfo.model_fields if name != "format"])
@pytest.mark.parametrize("value", [None, [[]]])
def test_facts_of_a_wrong_kind_are_passed_over_though_the_checksum_fits(store: Store, name: str, value: Any) -> None:
    save(store, (1, 1, 5), (1, 2, 5))
    path = store.folder / store.run / "turn1-epoch2-batch5.json"
    told = {**json.loads(path.read_text()), name: value}
    del told["sha256"]
    path.write_text(json.dumps({"sha256": module.checksum(told), **told}))
    for with_layers in (True, False):
        found = store.newest(with_layers=with_layers)
        assert found is not None
        assert found.info.position == Position(1, 1, 5)
    assert "its JSON holds no valid" in store.notices[0]


def test_a_checkpoint_that_was_moved_to_another_place_is_passed_over(store: Store) -> None:
    save(store, (1, 1, 5), (1, 2, 5))
    folder = store.folder / store.run
    for suffix in FILES:
        (folder / f"turn1-epoch2-batch5{suffix}").rename(folder / f"turn1-epoch9-batch5{suffix}")
    assert newest(store).info.position == Position(1, 1, 5)
    assert "its JSON belongs to another place" in store.notices[0]
    other = Store(store.folder.rename(store.folder.with_name("digits_vgg_bp")), 2, store.run)
    assert other.newest() is None


def test_damaged_ones_do_not_drive_out_those_that_are_written_after_them(store: Store) -> None:
    """Guards a bug: the highest positions were kept, whole or not, and a checkpoint was deleted as it was written."""
    save(store, (1, 1, 5), (1, 1, 6))
    more = open_store(store.folder, 9, store.run)
    save(more, (1, 2, 5), (1, 2, 6), (1, 2, 7))
    for path in (store.folder / store.run).glob("turn1-epoch2*a.pt"):
        cut(path)
    again = open_store(store.folder, 2, store.run)
    assert newest(again).info.position == Position(1, 1, 6)
    save(again, (1, 1, 7))
    assert newest(again).info.position == Position(1, 1, 7)
    assert stems(again) == files((1, 1, 6), (1, 1, 7))
    cut(store.folder / store.run / "turn1-epoch1-batch6.1-a.pt")
    last = open_store(store.folder, 2, store.run)
    save(last, (1, 1, 8))
    cut(store.folder / store.run / "turn1-epoch1-batch8.1-a.pt")
    assert newest(last).info.position == Position(1, 1, 7)


def test_a_damaged_one_that_is_written_again_is_good(store: Store) -> None:
    """Guards a bug: what was damaged once was removed for ever."""
    save(store, (1, 1, 5), (1, 1, 6))
    cut(store.folder / store.run / "turn1-epoch1-batch6.1-a.pt")
    again = open_store(store.folder, 2, store.run)
    assert newest(again).info.position == Position(1, 1, 5)
    save(again, (1, 1, 6))
    again.finish_turn(LOG)
    assert newest(again).info.turn_finished


def test_what_the_system_does_not_let_us_read_is_told_and_not_taken_for_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards a bug: the run began anew, and its first checkpoint removed the ones that could not be read."""
    save(store, (1, 1, 5))

    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    for name in ("open", "read_text", "iterdir"):
        with monkeypatch.context() as patched:
            patched.setattr(Path, name, refuse)
            with pytest.raises(UsageError, match=r"cannot be read \(Permission denied\)"):
                store.newest()
    assert newest(store).info.position == Position(1, 1, 5)


def test_a_folder_that_cannot_be_written_is_told_before_training(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file")
    store = Store(tmp_path / "checkpoints" / "digits_vgg_al", 1, run_name())
    with pytest.raises(UsageError, match="a checkpoint could not be written"):
        store.prepare()
    assert store.newest() is None


def test_where_all_are_damaged_there_is_none(store: Store) -> None:
    save(store, (1, 1, 5), (1, 2, 5))
    for path in (store.folder / store.run).glob("*.pt"):
        empty(path)
    assert store.newest() is None
    assert len(store.notices) == 2


def test_a_run_without_its_record_is_passed_over(store: Store) -> None:
    save(store, (1, 1, 5))
    path = store.folder / store.run / "run.json"
    for damage, words in ((cut, "Expecting"), (Path.unlink, "run.json is missing")):
        damage(path)
        assert store.newest() is None
        assert words in store.notices[-1]


class Hostile:
    """Unpickling it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


def test_a_file_that_would_run_code_is_refused_and_runs_none(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even with checksums that fit."""
    save(store, (1, 1, 5))
    target = tmp_path / "harm"
    store.save(info(1, 2, 5), {"a": Hostile(target)})
    store.wait()
    torch.load(store.folder / store.run / "turn1-epoch2-batch5.1-a.pt", weights_only=False)
    assert target.exists(), "the file is harmless, so the test would show nothing"
    target.unlink()
    assert newest(store).info.position == Position(1, 1, 5)
    assert not target.exists()
    assert len(store.notices) == 1
    path = store.folder / store.run / "turn1-epoch1-batch5.1-a.pt"
    path.write_bytes(pickle.dumps(Hostile(target)))
    assert store.newest() is None
    assert not target.exists()


def test_another_format_is_not_guessed_at(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    save(store, (1, 1, 5))
    monkeypatch.setattr(module, "FORMAT", 99)
    assert store.newest() is None
    assert "its format is 2, and this version reads 99" in store.notices[0]


def test_a_checkpoint_of_the_earlier_format_is_passed_over_with_the_reason(store: Store) -> None:
    """One JSON with everything in it and one file of tensors."""
    folder = store.folder / store.run
    folder.mkdir(parents=True)
    old = {"format": 1, "dataset": "digits", "model": "vgg", "method": "al", "turn": 1, "epoch": 2, "batch": 5}
    text = json.dumps({"sha256": module.checksum(old), **old})
    (folder / "turn1-epoch2-batch5.json").write_text(text)
    (folder / "turn1-epoch2-batch5.pt").write_bytes(b"tensors")
    assert store.newest() is None
    (notice,) = store.notices
    assert "turn1-epoch2-batch5 cannot be used (its format is 1, and this version reads 2): passed over" in notice


def test_no_copy_of_the_tensors_is_made_in_memory(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a fault: a checkpoint was written by way of a buffer as large as itself."""
    sizes: list[int] = []

    class Watched(tensors._HashedWriter):
        def write(self, content: bytes) -> int:
            sizes.append(len(content))
            return super().write(content)

    monkeypatch.setattr(tensors, "_HashedWriter", Watched)
    store.save(info(1, 1, 5), {str(n): torch.zeros(100_000) for n in range(5)})
    store.wait()
    assert max(sizes) <= 400_000 < sum(sizes), "tensor by tensor"


def test_a_write_that_fails_is_told_in_one_line_and_leaves_the_earlier_ones(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(store, (1, 1, 5))

    def full(*arguments: Any) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        store.save(info(1, 2, 5), state(2))
        with pytest.raises(UsageError, match=r"could not be written \(No space left on device\)"):
            store.wait()
    assert newest(store).info.position == Position(1, 1, 5)
    assert store.notices == []
    assert stems(store) == files((1, 1, 5))
    save(store, (1, 3, 5))
    assert newest(store).info.position == Position(1, 3, 5)


def test_a_file_that_is_too_large_for_the_system_is_told_in_one_line(store: Store) -> None:
    resource = pytest.importorskip("resource", reason="limits of file sizes are POSIX")
    save(store, (1, 1, 5))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        store.save(info(1, 2, 5), {"a": torch.zeros(100_000)})
        with pytest.raises(UsageError, match="File too large"):
            store.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert newest(store).info.position == Position(1, 1, 5)
    assert stems(store) == files((1, 1, 5))


def test_what_a_killed_writer_left_goes_with_the_next_checkpoint(store: Store) -> None:
    save(store, (1, 1, 5))
    folder = store.folder / store.run
    (folder / ".turn1-epoch2-batch5.json.77.tmp").write_text("{")
    shutil.copy(folder / "turn1-epoch1-batch5.1-a.pt", folder / "turn1-epoch2-batch5.1-a.pt")
    assert newest(store).info.position == Position(1, 1, 5)
    save(store, (1, 3, 5))
    assert stems(store) == files((1, 1, 5), (1, 3, 5))


def test_the_end_of_a_turn_is_noted_and_the_checksum_follows(store: Store) -> None:
    save(store, (2, 1, 5))
    store.finish_turn({"rows": [1]})
    found = newest(store)
    assert found.info.turn_finished
    assert found.info.finished
    assert found.info.log == {"rows": [1]}
    assert torch.equal(found.layers["a"]["layer"], torch.full((3,), 5.0))


def test_the_folder_is_named_for_the_method() -> None:
    assert checkpoint_folder(Path("out"), "digits", "vgg", "al") == Path("out/checkpoints/digits_vgg_al")


@pytest.mark.parametrize("number", range(1, 7))
def test_a_signal_in_the_middle_of_a_file_stays_a_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Guards a bug: torch made "unexpected pos" of it, and the run ended with a traceback and exit code 1."""
    write, calls = tensors._HashedWriter.write, itertools.count(1)

    def interrupted(self: Any, content: bytes) -> int:
        if next(calls) == number:
            raise KeyboardInterrupt
        return write(self, content)

    monkeypatch.setattr(tensors._HashedWriter, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tensors.save_tensors(tmp_path / "a.pt", {"weight": torch.zeros(1000), "bias": torch.zeros(10)})
    assert list(tmp_path.iterdir()) == []
