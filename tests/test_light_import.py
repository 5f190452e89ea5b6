"""The base install answers: no torch, no compiler, a fresh interpreter.

Each test runs twice: here, with a hook that refuses torch, and in the environment that holds the base install
alone, named by KARUI_BASE_PYTHON (`make test` makes it and sets the variable).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.karui"))
BASE_PYTHON = os.environ.get("KARUI_BASE_PYTHON", "")
HEAVY = (
    "torch",
    "lightning_fabric",
    "datasets",
    "pandas",
    "pyarrow",
    "matplotlib",
    "scipy",
    "sklearn",
    "tensorboard",
)
REFUSE = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Refuse())
"""
RUN = "import sys; from karui.cli.main import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(params=["refused", "base"])
def fresh(request: pytest.FixtureRequest, tmp_path: Path):
    """Run code in a fresh interpreter without torch and without anything on PATH."""
    if request.param == "base" and not BASE_PYTHON:
        pytest.skip("KARUI_BASE_PYTHON names no base environment; `make test` makes one")
    python = BASE_PYTHON if request.param == "base" else sys.executable
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path), "PYTHONWARNINGS": "error"}
    environment |= {name: os.environ[name] for name in ("ASAN_OPTIONS", "LD_PRELOAD") if name in os.environ}

    def run(code: str, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        code = REFUSE + code if request.param == "refused" else code
        return subprocess.run(
            [python, "-c", code, *arguments],
            input=text,
            capture_output=True,
            encoding="utf-8",
            env=environment,
            cwd=tmp_path,
            timeout=60,
            check=False,
        )

    return run


def test_imports_without_torch(fresh) -> None:
    done = fresh(
        "import sys, json, karui, karui.runtime, karui.cli, karui.cli.main\n"
        "before = sorted(m for m in sys.modules if '.' not in m)\n"
        "try: import torch; torch_is_there = True\n"
        "except ModuleNotFoundError: torch_is_there = False\n"
        "print(json.dumps([torch_is_there, before, karui.UserError.__name__, karui.__version__]))"
    )
    assert done.returncode == 0, done.stderr
    torch_is_there, modules, user_error, version = json.loads(done.stdout)
    assert not torch_is_there
    assert not set(modules) & set(HEAVY)
    assert user_error == "UserError"
    assert version[0].isdigit()


def test_help_lists_every_verb(fresh) -> None:
    done = fresh(RUN, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for verb in ("train", "eval", "compact", "predict", "inspect", "report", "bench", "data"):
        assert f"\n  {verb} " in done.stdout


def test_a_verb_that_needs_torch_names_the_extra(fresh, tmp_path: Path) -> None:
    done = fresh(RUN, "train", "classify", "--data", "stdlib-docs", "--out", str(tmp_path / "run"))
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "install karui[train]" in done.stderr
    assert done.stdout == ""


def test_golden_artifacts_are_there() -> None:
    assert GOLDEN, "tests/golden/*.karui hold the artifacts that the base install must read"


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_predicts_from_a_golden_artifact(fresh, path: Path) -> None:
    done = fresh(RUN, "predict", str(path), "-", text="a quiet, funny film\ndull\n")
    assert done.returncode == 0, done.stderr
    answers = done.stdout.splitlines()
    assert len(answers) == 2
    # A classifier answers with its labels, a language model with words that may come next.
    names = "getattr(model, 'labels', None) or model.words"
    code = f"import karui; model = karui.load({str(path)!r}); print('\\n'.join({names}))"
    known = fresh(code).stdout.splitlines()
    assert len(known) > 1
    assert all(any(name in answer for name in known) for answer in answers), answers


def test_predict_refuses_a_missing_file_in_one_line(fresh) -> None:
    done = fresh(RUN, "predict", "nowhere.karui", "-", text="x\n")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert "nowhere.karui" in done.stderr
    assert done.stdout == ""
