"""`stdlib-docs`: big enough, balanced enough, no repeats, nothing shared between the splits."""

from pathlib import Path

import pytest

from karui.data import Splits, load_splits, stdlib_docs
from karui.data.load import load_test
from karui.errors import UserError


@pytest.fixture(scope="module")
def documents() -> list[stdlib_docs.Document]:
    return stdlib_docs.read_documents()


@pytest.fixture
def splits(documents, monkeypatch) -> Splits:
    monkeypatch.setattr(stdlib_docs, "read_documents", lambda: documents)
    return load_splits(stdlib_docs.NAME)


def normal(text: str) -> str:
    return " ".join(text.lower().split())


def test_size_and_balance(splits):
    counts = splits.train.class_counts()
    assert len(counts) == 11
    assert len(splits.train) + len(splits.valid) + len(splits.test) >= 6000
    assert min(counts.values()) >= 250
    assert max(counts.values()) <= 5 * min(counts.values())
    assert all(len(text.split()) >= 5 for text in splits.train.texts)


def test_no_document_twice(documents, splits):
    assert len({document.name for document in documents}) == len(documents)
    parts = [{normal(text) for text in part.texts} for part in (splits.train, splits.valid, splits.test)]
    assert sum(map(len, parts)) == len(set().union(*parts)) == len(documents)


def test_the_test_part_does_not_depend_on_the_seed(documents, splits, monkeypatch):
    other = load_splits(stdlib_docs.NAME, seed=1)
    assert other.test.texts == splits.test.texts
    assert other.valid.texts != splits.valid.texts
    assert 0.1 < len(splits.test) / len(documents) < 0.2
    assert load_test(stdlib_docs.NAME, splits.label_names).texts == splits.test.texts
    with pytest.raises(UserError, match=r"its labels are gui, network, .*; the trained labels are neg, pos"):
        load_test(stdlib_docs.NAME, ["neg", "pos"])


def test_known_documents(documents):
    by_name = {document.name: document for document in documents}
    assert by_name["queue.Queue"].family == "concurrency"
    assert by_name["queue.Queue"].text.startswith("Create a queue object")
    assert by_name["json.loads"].family == "text-markup"
    assert by_name["email.message.Message.get_payload"].family == "email"
    [topic] = [
        d for d in documents if d.text.startswith('The "with" statement is used to wrap the execution')
    ]
    assert (topic.family, topic.name.startswith("pydoc_data.topics.")) == ("language", True)
    assert not [name for name in by_name if "idle_test" in name or name.startswith(("lib2to3", "test"))]


def library(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, encoding="utf-8")
    return root


def test_what_counts_as_a_document(tmp_path, monkeypatch):
    monkeypatch.setattr(stdlib_docs, "MIN_DOCUMENTS", 1)
    source = '''
"""A module about one two three."""
def f():
    "Too short"
try:
    def g():
        """Defined in a try, with words enough."""
except ImportError:
    class G:
        """Fallback class with words enough here."""
        async def h(self):
            """a MODULE  about one two three."""
    def g():
        """Defined a second time, other words enough."""
'''
    files = {"socket.py": source, "test/socket.py": source, "unknown.py": source, "os.py": "not ( python"}
    found = stdlib_docs.read_documents(library(tmp_path, files))
    assert [(document.name, document.family) for document in found] == [
        ("socket", "network"),
        ("socket.g", "network"),
        ("socket.G", "network"),
        ("socket.g#2", "network"),
    ]
    assert found[3].text == "Defined a second time, other words enough."


def test_a_python_without_sources_is_one_line(tmp_path):
    with pytest.raises(
        UserError, match="only 0 docstrings found, 4000 expected; this Python carries no library"
    ):
        stdlib_docs.read_documents(tmp_path)
