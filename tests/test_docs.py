"""Every page: its commands parse, those on embedded data run, its Python runs, its links resolve. CPU, no network."""

from __future__ import annotations

import importlib.util
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
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("benchmarks/*/*.md")]
)
SCRIPTS: dict[str, Task] = {"cvmain.py": "vision", "nlpmain.py": "text"}
#: What every run on a page gets, so that it takes a second.
SMALL = {
    "cvmain.py": "--set width=0.05 --set epochs=1 --set train_batch_size=16 --limit-train 40",
    "nlpmain.py": "--set embedding_dim=50 --set x_hid=8 --set epochs=1 --set batch_size=16 --set max_len=12 "
    "--limit-train 40",
}
EMBEDDED = ("digits", "docstrings")
#: Commands without a parser of ours.
OTHERS = ("python -m venv .venv", ". .venv/bin/activate", "pip install tensorboard")
#: Modules that are started with `python -m` and take no argument.
WITHOUT_ARGUMENTS = ("training.demo", "training.config.reference")


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    """Return the page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text(page), flags=re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text(page), flags=re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    """Return the lines of the bash blocks and the commands in running text, without comments, `&&` taken apart."""
    lines = [line.split("  #")[0].strip() for block in blocks(page, "bash") for line in block.splitlines()]
    lines += re.findall(r"`((?:python|make|pip) [^`<]*)`", prose(page))
    return list(dict.fromkeys(part for line in lines for part in line.split(" && ") if part))


ALL = list(dict.fromkeys((name(page), line) for page in PAGES for line in commands(page)))
RUNS = [(page, line) for page, line in ALL if any(script in line.split() for script in SCRIPTS)]


def needs_no_file(line: str) -> bool:
    """Tell whether a command of ours runs on embedded data, or on that of a plug-in."""
    return any(f" {dataset} " in line for dataset in EMBEDDED) or "--plugin" in line


def once(embedded: bool) -> list[tuple[str, str]]:
    """Return the commands that train, each once, and the pages that they are on."""
    trains = {line: page for page, line in RUNS if not {"--list", "--print-config"} & set(line.split())}
    return [(page, line) for line, page in trains.items() if needs_no_file(line) == embedded and "<" not in line]


def write_plugins(page: str, folder: Path) -> None:
    """Write the files that the page shows: Python blocks that begin with `# file: NAME`."""
    for block in blocks(ROOT / page, "python"):
        if found := re.match(r"# file: (\S+)\n", block):
            (folder / found[1]).write_text(block)


def call(script: str, argv: list[str]) -> int | str | None:
    try:
        return experiment.main(SCRIPTS[script], argv)
    except SystemExit as left:  # what prints and leaves
        return left.code


@pytest.mark.parametrize(("page", "line"), RUNS)
def test_a_command_parses(
    page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_plugins(page, tmp_path)
    _, script, *argv = shlex.split(line)
    assert call(script, [*argv, "--print-config"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(("page", "line"), once(embedded=True))
def test_a_command_on_embedded_data_runs(
    page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_plugins(page, tmp_path)
    run_small(line, tmp_path, tmp_path, monkeypatch, capsys)


@pytest.mark.slow
@pytest.mark.parametrize(("page", "line"), once(embedded=False))
def test_a_command_on_other_data_runs(
    page: str,
    line: str,
    datasets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_small(line, datasets, tmp_path, monkeypatch, capsys)


def run_small(
    line: str, data_root: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run a command with a tiny network on a few samples, in the folder `out`."""
    monkeypatch.chdir(out)
    _, script, *argv = shlex.split(line)
    small = shlex.split(SMALL[script])
    if "mlp" in argv:  # has no `width`
        small = small[2:]
    if "--limit-train" in argv or "-r" in argv:
        small = small[: small.index("--limit-train")]
    code = call(script, [*argv, *small, "--data-root", str(data_root), "--out", str(out)])
    assert code == 0, capsys.readouterr().err


@pytest.mark.parametrize("line", list(dict.fromkeys(line for page, line in ALL if (page, line) not in RUNS)))
def test_another_command_exists(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(line)
    if words[0] == "make":
        assert words[1] in re.findall(r"^([\w-]+):", text(ROOT / "Makefile"), flags=re.MULTILINE)
    elif words[:3] == ["pip", "install", "-r"]:
        assert (ROOT / words[3]).exists()
    elif words[:2] == ["python", "-m"] and words[2] in WITHOUT_ARGUMENTS:
        assert importlib.util.find_spec(words[2]) is not None
        assert len(words) == 3
    elif words[:2] == ["python", "-m"] and words[2].split(".")[0] in ("ALPackage", "benchmarks", "data"):
        check_module(words[2], words[3:], capsys)
    elif words[0] == "python" and words[1].endswith(".py"):
        assert (ROOT / words[1]).exists()
        assert len(words) == 2
    else:
        assert line in OTHERS, f"nothing checks {line!r}: add it to a test"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("line", [line for _, line in ALL if line.endswith("/tmp/try.json")])
def test_a_benchmark_can_be_tried_out(line: str, tmp_path: Path) -> None:
    _, *words, out = shlex.split(line)
    assert out == "/tmp/try.json"
    results = tmp_path / "try.json"
    done = subprocess.run(
        [sys.executable, *words, str(results)], cwd=ROOT, capture_output=True, text=True, timeout=800, check=False
    )
    assert done.returncode == 0, done.stderr
    assert results.exists()


def check_module(module: str, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Have the module's own parser read the arguments; every option must stand in its help."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module, *arguments, "--help"])
        with pytest.raises(SystemExit) as left:
            runpy.run_module(module, run_name="__main__")
    shown = capsys.readouterr()
    assert left.value.code == 0, shown.err
    assert [word for word in arguments if word.startswith("--") and word not in shown.out] == []


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
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert broken == []


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    readme = text(ROOT / "README.md")
    assert len(readme.splitlines()) <= 180
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"(docs/{page.name})" not in readme] == []


def test_every_data_set_option_and_key_has_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    data, readme, keys = text(ROOT / "docs/data.md"), text(ROOT / "README.md"), text(ROOT / "docs/configuration.md")
    assert [dataset for dataset in [*VISION, *TEXT] if f"`{dataset}`" not in data] == []
    assert call("cvmain.py", ["--help"]) == 0
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--repeat"}
    assert {option for option in options if option not in readme} == set()
    for script in SCRIPTS:
        assert call(script, ["--print-config"]) == 0
        shown = re.findall(r'^    "(\w+)":', capsys.readouterr().out, flags=re.MULTILINE)
        assert [key for key in shown if f"`{key}`" not in keys] == []
