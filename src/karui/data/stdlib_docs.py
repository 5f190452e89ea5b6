"""`stdlib-docs`: the documentation that every CPython carries, a classification set that needs no network.

Documents are the docstrings of the running Python's standard library and the paragraphs of its language
reference (`pydoc_data.topics`); the label is a family of modules. Nothing is imported: files are parsed.
"""

import ast
import contextlib
import gc
import hashlib
import os
import re
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from karui.errors import UserError

NAME = "stdlib-docs"
TEST_SHARE = 0.15
MIN_WORDS = 5
MIN_TOPIC_WORDS = 15
"""The reference is cut into paragraphs; shorter ones are mostly lines of code and grammar."""

MIN_DOCUMENTS = 4000

_FAMILY_MODULES = {
    "gui": "tkinter turtle idlelib",
    "network": """
        http urllib socket socketserver ssl ftplib telnetlib nntplib ipaddress xmlrpc wsgiref webbrowser
        cgi cgitb asyncore asynchat netrc nturl2path uuid
    """,
    "email": "email mailbox smtplib smtpd poplib imaplib mimetypes mailcap quopri base64 uu",
    "concurrency": """
        asyncio multiprocessing threading concurrent queue subprocess sched selectors _threading_local
        contextvars signal
    """,
    "packaging-import": """
        importlib distutils pkgutil zipimport runpy modulefinder imp ensurepip venv site sysconfig zipapp
        compileall py_compile _sitebuiltins _osx_support _aix_support _bootsubprocess _ios_support
        _apple_support _android_support
    """,
    "testing-debugging": """
        unittest doctest pdb bdb trace traceback profile cProfile pstats timeit tracemalloc warnings
        logging linecache faulthandler
    """,
    "numbers-time": """
        decimal _pydecimal statistics fractions numbers random datetime _pydatetime calendar zoneinfo
        _strptime colorsys secrets hmac hashlib heapq bisect _pylong
    """,
    "data-types": """
        collections _collections_abc enum typing dataclasses functools operator types weakref _weakrefset
        abc _py_abc copy copyreg contextlib graphlib reprlib pickle pickletools pprint ctypes
    """,
    "files-os": """
        os pathlib shutil tarfile zipfile tempfile glob fnmatch stat genericpath posixpath ntpath gzip bz2
        lzma _compression compression _pyio io fileinput filecmp platform pty tty dbm shelve sqlite3 pipes
        chunk wave aifc sunau sndhdr imghdr crypt getpass
    """,
    "text-markup": """
        xml html json re string textwrap difflib codecs configparser csv plistlib tomllib locale
        gettext _markupbase stringprep shlex argparse optparse getopt cmd curses xdrlib rlcompleter
    """,
    "language": """
        ast inspect dis symtable tokenize pydoc code codeop pyclbr opcode keyword __future__ tabnanny
        token annotationlib pydoc_data
    """,
}

FAMILIES: dict[str, tuple[str, ...]] = {name: tuple(text.split()) for name, text in _FAMILY_MODULES.items()}
"""The labels, each with its top-level modules. What is not listed (lib2to3, a few leaves) is left out."""

SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "_bundled", "turtledemo"}
)

_FAMILY_OF = {module: family for family, modules in FAMILIES.items() for module in modules}


@dataclass(frozen=True)
class Document:
    """One document: a dotted name unique within the library, its family, its text."""

    name: str
    family: str
    text: str

    @property
    def in_test(self) -> bool:
        """Whether the name's hash puts it into the test part: no seed, no order, no Python version."""
        digest = hashlib.sha256(self.name.encode()).digest()
        return int.from_bytes(digest[:8], "big") < TEST_SHARE * 2**64


def read_documents(root: Path | None = None) -> list[Document]:
    """Read the documents below `root` (default: the running Python's library), in a fixed order.

    A text of fewer than `MIN_WORDS` words is dropped, and so is one that repeats an earlier text up to case
    and white space. Raises `UserError` when the library's sources are not there.
    """
    root = Path(sysconfig.get_path("stdlib")) if root is None else root
    seen: set[str] = set()
    documents = []
    with _collector_paused():
        for name, family, text in _candidates(root):
            words = text.lower().split()
            key = " ".join(words)
            if len(words) >= MIN_WORDS and key not in seen:
                seen.add(key)
                documents.append(Document(name, family, text))
    if len(documents) < MIN_DOCUMENTS:
        raise UserError(
            f"{root}: only {len(documents)} docstrings found, {MIN_DOCUMENTS} expected;"
            " this Python carries no library sources, use --data with a file of your own"
        )
    return documents


def _candidates(root: Path) -> Iterator[tuple[str, str, str]]:
    for path in _library_files(root):
        parts = path.relative_to(root).with_suffix("").parts
        family = _FAMILY_OF.get(parts[0])
        if family is None:
            continue
        module = ".".join(parts).removesuffix(".__init__")
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):  # a file left by another program: not part of the library
            continue
        if parts == ("pydoc_data", "topics"):
            found: Iterable[tuple[str, str]] = _topic_paragraphs(tree)
        else:
            found = _docstrings(tree, module)
        for name, text in found:
            yield name, family, text


def _library_files(root: Path) -> list[Path]:
    """Return the library's source files in the order of their names, without looking into installed packages."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS]
        found.extend(Path(folder, name) for name in files if name.endswith(".py"))
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Keep the cycle collector from walking each growing syntax tree again and again: a fifth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _docstrings(tree: ast.Module, module: str) -> Iterator[tuple[str, str]]:
    """Yield the docstrings of a module, its classes and functions, in the order of the source.

    Only statements are visited: definitions nested in `if` or `try` count, expressions hold none. A second
    definition of the same name (one a platform, say) gets its number.
    """
    times: dict[str, int] = {}
    pending: list[tuple[str, ast.AST]] = [(module, tree)]
    while pending:
        name, node = pending.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            times[name] = times.get(name, 0) + 1
            text = ast.get_docstring(node)
            if text:
                yield (name if times[name] == 1 else f"{name}#{times[name]}"), text
        children = []
        for field in ("body", "handlers", "orelse", "finalbody"):
            for child in getattr(node, field, ()):
                named = isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
                children.append((f"{name}.{child.name}" if named else name, child))
        pending.extend(reversed(children))


def _topic_paragraphs(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield the paragraphs of the language reference: `topics` is a literal dictionary, read as such."""
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            topics = ast.literal_eval(statement.value)
            for topic in sorted(topics):
                for number, paragraph in enumerate(re.split(r"\n\s*\n", topics[topic])):
                    if len(paragraph.split()) >= MIN_TOPIC_WORDS:
                        yield f"pydoc_data.topics.{topic}.{number}", paragraph.strip()
