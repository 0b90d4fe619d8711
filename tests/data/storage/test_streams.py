"""Standard streams that are closed, broken, full or of few characters: no traceback, and an exit code that says so."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data.storage.streams import exit_code

pytestmark = pytest.mark.skipif(os.name != "posix", reason="redirections are a POSIX shell's")
ROOT = Path(__file__).resolve().parents[3]
LOST = "error: the standard output cannot be written"
#: A redirection, the exit code of a command that prints and succeeds, and what its error starts with.
REDIRECTIONS = [
    (">&-", 2, f"{LOST} (it is closed)"),
    (">/dev/full", 2, f"{LOST} (No space left on device)"),
    ("1</dev/null", 2, f"{LOST} (Bad file descriptor)"),
    ("| true", 141, ""),
    ("<&-", 0, ""),
    ("2>&-", 0, ""),
    ("2>/dev/full", 0, ""),
    (">&- 2>&- <&-", 2, ""),
    (">/dev/full 2>&1", 2, ""),
]
#: As every entry point does it, without the seconds that torch takes.
SCRIPT = """
import sys
from data.storage.streams import exit_code
def main():
    print("some text ± \\u03b1 \\udcff")
    print(9000 * "more than a buffer ")
    with open(sys.argv[1], "w") as file:
        file.write("result")
    return 0
sys.exit(exit_code(main))
"""


def shell(line: str, **environment: str) -> tuple[int, str, str]:
    """Run a line with bash, and return the first command's exit code and both outputs."""
    done = subprocess.run(
        ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def command(arguments: str, option: str = "") -> str:
    return f"{sys.executable} {option} {arguments}"


@pytest.mark.parametrize("option", ["", "-u"])
@pytest.mark.parametrize(("redirection", "code", "message"), REDIRECTIONS)
def test_a_command_does_its_work_whatever_its_streams_are(
    redirection: str, code: int, message: str, option: str, tmp_path: Path
) -> None:
    (tmp_path / "script.py").write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{SCRIPT}")
    ended, _, error = shell(f"{command(f'{tmp_path}/script.py {tmp_path}/file', option)} {redirection}")
    assert ended == code
    assert error.startswith(message)
    assert error.count("\n") == bool(message)
    assert (tmp_path / "file").read_text() == "result"


@pytest.mark.parametrize("arguments", ["cvmain.py --help", "nlpmain.py --list", "cvmain.py --print-config"])
def test_what_only_prints_says_that_it_could_not(arguments: str) -> None:
    """Guards a bug: a traceback, or, as argparse hides it, nothing and exit code 0."""
    ended, _, error = shell(f"{command(arguments)} >/dev/full")
    assert ended == 2
    assert error.startswith(LOST)
    assert error.count("\n") == 1
    assert shell(f"{command(arguments, '-u')} | true")[::2] == (141, "")


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "2>&1 | true", ">&- 2>&-"])
def test_a_mistake_that_cannot_be_told_is_still_one(redirection: str) -> None:
    """Guards a bug: with stderr closed the message went into the output."""
    assert shell(f"{command('cvmain.py digits vgx')} {redirection}") == (2, "", "")


@pytest.mark.parametrize("module", ["data.download digits", "training.config.reference"])
def test_every_other_entry_point_does_it_too(module: str) -> None:
    ended, _, error = shell(f"{command(f'-W error -m {module}')} >/dev/full")
    assert (ended, error.count("\n")) == (2, 1)
    assert error.startswith(LOST)


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", r"+/- \u03b1 \xff"),
        ("latin-1", r"± \u03b1 \xff"),
        ("cp1252", r"± \u03b1 \xff"),
        ("cp1253", r"± α \xff"),
        ("utf-8", r"± α \xff"),
    ],
)
def test_characters_that_an_encoding_has_not_are_written_in_another_way(
    encoding: str, shown: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("stdout", "stderr"):
        stream = open(tmp_path / name, "w", encoding=encoding)  # noqa: SIM115  # closed by the patch's end
        monkeypatch.setattr(sys, name, stream)

    def main() -> int:
        print("± α \udcff")
        print("± α \udcff", file=sys.stderr)
        return 0

    assert exit_code(main) == 0
    monkeypatch.undo()
    for name in ("stdout", "stderr"):
        assert (tmp_path / name).read_text(encoding=encoding) == f"{shown}\n"


def test_streams_of_somebody_else_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as those of a notebook, for `%run`."""
    mine = io.StringIO()
    monkeypatch.setattr(sys, "stdout", mine)
    assert exit_code(lambda: print("text") or 0) == 0
    assert mine.getvalue() == "text\n"


def test_a_pipe_that_does_not_block_gets_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program that shares the pipe may have made it so; Python's own streams then raise BlockingIOError."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    text = 30_000 * "a line\n"
    script = "import sys; sys.exit(len(sys.stdin.read()) % 251)"
    with subprocess.Popen([sys.executable, "-c", script], stdin=reader) as process:
        os.close(reader)
        with open(writer, "w", encoding="utf-8") as stream:
            monkeypatch.setattr(sys, "stdout", stream)
            assert exit_code(lambda: print(text, end="") or 0) == 0
            monkeypatch.undo()
    assert process.returncode == len(text) % 251


@pytest.mark.parametrize(("leave", "code"), [(None, 0), (3, 3), ("a text", 1), (True, 1)])
def test_leaving_by_sys_exit_means_what_it_means_to_python(
    leave: object, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> int:
        raise SystemExit(leave)

    assert exit_code(main) == code
    assert capsys.readouterr().err == ("a text\n" if leave == "a text" else "")


def test_a_terminal_that_is_gone_costs_what_was_printed_only() -> None:
    """Writing gives EIO then, on stdout, on stderr, and for the progress bar."""
    pty = pytest.importorskip("pty")
    leader, follower = pty.openpty()
    script = (
        "import sys; from tqdm import tqdm; from data.storage.streams import exit_code\n"
        "def main():\n"
        "    sys.stdin.readline(); print('text', flush=True); [None for _ in tqdm(range(9), disable=None)]\n"
        "    open(sys.argv[1], 'w').write('result'); return 0\n"
        "sys.exit(exit_code(main))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, os.devnull],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=follower,
        stderr=follower,
    ) as process:
        os.close(follower)
        os.close(leader)
        process.communicate(b"\n", timeout=30)
    assert process.returncode == 2
