"""The pages of a command: written after every epoch, never at the cost of training."""

from __future__ import annotations

import csv
import os
import shlex
import time
from pathlib import Path
from typing import Any

import pytest

from tests.training.report.html.made import make
from tests.training.report.html.reader import check
from training import experiment
from training.report import gallery
from training.report.gallery import Gallery


@pytest.mark.usefixtures("no_pictures")
def test_the_page_follows_every_epoch(tmp_path: Path) -> None:
    shown = Gallery(tmp_path, "digits", "vgg")
    for epochs in (1, 2):
        log = make(tmp_path, "al", epochs=5, turns=1, finished=0, done=[epochs])
        shown.draw_now_and_then([log])
        page = check((tmp_path / "digits_vgg.html").read_text())
        assert f"turn 1 of 1, epoch {epochs} of 5 so far" in page.text
    assert [path.name for path in shown.pages] == ["digits_vgg.html", "index.html"]
    assert shown.complaint is None


@pytest.mark.usefixtures("no_pictures")
def test_a_page_that_cannot_be_written_costs_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Gallery(tmp_path, "digits", "vgg")
    log = make(tmp_path, "al")
    (tmp_path / "digits_vgg.html").mkdir()
    shown.draw_now_and_then([log])
    assert shown.complaint is not None
    assert shown.complaint.startswith(f"no report: {tmp_path / 'digits_vgg.html'}: cannot be written (Is a directory)")
    (tmp_path / "digits_vgg.html").rmdir()
    shown.draw([log])
    assert shown.complaint is None

    def broken(*_: Any) -> Any:
        raise KeyError("no such thing")

    monkeypatch.setattr(gallery, "write_run", broken)
    shown.draw_now_and_then([log])
    assert shown.complaint == "no report: KeyError: 'no such thing'"


@pytest.mark.usefixtures("no_pictures", "one_thread")
def test_a_command_writes_its_pages_outside_the_training_time(
    datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    states: list[str] = []
    write = gallery.write_run

    def slowly(*arguments: Any) -> Any:
        time.sleep(0.5)
        pages = write(*arguments)
        states.append(check(pages[0].read_text()).row("state")[-1])
        return pages

    monkeypatch.setattr(gallery, "write_run", slowly)
    text = (
        "tinyImageNet vgg -r 2 --set width=0.05 --set epochs=2 --set train_batch_size=16 --limit-train 16 --workers 2"
    )
    text += f" --trace {tmp_path / 'trace.json'}"
    assert experiment.main("vision", shlex.split(f"--data-root {datasets} --out {tmp_path} {text}")) == 0
    each = [f"turn {turn} of 2, epoch {epoch} of 2 so far" for turn in (1, 2) for epoch in (1, 2)]
    assert states == [*each, *each, "finished"]
    with open(tmp_path / "tinyImageNet_vgg_bp.csv") as file:
        assert max(float(row["train_time"]) for row in csv.DictReader(file)) < 0.9
    printed = capsys.readouterr().out.splitlines()
    assert f"  {tmp_path / 'tinyImageNet_vgg.html'}" in printed
    assert f"  {tmp_path / 'index.html'}" in printed
    page = check((tmp_path / "tinyImageNet_vgg.html").read_text())
    assert page.row("state") == ["finished", "finished"]
    assert any("forward, batch 0" in tip for tip in page.tips), "the timeline of the traced turn"
    assert "trace.json" in check((tmp_path / "index.html").read_text()).text


def test_what_a_killed_command_left_of_a_page_goes(tmp_path: Path) -> None:
    old, new = tmp_path / ".digits_vgg.html.1-a.tmp", tmp_path / ".index.html.2-b.tmp"
    for left in (old, new):
        left.write_text("half")
    os.utime(old, (1, 1))
    Gallery(tmp_path, "digits", "vgg")
    assert [path.name for path in tmp_path.iterdir()] == [new.name]
