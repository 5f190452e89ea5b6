"""House rules that a linter cannot hold: sizes, names, and tests that can fail."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_ARGUMENTS = 10
# Data written by a program, which nobody reads as code.
GENERATED = {"src/karui/runtime/unicode_table.py"}
# Longer argument lists, each with its reason.
MANY_ARGUMENTS = {
    "src/karui/nn/gru.py": 12,  # those of torch.nn.GRU, then karui's
    "src/karui/nn/lstm.py": 13,  # those of torch.nn.LSTM, then karui's
    "src/karui/nn/min_gru.py": 12,  # the words of every layer of karui, then its own
    "src/karui/nn/qrnn.py": 15,  # same
    "src/karui/nn/stacked.py": 11,  # the words of torch.nn.LSTM, then those of every layer of karui
    "src/karui/nn/srupp.py": 22,  # and those of its attention
    "src/karui/nn/sru.py": 17,  # those, then its own: each is one choice of the description
    "src/karui/nn/statistical.py": 20,  # the same
    "src/karui/ops/simple_recurrence/triton.py": 13,  # same as cpu.py
    "src/karui/ops/statistical_recurrence/triton.py": 12,  # same
    "src/karui/ops/simple_recurrence/__init__.py": 12,  # five tensors, two masks, four words and the short form lengths
    "src/karui/ops/simple_recurrence/cpu.py": 12,  # a registered op takes its tensors one by one
    "src/karui/ops/statistical_recurrence/cpu.py": 11,  # the same
    "src/karui/output/nce.py": 11,  # the words of every sampled layer, then its own two
    "src/karui/output/sampled.py": 11,  # the same
    "src/karui/tasks/text_classifier.py": 15,  # one word for each choice of the model's description
}
KNOWN_TABLES = {
    "build-system",
    "project",
    "project.optional-dependencies",
    "project.scripts",
    "tool.scikit-build",
    "tool.ruff",
    "tool.ruff.lint",
    "tool.ruff.lint.per-file-ignores",
    "tool.ruff.lint.pycodestyle",
    "tool.ruff.lint.pydocstyle",
    "tool.ruff.lint.isort",
    "tool.pyright",
    "tool.pyright.executionEnvironments",
    "tool.pytest.ini_options",
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring; a long explanation is welcome."""
    lines = (function.end_lineno or 0) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        lines -= (first.end_lineno or 0) - first.lineno + 1
    return lines


def is_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Tell whether each argument is one option of the command line (`Annotated[..., typer.Option(...)]`)."""
    arguments = [*function.args.args, *function.args.kwonlyargs]
    return bool(arguments) and all(
        "typer." in ast.unparse(a.annotation) for a in arguments if a.annotation is not None
    )


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_files_and_functions_are_small(path: Path) -> None:
    if name_of(path) in GENERATED:
        return
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_FILE_LINES, f"{lines} lines"
    if path.name == "triton_kernels.py":
        return  # a kernel is one loop, read from top to bottom, and takes its arrays one by one
    for function in functions(path):
        where = f"{name_of(path)}:{function.lineno} {function.name}"
        if is_command(function) and "/cli/" in name_of(path):
            continue  # a command has as many arguments as options, and a line each
        assert length(function) <= MAX_FUNCTION_LINES, f"{where}: {length(function)} lines"
        count = len(function.args.args) + len(function.args.kwonlyargs)
        count -= bool(function.args.args) and function.args.args[0].arg in {"self", "cls"}
        assert count <= MANY_ARGUMENTS.get(name_of(path), MAX_ARGUMENTS), f"{where}: {count} arguments"


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_tests_are_collected_and_can_fail(path: Path) -> None:
    name = name_of(path)
    holds_tests = any(function.name.startswith("test") for function in functions(path))
    assert path.name.startswith("test_") == holds_tests, (
        f"{name}: tests live in test_*.py, shared code elsewhere"
    )
    for node in ast.walk(tree_of(path)):
        where = f"{name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"{where}: a test asserts, it does not print"
        if isinstance(node, ast.ExceptHandler):
            quiet = all(isinstance(inner, ast.Pass | ast.Continue | ast.Return) for inner in node.body)
            broad = node.type is None or ast.unparse(node.type) in {
                "Exception",
                "BaseException",
                "AssertionError",
            }
            swallows = quiet or (broad and path.name.startswith("test_"))  # a program may count any failure
            assert not swallows, f"{where}: swallows its own failure; use pytest.raises"


@pytest.mark.parametrize("path", [p for p in TESTS if p.parent.name in {"ops", "support"}], ids=name_of)
def test_kernel_tests_have_one_tolerance(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.keyword):
            allowed = node.arg not in {"atol", "rtol", "abs", "rel"} or name_of(path).startswith(
                "tests/support/"
            )
            assert allowed, (
                f"{name_of(path)}:{node.value.lineno}: kernels are compared by assert_as_exact_as_plain"
            )


def tracked_files() -> list[Path]:
    """Files under version control, or in an unpacked archive all that could be."""
    if not (ROOT / ".git").exists():
        return [
            path for folder in ("src", "native", "tests", "docs") for path in (ROOT / folder).rglob("*.*")
        ]
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    return [ROOT / name for name in done.stdout.decode().split("\0") if name]


def test_nothing_names_a_machine_or_a_registry() -> None:
    # Written in two halves, so that this file does not name what it forbids.
    words = [
        "/ro" + "ot/",
        "/ho" + "me/",
        "/wo" + "rk/",
        "/op" + "t/",
        "py" + "pi.",
        "pytorch.org/" + "whl",
        "pythonho" + "sted",
    ]
    found = [
        f"{name_of(path)}: {word}"
        for path in tracked_files()
        if path.is_file() and path.suffix not in {".karui", ".png", ".pyc"}
        for word in words
        if word in path.read_text(encoding="utf-8", errors="replace")
    ]
    assert found == []


def test_pyproject_has_no_mistyped_table() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert set(re.findall(r"^\[+([^\]\[]+)\]+$", text, flags=re.MULTILINE)) == KNOWN_TABLES
    settings = tomllib.loads(text)
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned_names = set(re.findall(r"^([\w.-]+)==[\w.]+$", pinned, flags=re.MULTILINE))
    extras = settings["project"]["optional-dependencies"]
    direct = [*settings["project"]["dependencies"], *extras["train"], *extras["dev"]]
    assert {re.split(r"[<>=\[]", line)[0] for line in direct} <= pinned_names, (
        "a direct dependency without a version"
    )


def test_native_files_are_small() -> None:
    for path in sorted((ROOT / "native").rglob("*.?pp")):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= MAX_FILE_LINES, f"{name_of(path)}: {lines} lines"
