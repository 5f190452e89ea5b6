"""What `import karui` offers, and that no module of it is broken."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

import karui

MODULES = [m.name for m in pkgutil.walk_packages(karui.__path__, "karui.") if not m.name.endswith("__main__")]


@pytest.mark.parametrize("name", karui.__all__)
def test_public_names_are_found(name: str) -> None:
    value = getattr(karui, name)
    assert value is getattr(karui, name) or name == "__version__"
    assert name in dir(karui)
    if name != "__version__":
        assert value.__doc__, f"karui.{name} needs a docstring"
        assert value.__name__ == name


def test_unknown_names_raise() -> None:
    with pytest.raises(AttributeError, match="module 'karui' has no attribute 'nothing'"):
        _ = karui.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports(name: str) -> None:
    assert importlib.import_module(name).__name__ == name


def test_import_reads_nothing_and_warns_of_nothing() -> None:
    code = "import sys, karui; print(sorted(m for m in sys.modules if m.startswith('karui')))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout == "['karui']\n"
    assert done.stderr == ""
