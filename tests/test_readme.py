"""Every command and every piece of Python in the README runs, on small data. CPU, no network."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from ALPackage.placement import __main__ as placement
from benchmarks import tables
from data import download
from training import experiment

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SMALL = {
    "cvmain.py": "--set width=0.05 --set epochs=1 --set train_batch_size=16",
    "nlpmain.py": "--set embedding_dim=50 --set x_hid=8 --set epochs=1 --set batch_size=16 --set max_len=12",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = [line.split("  #")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    inline = re.findall(r"`((?:python|make|pip) [^`<]*)`", README)
    return list(dict.fromkeys(line for line in [*lines, *inline] if line))


@pytest.mark.parametrize("command", [line for line in commands() if "main.py" in line])
def test_a_command_of_the_readme_runs(
    command: str, datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where `--trace trace.json` goes
    _, script, *argv = shlex.split(command)
    small = shlex.split(f"{SMALL[script]} --data-root {datasets} --out {tmp_path}")
    if "-r" not in argv and "--limit-train" not in argv:
        small += ["--limit-train", "40"]
    code: int | str | None
    try:
        code = experiment.main("vision" if script == "cvmain.py" else "text", [*argv, *small])
    except SystemExit as left:  # --list and --print-config print and leave
        code = left.code
    assert code == 0


def test_the_other_commands_of_the_readme_exist(tmp_path: Path) -> None:
    others = [line for line in commands() if "main.py" not in line]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for line in others:
        for part in line.split(" && "):
            words = shlex.split(part)
            if words[0] == "make":
                assert words[1] in targets
            elif words[:3] == ["python", "-m", "data.download"]:
                resource = download.find_resource(words[3])
                assert resource is not None
                for file in resource.files[0].holds:
                    (tmp_path / file).touch()
                assert download.main([*words[3:], "--data-root", str(tmp_path)]) == 0
            elif words[:3] == ["python", "-m", "ALPackage.placement"]:
                assert placement.main(words[3:]) == 0
            elif words[:3] == ["python", "-m", "benchmarks.tables"]:
                assert tables.main(["--check"]) == 0
            elif words[:3] == ["pip", "install", "-r"]:
                assert (ROOT / words[3]).exists()
            else:
                assert part in ("python -m venv .venv", ". .venv/bin/activate", "pip install tensorboard")
    assert {"make demo", "make test", "make test-torchtext"} <= set(others)


def test_the_python_of_the_readme_runs_and_learns(capsys: pytest.CaptureFixture[str]) -> None:
    code = "\n".join(blocks("python"))
    torch.manual_seed(0)
    exec(compile(code, "README.md", "exec"), {})
    assert float(capsys.readouterr().out.split()[-1]) > 0.9


def test_the_tables_of_the_readme_are_complete() -> None:
    from data import TEXT, VISION

    assert [name for name in [*VISION, *TEXT] if f"`{name}`" not in README] == []
    assert [
        flag
        for flag in ("--config", "--set", "--schedule", "--workers", "--data-root", "--out", "--trace", "--tensorboard")
        if f"`{flag}" not in README
    ] == []
