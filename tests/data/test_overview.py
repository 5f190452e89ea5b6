"""`karui data list`, `fetch` and `verify`, as a user calls them."""

import hashlib
import json
from pathlib import Path

import pytest

from karui.cli.main import main
from karui.data.catalogue import SETS
from karui.data.storage import data_root
from tests.support.data_sets import place

HEX = set("0123456789abcdef")


def test_the_catalogue_is_complete():
    for entry in SETS.values():
        assert entry.homepage.startswith("https://"), entry.name
        assert entry.licence, entry.name
        for part in entry.parts:
            url = part.download.url  # a recompressed copy that nobody serves has none, but a hash
            assert url.startswith("https://") if url else part.download.sha256, entry.name
            for file in part.files:
                digest, length = (file.sha256, 64) if file.sha256 else (file.md5, 32)
                assert len(digest) == length, file.name
                assert set(digest) <= HEX, file.name


def test_data_root(monkeypatch, tmp_path):
    monkeypatch.setenv("KARUI_DATA", str(tmp_path))
    assert data_root() == tmp_path
    monkeypatch.delenv("KARUI_DATA")
    monkeypatch.setenv("KARUI_CACHE", str(tmp_path))
    assert data_root() == tmp_path / "data"
    monkeypatch.delenv("KARUI_CACHE")
    assert data_root() == Path.home() / ".cache" / "karui" / "data"


@pytest.fixture
def small_cr(tmp_path, monkeypatch) -> Path:
    """A data root that holds `cr` and nothing else; return the file."""
    place(monkeypatch, tmp_path, "cr", {"all": ("custrev.all", b"0 a\n1 b\n" * 20)})
    return tmp_path / "sent_cls" / "custrev.all"


def test_list(small_cr, capsys):
    assert main(["data", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["data_root"] == str(small_cr.parent.parent)
    here = {entry["name"]: entry["here"] for entry in listed["sets"]}
    assert (here["cr"], here["mr"], here["stdlib-docs"]) == ("complete", "no", "complete")
    assert main(["data", "list"]) == 0
    assert "product review sentences" in capsys.readouterr().out


def test_verify_ok_wrong_and_absent(small_cr, capsys):
    assert main(["data", "verify", "cr"]) == 0
    assert capsys.readouterr().out == f"ok      {small_cr}\n"
    assert main(["data", "verify"]) == 0  # the others are not here, which is no error
    assert "absent" in capsys.readouterr().out
    small_cr.write_bytes(b"0 a\n1 c\n" * 20)
    assert main(["data", "verify", "--json"]) == 2
    out, err = capsys.readouterr()
    states = {Path(check["path"]).name: check["state"] for check in json.loads(out)["files"]}
    assert states["custrev.all"] == "wrong"
    assert err == f"karui: {small_cr}: not the published file; move it away, then: karui data fetch cr\n"
    assert small_cr.exists()
    small_cr.unlink()
    assert main(["data", "verify", "cr"]) == 2
    assert capsys.readouterr().err == f"karui: {small_cr}: not there; fetch it with: karui data fetch cr\n"


def test_fetch_of_what_is_there_and_of_unknown_names(small_cr, capsys):
    assert main(["data", "fetch", "cr"]) == 0
    assert capsys.readouterr().out == "cr: complete, nothing to fetch\n"
    assert main(["data", "fetch", "stdlib-docs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "stdlib-docs", "fetched": []}
    assert main(["data", "fetch", "imbd"]) == 2
    assert capsys.readouterr().err.startswith("karui: imbd: no such set; the named sets are imdb, ag_news")


def test_fetch_without_a_network(small_cr, capsys):
    small_cr.unlink()
    assert main(["data", "fetch", "cr"]) == 2
    err = capsys.readouterr().err
    assert "cannot be reached" in err
    assert len(err.strip().splitlines()) == 1


def test_subsets_are_called_subsets(tmp_path, monkeypatch, capsys):
    entry = SETS["ag_news"]
    names = {part.role: part.files[-1].name for part in entry.parts}
    monkeypatch.setenv("KARUI_DATA", str(tmp_path))
    (tmp_path / "ag_news").mkdir()
    for name in names.values():
        (tmp_path / "ag_news" / name).write_bytes(b"")
    assert main(["data", "list", "--json"]) == 0
    listed = {record["name"]: record for record in json.loads(capsys.readouterr().out)["sets"]}
    assert (listed["ag_news"]["here"], listed["ag_news"]["subset"]) == ("subset", True)


@pytest.mark.data
def test_real_files_have_the_hashes_of_the_catalogue(capsys):
    if not data_root().is_dir():
        pytest.skip(f"{data_root()} is not there: no published sets")
    assert main(["data", "verify", "--json"]) == 0
    checks = json.loads(capsys.readouterr().out)["files"]
    assert {check["state"] for check in checks} <= {"ok", "absent"}
    for check in checks:
        if check["state"] == "ok" and "imdb" in check["path"]:
            digest = hashlib.sha256(Path(check["path"]).read_bytes()).hexdigest()
            assert digest in {file.sha256 for file in SETS["imdb"].parts[0].files}
