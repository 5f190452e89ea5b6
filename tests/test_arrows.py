"""Who may import whom, held by reading the syntax trees; the picture is in the README's map of the rooms."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src"
FILES = sorted(path for path in SOURCE.rglob("*.py") if path.parent != SOURCE / "karui")
LEAVES = {"errors", "files", "lazy", "memory", "targets"}  # everybody may import these
# Room -> what it may import of karui, besides itself and the leaves. A dotted name allows that module alone.
ARROWS = {
    "cli": {
        "recipes",
        "tasks",
        "train",
        "nn",
        "output",
        "sparse",
        "data",
        "ops",
        "compact",
        "report",
        "runtime",
    },
    "recipes": {"tasks", "train", "nn", "output", "sparse", "data"},
    "tasks": {
        "nn",
        "output",
        "sparse",
        "data",
        "ops",
        "optim",
        "runtime.tokenise",
        "runtime.language_tokens",
    },
    "train": {"optim"},
    "optim": {"ops"},
    "nn": {"ops"},
    "output": {"ops"},
    "sparse": {"ops"},
    # one tokeniser for training, baselines and answering
    "data": {"runtime.tokenise", "runtime.language_tokens"},
    "compact": {
        "nn",
        "output",
        "sparse",
        "tasks",
        "runtime.format",
        "runtime.language",
        "runtime.language_format",
        "runtime.language_output",
        "runtime.model",
    },
    "ops": {"_native"},
    "report": set(),  # reads results/*.json and run folders
    "runtime": {"_native"},
}
# What a single file may do beyond its room, with the reason.
EXCEPTIONS = {
    "karui.sparse.apply": {"nn", "output"},  # replaces layers by their sparse versions
    "karui.tasks.output_peers": {"optim"},  # times the whole step of a layer, with its update
    "karui.tasks.language_run": {"runtime.language"},  # the figures of a text have one definition
    "karui.tasks.linear_file": {"_native"},  # the rival's words are packed by the coder of the artifact
}
TORCH_FREE_AT_IMPORT = ("cli", "runtime", "data")  # reached from `karui --help` and `karui predict`


def imports(tree: ast.Module, *, top_level_only: bool = False) -> Iterator[str]:
    """Dotted names a file imports; `from a import b` gives `a.b`."""
    for node in ast.iter_child_nodes(tree) if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def parts(path: Path) -> tuple[str, str, ast.Module]:
    names = path.relative_to(SOURCE).with_suffix("").parts
    module = ".".join(names).removesuffix(".__init__")
    return module, names[1], ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_rooms_import_only_to_the_right(path: Path) -> None:
    module, room, tree = parts(path)
    assert room in ARROWS, f"a new room needs a row in ARROWS: {room}"
    allowed = ARROWS[room] | LEAVES | {room} | EXCEPTIONS.get(module, set())
    for name in imports(tree):
        package, _, target = name.partition(".")
        if package == "karui" and target:
            nearest = {target.split(".")[0], ".".join(target.split(".")[:2])}
            assert nearest & allowed, f"{module} imports {name}, {room} may import {sorted(allowed)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_other_packages_stay_where_they_belong(path: Path) -> None:
    module, room, tree = parts(path)
    outside = {name.split(".")[0] for name in imports(tree)} - set(sys.stdlib_module_names)
    if room == "runtime":
        assert outside <= {"karui", "numpy"}, f"{module} must run on numpy alone, imports {outside}"
    if path.name == "reference.py":
        assert outside <= {"torch"}, f"{module} is the mathematics and imports torch only, not {outside}"
    if room in TORCH_FREE_AT_IMPORT:
        first = {name.split(".")[0] for name in imports(tree, top_level_only=True)} - set(
            sys.stdlib_module_names
        )
        assert first <= {"karui", "numpy", "typer"}, (
            f"{module} imports {first} at its top; move it into a function"
        )


def test_the_rule_sees_a_wrong_arrow() -> None:
    tree = ast.parse("def f():\n    from karui.nn import SRU\nimport torch.nn as nn\n")
    assert set(imports(tree)) == {"karui.nn.SRU", "torch.nn"}
    assert set(imports(tree, top_level_only=True)) == {"torch.nn"}
