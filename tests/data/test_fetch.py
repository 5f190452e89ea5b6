"""Fetching from a server on the loopback: whole, cut, resumed, altered, refused."""

import http.server
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from karui.data import catalogue, fetch, load_splits, storage
from karui.data.catalogue import DataFile, Part
from karui.errors import UserError
from tests.support.data_sets import data_file, replace_entry, zipped

CONTENT = "".join(f"{number % 2} sentence number {number}\n" for number in range(5000)).encode()


class Answer(NamedTuple):
    """What the server does with one request."""

    status: int = 200
    body: bytes = b""
    cut_after: int | None = None
    ranges: bool = True


class Server(NamedTuple):
    """A running server: its address, the answers by path, and the `Range` header of each request."""

    url: str
    answers: dict[str, Answer]
    ranges_asked: list[str | None]


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    answers: dict[str, Answer] = {}
    asked: list[str | None] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answer = answers.get(self.path, Answer(404))
            wanted = self.headers.get("Range")
            asked.append(wanted)
            body, status = answer.body, answer.status
            if wanted and answer.ranges and status == 200:
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                status, body = (206, body[start:]) if start < len(body) else (416, b"")
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: answer.cut_after])

        def log_message(self, *_):
            """Say nothing on stderr."""

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield Server(f"http://127.0.0.1:{running.server_port}", answers, asked)
        running.shutdown()
        thread.join()


def known(monkeypatch, tmp_path: Path, server: Server, content: bytes = CONTENT, **values) -> Path:
    """Let the catalogue expect `content` of `cr` at the server; return where the file will lie."""
    file = replace(data_file("custrev.all", content, url=f"{server.url}/custrev.all"), **values)
    replace_entry(monkeypatch, replace(catalogue.SETS["cr"], parts=(Part("all", (file,)),)))
    monkeypatch.setenv("KARUI_DATA", str(tmp_path))
    return tmp_path / "sent_cls" / "custrev.all"


def test_a_missing_set_is_fetched_once_and_loaded(server, tmp_path, monkeypatch):
    target = known(monkeypatch, tmp_path, server)
    server.answers["/custrev.all"] = Answer(body=CONTENT)
    assert len(load_splits("cr").train) == 4050
    assert target.read_bytes() == CONTENT
    load_splits("cr")
    assert server.ranges_asked == [None]
    assert [path.name for path in target.parent.iterdir()] == ["custrev.all"]  # nothing left beside it


def test_files_known_by_md5_only(server, tmp_path, monkeypatch):
    known(monkeypatch, tmp_path, server, sha256=None, size=None, md5="0" * 32)
    server.answers["/custrev.all"] = Answer(body=CONTENT)
    with pytest.raises(UserError, match=rf"not the published file \(md5 \w+, {'0' * 32} expected\)"):
        fetch.fetch_missing("cr")


def test_a_wrong_hash_is_refused_and_nothing_deleted(server, tmp_path, monkeypatch):
    target = known(monkeypatch, tmp_path, server)
    altered = CONTENT.replace(b"7", b"8")
    server.answers["/custrev.all"] = Answer(body=altered)
    with pytest.raises(
        UserError, match=r"custrev\.all: not the published file \(sha256 .*; kept as .*refused"
    ) as caught:
        fetch.fetch_missing("cr")
    assert "\n" not in str(caught.value)
    assert not target.exists()
    assert target.with_name("custrev.all.refused").read_bytes() == altered
    server.answers["/custrev.all"] = Answer(body=CONTENT)
    fetch.fetch_missing("cr")  # the next try starts afresh
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_download_goes_on_where_it_stopped(server, tmp_path, monkeypatch, ranges):
    target = known(monkeypatch, tmp_path, server)
    server.answers["/custrev.all"] = Answer(body=CONTENT, cut_after=60_000)
    with pytest.raises(
        UserError, match=rf"cut off after 60,000 of {len(CONTENT):,} bytes; run the same command again"
    ):
        fetch.fetch_missing("cr")
    assert not target.exists()
    server.answers["/custrev.all"] = Answer(body=CONTENT, ranges=ranges)
    assert fetch.fetch_missing("cr") == [target]
    assert target.read_bytes() == CONTENT
    assert server.ranges_asked == [None, "bytes=60000-"]


