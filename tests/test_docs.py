"""Every page: its commands parse, those on embedded data run, its Python runs, its links resolve. CPU, no network.

A Python block that begins with `# file: NAME` is a file that the commands of its page use, such as a plug-in.
"""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from data import TEXT, VISION
from training import experiment
from training.config.schema import Task

pytestmark = pytest.mark.usefixtures("one_thread", "no_pictures")

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/**/*.md")])
SCRIPTS: dict[str, Task] = {"cvmain.py": "vision", "nlpmain.py": "text"}
#: What every command on a page gets, so that its run takes a second.
SMALL = {
    "cvmain.py": "--set epochs=1 --set train_batch_size=16 --set width=0.05",
    "nlpmain.py": "--set epochs=1 --set batch_size=16 --set embedding_dim=50 --set x_hid=8 --set max_len=12",
}
EMBEDDED = ("digits", "docstrings")
#: Packages whose modules are started with `python -m` and read arguments.
WITH_PARSER = ("ALPackage", "benchmarks", "data", "training")
#: Commands that are not ours to parse.
OTHERS = ("python -m venv .venv", ". .venv/bin/activate", "pip install tensorboard", "pip install .")


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text(page), flags=re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """Return the page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text(page), flags=re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    """Return the commands of the bash blocks and of the running text, without comments."""
    lines = [line.split("  #")[0].strip() for block in blocks(page, "bash") for line in block.splitlines()]
    lines += re.findall(r"`((?:python|make|pip) [^`<]*)`", prose(page))
    return [part for line in lines for part in line.split(" && ") if part]


def words_of(line: str) -> list[str]:
    """Return the words of a command; what torchrun starts counts as if Python did, in one process."""
    words = shlex.split(line)
    if words[0] != "torchrun":
        return words
    script = next(number for number, word in enumerate(words) if word.endswith(".py"))
    if "--bp-parallel" in words:  # it is for several
        place = words.index("--bp-parallel")
        del words[place : place + 2]
    return ["python", *words[script:]]


#: Each command once, and the page that it is on.
COMMANDS = {line: page for page in PAGES for line in commands(page)}
OURS = {line: page for line, page in COMMANDS.items() if set(SCRIPTS) & set(line.split())}
TRAINING = [line for line in OURS if not {"--list", "--print-config", "--help"} & set(line.split())]
#: With a file of the page: a plug-in, or a network of the user's.
ON_PLUGINS = [line for line in TRAINING if "--plugin" in line or re.search(r"\.py:\w", line)]
ON_EMBEDDED = [line for line in TRAINING if set(EMBEDDED) & set(line.split()) and line not in ON_PLUGINS]
ON_FILES = [line for line in TRAINING if line not in ON_PLUGINS + ON_EMBEDDED]


def call(script: str, argv: list[str]) -> int | str | None:
    try:
        return experiment.main(SCRIPTS[script], argv)
    except SystemExit as left:  # what prints and leaves
        return left.code


def small(line: str, data_root: Path, out: Path) -> tuple[str, list[str]]:
    """Return the script and the arguments of a command, with a tiny network and a few samples."""
    _, script, *argv = words_of(line)
    argv += [*shlex.split(SMALL[script]), "--data-root", str(data_root), "--out", str(out)]
    if "grow=" in line:  # it has an epoch for every layer at least
        argv.remove("epochs=1")
        argv.pop(argv.index("--set", len(words_of(line)) - 2))
    if "mlp" in argv:  # it has no width
        argv.remove("width=0.05")
        argv.pop(argv.index("--data-root") - 1)
    return script, argv if "--limit-train" in argv or "-r" in argv else [*argv, "--limit-train", "40"]


@pytest.mark.parametrize("line", [line for line in OURS if line not in ON_PLUGINS])
def test_a_command_parses(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, script, *argv = words_of(line)
    assert call(script, [*argv, "--print-config"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("line", ON_EMBEDDED)
def test_a_command_on_embedded_data_runs(
    line: str, datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # where `--trace trace.json` goes
    assert call(*small(line, datasets, tmp_path)) == 0, capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("line", ON_FILES)
def test_a_command_on_files_runs(
    line: str, datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(*small(line, datasets, tmp_path)) == 0, capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("line", ON_PLUGINS)
def test_a_plug_in_runs(line: str, tmp_path: Path) -> None:
    for block in blocks(OURS[line], "python"):
        if found := re.match(r"# file: (\S+)\n", block):
            (tmp_path / found[1]).write_text(block)
    script, argv = small(line, tmp_path, tmp_path)
    # In a process of its own: what a plug-in registers stays.
    command = [sys.executable, str(ROOT / script), *argv]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("*.csv")) != []


@pytest.mark.parametrize("line", [line for line in COMMANDS if line not in OURS])
def test_another_command_exists(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = words_of(line)
    if words[0] == "make":
        assert words[1] in re.findall(r"^([\w-]+):", text(ROOT / "Makefile"), flags=re.MULTILINE)
    elif words[:3] == ["pip", "install", "-r"]:
        assert (ROOT / words[3]).exists()
    elif words[:2] == ["python", "-m"] and words[2].split(".")[0] in WITH_PARSER:
        monkeypatch.setattr(sys, "argv", [*words[2:], "--help"])  # the last word: what precedes it is read
        with pytest.raises(SystemExit) as left:
            runpy.run_module(words[2], run_name="__main__")
        shown = capsys.readouterr()
        assert left.value.code == 0, shown.err
        assert [word for word in words if word.startswith("--") and word not in shown.out] == []
    elif words[0] == "python" and words[1].endswith(".py"):
        assert (ROOT / words[1]).exists()
    else:
        assert line in OTHERS, f"nothing checks {line!r}: add it to a test"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("line", [line for line in COMMANDS if line.endswith("/tmp/try.json")])
def test_a_benchmark_can_be_tried_out(line: str, tmp_path: Path) -> None:
    words = [sys.executable, *shlex.split(line)[1:-1], str(tmp_path / "try.json")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "try.json").exists()


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name)
def test_the_python_of_a_page_runs_and_learns(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = "\n".join(block for block in blocks(page, "python") if not block.startswith("# file: "))
    torch.manual_seed(0)
    exec(compile(code, str(page), "exec"), {"__name__": "page"})
    found = re.search(r"accuracy ([\d.]+)", capsys.readouterr().out)
    assert found is not None
    assert float(found[1]) > 0.9


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", prose(page)):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        inside = re.match(r"[a-z]+:", target) is None
        if inside and (not there.exists() or (anchor and anchor not in anchors(there))):
            broken.append(target)
    assert broken == []


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    readme = text(ROOT / "README.md")
    assert len(readme.splitlines()) <= 180
    assert [page.name for page in ROOT.glob("docs/*.md") if f"(docs/{page.name})" not in readme] == []


def test_every_data_set_option_and_key_has_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    data, readme, keys = text(ROOT / "docs/data.md"), text(ROOT / "README.md"), text(ROOT / "docs/configuration.md")
    assert [dataset for dataset in [*VISION, *TEXT] if f"`{dataset}`" not in data] == []
    assert call("cvmain.py", ["--help"]) == 0
    options = set(re.findall(r"^  (?:-\w[^,]*, )?(--[a-z-]+)", capsys.readouterr().out, flags=re.MULTILINE))
    assert {"--method", "--set"} <= options
    assert {option for option in options - {"--repeat"} if option not in readme} == set()
    for script in SCRIPTS:
        assert call(script, ["--print-config"]) == 0
        shown = re.findall(r'^    "(\w+)":', capsys.readouterr().out, flags=re.MULTILINE)
        assert [key for key in shown if f"`{key}`" not in keys] == []


def test_the_tables_of_keys_are_those_of_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    from training.config import reference

    assert reference.main(["--check", str(ROOT / "docs/configuration.md")]) == 0, capsys.readouterr().out
