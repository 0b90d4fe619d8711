"""Downloads resume, are checked, and fail with one line. The server is a thread on this host; no GPU."""

from __future__ import annotations

import hashlib
import io
import re
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from data import DataError, download
from data.download import fetch, find_resource, locate, resource_names, unpack_provided
from data.resource import RemoteFile, Resource

CONTENT = bytes((i * i + i // 7) % 251 for i in range(300_000))
MD5 = hashlib.md5(CONTENT).hexdigest()


class Host(ThreadingHTTPServer):
    """Serves `content` at every path, as the test sets it up; `ranges` lists the Range headers of the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.kind = "application/octet-stream"
        self.knows_ranges = True
        self.cuts = 0  # how many answers are cut after half of what they promised
        self.status = 0  # when set, the only answer there is
        self.redirect = ""  # when set, where every request is sent on to
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file.bin"


class Handler(BaseHTTPRequestHandler):
    server: Host

    def do_GET(self) -> None:
        host, asked = self.server, self.headers.get("Range")
        host.ranges.append(asked)
        if host.redirect:
            self.send_response(302)
            self.send_header("Location", host.redirect)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if host.status:
            self.send_error(host.status)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and host.knows_ranges else 0
        if start >= len(host.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(host.content)}")
            self.end_headers()
            return
        body = host.content[start:]
        if asked and host.knows_ranges:
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(host.content) - 1}/{len(host.content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Type", host.kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if host.cuts > 0:
            host.cuts -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setattr(download, "CHUNK", 1250)  # bytes: a chunk that is cut is requested again
    server = Host()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def resource(url: str, md5: str = MD5) -> Resource:
    return Resource("sample", "folder/file.bin", (RemoteFile("folder/file.bin", url, md5),))


def by_name(name: str) -> Resource:
    found = find_resource(name)
    assert found is not None
    return found


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file() and path.name != ".lock")


def test_downloads_checks_and_leaves_only_the_file(
    host: Host, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = fetch(resource(host.url), tmp_path / "new" / "root")
    assert path.read_bytes() == CONTENT
    assert names(tmp_path) == ["file.bin"]
    assert capfd.readouterr() == ("", "")  # no progress bar where there is no terminal


def test_an_existing_file_is_used_as_it_is_and_nothing_is_requested(host: Host, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file.bin").write_bytes(b"the user's own")
    assert fetch(resource(host.url), tmp_path).read_bytes() == b"the user's own"
    assert host.ranges == []
    assert not (tmp_path / ".lock").exists()


def test_a_cut_connection_is_resumed_where_it_stopped(host: Host, tmp_path: Path) -> None:
    host.cuts = 2
    assert fetch(resource(host.url), tmp_path).read_bytes() == CONTENT
    assert host.ranges == [None, "bytes=150000-", "bytes=225000-"]


def test_a_download_given_up_is_resumed_by_the_next_call(host: Host, tmp_path: Path) -> None:
    host.cuts = download.ATTEMPTS
    with pytest.raises(DataError, match="the connection was cut after 281250 of 300000 bytes"):
        fetch(resource(host.url), tmp_path)
    assert names(tmp_path) == ["file.bin.part"]
    host.ranges.clear()
    assert fetch(resource(host.url), tmp_path).read_bytes() == CONTENT
    assert host.ranges == ["bytes=281250-"]
    assert names(tmp_path) == ["file.bin"]


def test_a_bundle_of_certificates_that_is_not_there_is_not_blamed_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a company's proxy; requests raises a plain OSError."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with pytest.raises(DataError, match=r"could not download .* .Could not find a suitable TLS"):
        fetch(resource("https://127.0.0.1:9/x"), tmp_path)


def test_a_server_that_ignores_ranges_is_read_from_the_start(host: Host, tmp_path: Path) -> None:
    host.knows_ranges, host.cuts = False, 1
    assert fetch(resource(host.url), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "begun",
    [
        pytest.param(b"of another version", id="other bytes"),
        pytest.param(bytes(400_000), id="longer than the file"),
        pytest.param(bytes(300_000), id="as long as the file"),
        pytest.param(CONTENT, id="complete"),
    ],
)
def test_a_stale_part_does_no_harm(host: Host, tmp_path: Path, begun: bytes) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file.bin.part").write_bytes(begun)
    assert fetch(resource(host.url), tmp_path).read_bytes() == CONTENT
    assert names(tmp_path) == ["file.bin"]


def test_a_wrong_checksum_removes_the_file(host: Host, tmp_path: Path) -> None:
    host.content = b"something else"
    with pytest.raises(DataError, match="not the expected file") as caught:
        fetch(resource(host.url), tmp_path)
    assert names(tmp_path) == []
    assert len(host.ranges) == 1
    assert host.url in str(caught.value)
    assert f"put it at {tmp_path / 'folder/file.bin'}" in str(caught.value)


def test_a_web_page_is_not_taken_for_the_file(host: Host, tmp_path: Path) -> None:
    host.kind = "text/html; charset=utf-8"
    with pytest.raises(DataError, match="a web page instead of the file"):
        fetch(resource(host.url), tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize(("status", "asked"), [(404, 1), (403, 1), (503, 4), (429, 4)])
def test_an_error_answer_is_reported_and_retried_only_if_it_may_pass(
    host: Host, tmp_path: Path, status: int, asked: int
) -> None:
    host.status = status
    with pytest.raises(DataError, match=f"the server answered {status} ") as caught:
        fetch(resource(host.url), tmp_path)
    assert len(host.ranges) == asked
    assert "\n" not in str(caught.value)


def test_a_host_that_does_not_answer_fails_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.perf_counter()
    with pytest.raises(DataError, match=r"\(Connection refused\)") as caught:
        fetch(resource(f"http://127.0.0.1:{port}/file.bin"), tmp_path)
    assert time.perf_counter() - began < 5
    assert "\n" not in str(caught.value)
    assert f"put it at {tmp_path / 'folder/file.bin'}" in str(caught.value)


def test_a_silent_host_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "TIMEOUTS", (1.0, 0.2))
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(DataError, match=r"nothing arrived for 0\.2 s"),
    ):
        fetch(resource(f"http://127.0.0.1:{silent.getsockname()[1]}/file.bin"), tmp_path)


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def archive_resource(host: Host) -> Resource:
    md5 = hashlib.md5(host.content).hexdigest()
    return Resource("sample", "set", (RemoteFile("set.zip", host.url, md5, holds=("set",)),))


def test_an_archive_is_unpacked_and_removed(host: Host, tmp_path: Path) -> None:
    host.content = zipped({"set/a.txt": b"a"})
    assert fetch(archive_resource(host), tmp_path) == tmp_path / "set"
    assert names(tmp_path) == ["a.txt"]


def test_an_archive_that_the_user_put_there_is_used_whatever_its_checksum(host: Host, tmp_path: Path) -> None:
    host.content = zipped({"set/a.txt": b"a"})
    wanted = archive_resource(host)
    (tmp_path / "set.zip").write_bytes(zipped({"set/mine.txt": b"b"}))
    fetch(wanted, tmp_path)
    assert host.ranges == []
    assert names(tmp_path) == ["mine.txt", "set.zip"]


def test_an_archive_without_the_data_is_an_error(host: Host, tmp_path: Path) -> None:
    host.content = zipped({"other/a.txt": b"a"})
    with pytest.raises(DataError, match="does not hold set"):
        fetch(archive_resource(host), tmp_path)
    assert not (tmp_path / "set.zip").exists()


def marked(host: Host) -> Resource:
    return Resource("sample", "set", archive_resource(host).files, markers=("a.txt", "b_*"), archives=("other name",))


@pytest.mark.parametrize("name", ["set.zip", "SET.ZIP", "other name.zip"])
@pytest.mark.parametrize("where", ["", "set/", "extra/set/"])
def test_an_archive_packed_anew_is_put_in_place(host: Host, tmp_path: Path, name: str, where: str) -> None:
    (tmp_path / name).write_bytes(zipped({f"{where}a.txt": b"a", f"{where}b_1": b"b", "__MACOSX/._a.txt": b"x"}))
    (tmp_path / "set").mkdir()  # left behind by a command that failed
    assert locate(marked(host), tmp_path) == (tmp_path / "set", [])
    assert names(tmp_path / "set") == ["a.txt", "b_1"]
    assert host.ranges == []


def test_what_is_found_elsewhere_is_neither_unpacked_nor_downloaded(host: Host, tmp_path: Path) -> None:
    folder = tmp_path / "set/set"
    folder.mkdir(parents=True)
    for name in ("a.txt", "b_1"):
        (folder / name).touch()
    found, notes = locate(marked(host), tmp_path)
    assert found == folder
    assert notes == [f"sample: read from {folder}; its usual place is {tmp_path / 'set'}"]
    assert host.ranges == []


def test_an_empty_folder_in_its_place_does_not_hide_what_must_be_downloaded(host: Host, tmp_path: Path) -> None:
    host.content = zipped({"set/a.txt": b"a", "set/b_1": b"b"})
    (tmp_path / "set").mkdir()
    locate(marked(host), tmp_path)
    assert names(tmp_path) == ["a.txt", "b_1"]


@pytest.mark.parametrize("text", [b"404: Not Found", b"", b"<html>quota exceeded</html>"])
def test_an_archive_that_holds_the_text_of_a_server_is_named_and_kept(host: Host, tmp_path: Path, text: bytes) -> None:
    (tmp_path / "set.zip").write_bytes(text)
    with pytest.raises(DataError, match=r"set\.zip: is neither a zip nor a tar archive; remove it"):
        locate(marked(host), tmp_path)
    assert names(tmp_path) == ["set.zip"]


def test_a_part_of_an_archive_can_be_asked_for(host: Host, tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_bytes(zipped({"a.txt": b"a"}))
    assert unpack_provided(marked(host), tmp_path, ("a.txt",))
    assert names(tmp_path / "set") == ["a.txt"]
    assert not unpack_provided(marked(host), tmp_path / "elsewhere")


def test_an_address_that_cannot_be_asked_is_not_called_a_wrong_file(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.redirect = "http://[bad"
    with pytest.raises(DataError, match=r"could not download .*IPv6"):
        fetch(resource(host.url), tmp_path)
    monkeypatch.setenv("http_proxy", f"http://{'a' * 70}.b")
    with pytest.raises(DataError, match=r"could not download .*too long"):
        fetch(resource("http://example.invalid/file.bin"), tmp_path)
    monkeypatch.setenv("http_proxy", host.url)
    host.redirect, host.status = "", 407
    with pytest.raises(DataError, match="the server answered 407 Proxy Authentication Required"):
        fetch(resource("http://example.invalid/file.bin"), tmp_path)


def test_a_missing_certificate_file_is_not_called_a_read_only_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "absent.pem"))
    with pytest.raises(DataError, match=r"could not download .*CA certificate bundle"):
        fetch(resource("https://127.0.0.1:9/file.bin"), tmp_path)


def test_a_redirect_is_followed_and_a_circle_of_them_given_up(host: Host, tmp_path: Path) -> None:
    host.redirect = host.url
    with pytest.raises(DataError, match="Exceeded 30 redirects"):
        fetch(resource(host.url), tmp_path)


def test_several_that_start_together_download_once(host: Host, tmp_path: Path) -> None:
    threads = [threading.Thread(target=fetch, args=(resource(host.url), tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(host.ranges) == 1
    assert names(tmp_path) == ["file.bin"]


def test_a_root_that_cannot_be_written_is_reported(host: Host, tmp_path: Path) -> None:
    (tmp_path / "root").write_text("a file where a folder should be")
    with pytest.raises(DataError, match=r"cannot write to .*--data-root"):
        fetch(resource(host.url), tmp_path / "root")


def test_imdb_says_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"IMDB_Dataset\.csv") as caught:
        fetch(by_name("imdb"), tmp_path)
    assert "aclImdb/" in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_every_resource_is_complete() -> None:
    for name in resource_names():
        entry = by_name(name.upper())
        assert entry.name == name
        assert bool(entry.files) != bool(entry.by_hand)
        for file in entry.files:
            assert file.url.startswith("https://")
            assert re.fullmatch(r"[0-9a-f]{32}", file.md5)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("data_batch_1", "test_batch"):
        (folder / name).touch()
    assert download.main(["CIFAR10", "--data-root", str(tmp_path)]) == 0
    assert str(folder) in capsys.readouterr().out
    assert download.main(["digits"]) == 0
    assert "nothing to download" in capsys.readouterr().out
    assert download.main(["cifar", "--data-root", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "did you mean cifar10?" in error
    assert error.count("\n") == 1


def test_runs_as_a_module_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error::RuntimeWarning", "-m", "data.download", "imdb"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: imdb cannot be downloaded")
    assert ran.stderr.count("\n") == 1


def test_the_home_folder_is_meant_by_its_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    folder = tmp_path / "sets/ag_news_csv"
    folder.mkdir(parents=True)
    for name in ("train.csv", "test.csv"):
        (folder / name).write_text("1,a,b\n")
    assert download.main(["agnews", "--data-root=~/sets"]) == 0  # which no shell expands
    assert str(folder) in capsys.readouterr().out