def test_a_whole_part_file_is_only_checked(server, tmp_path, monkeypatch):
    target = known(monkeypatch, tmp_path, server)
    server.answers["/custrev.all"] = Answer(body=CONTENT)
    target.parent.mkdir()
    target.with_name("custrev.all.part").write_bytes(CONTENT)
    fetch.fetch_missing("cr")
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("status", [403, 404, 500])
def test_an_answer_that_is_an_error(server, tmp_path, monkeypatch, status):
    target = known(monkeypatch, tmp_path, server)
    server.answers["/custrev.all"] = Answer(status)
    expected = (
        rf"/custrev\.all: the server answers {status} .*; check the network, or put the file there yourself: "
    )
    with pytest.raises(UserError, match=expected + re.escape(str(target))) as caught:
        fetch.fetch_missing("cr")
    assert "\n" not in str(caught.value)


def test_nobody_listens(server, tmp_path, monkeypatch):
    gone = server._replace(url="http://127.0.0.1:9")
    known(monkeypatch, tmp_path, gone)
    with pytest.raises(
        UserError, match=r"cannot be reached \(.*refused.*\); check the network, or put the file"
    ):
        load_splits("cr")


def test_addresses_other_than_http_are_refused(tmp_path):
    with pytest.raises(UserError, match="file:///etc/passwd: not an http address"):
        fetch.download(DataFile("a", url="file:///etc/passwd"), tmp_path / "a", lambda *_: None)


def test_a_data_root_that_cannot_be_written(server, tmp_path, monkeypatch):
    known(monkeypatch, tmp_path, server)
    (tmp_path / "sent_cls").write_text("a file where a folder should be", encoding="utf-8")
    with pytest.raises(UserError, match="sent_cls: .*set KARUI_DATA to a folder that can be written"):
        fetch.fetch_missing("cr")


def test_a_subset_is_used_as_it_is_and_completed_on_demand(server, tmp_path, monkeypatch):
    whole = data_file("train.csv", b"whole", url=f"{server.url}/train.csv")
    part = Part("train", (whole, data_file("some.csv", b"some", subset=True)))
    replace_entry(monkeypatch, replace(catalogue.SETS["ag_news"], parts=(part,)))
    monkeypatch.setenv("KARUI_DATA", str(tmp_path))
    (tmp_path / "ag_news").mkdir()
    (tmp_path / "ag_news" / "some.csv").write_bytes(b"some")
    server.answers["/train.csv"] = Answer(body=b"whole")
    assert fetch.fetch_missing("ag_news") == []
    entry = catalogue.SETS["ag_news"]
    assert fetch.fetch_entry(entry, complete=True) == [tmp_path / "ag_news" / "train.csv"]
    assert storage.checked_path(entry, "train")[1] is whole  # preferred from now on


TREES = b"(4 (2 a) (4 good))\n(1 (2 a) (0 bad))\n"


def known_trees(monkeypatch, tmp_path: Path, server: Server) -> Path:
    file = data_file("train.txt", TREES, url=f"{server.url}/trees.zip", member="trees/train.txt")
    replace_entry(monkeypatch, replace(catalogue.SETS["sst_trees"], parts=(Part("train", (file,)),)))
    monkeypatch.setenv("KARUI_DATA", str(tmp_path))
    return tmp_path / "sst_trees" / "train.txt"


def test_a_member_of_an_archive(server, tmp_path, monkeypatch):
    target = known_trees(monkeypatch, tmp_path, server)
    server.answers["/trees.zip"] = Answer(body=zipped({"trees/train.txt": TREES, "trees/dev.txt": b""}))
    assert fetch.fetch_missing("sst_trees") == [target]
    assert target.read_bytes() == TREES


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>sign in</html>", "BadZipFile"),
        (zipped({"other": TREES}), "KeyError"),
        (zipped({"trees/train.txt": TREES + b"\n"}), "38 bytes, 37 expected"),
    ],
)
def test_an_archive_with_another_content(server, tmp_path, monkeypatch, body, message):
    target = known_trees(monkeypatch, tmp_path, server)
    server.answers["/trees.zip"] = Answer(body=body)
    with pytest.raises(
        UserError, match=rf"trees/train\.txt in it is not the published file \({message}.*kept as"
    ):
        fetch.fetch_missing("sst_trees")
    assert not target.exists()
    assert target.with_name("trees.zip.refused").read_bytes() == body
