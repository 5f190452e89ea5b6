"""The command's frame: exit codes, one line an error, verbs found by name."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from karui.cli import main as cli
from karui.errors import ArtifactError, UserError


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch):
    """Let `karui probe [--count N]` run a function of the test's choice."""

    def install(body) -> None:
        def probe(count: int = 1) -> None:
            body(count)

        module = type(sys)("karui_probe")
        monkeypatch.setattr(module, "probe", probe, raising=False)
        monkeypatch.setitem(sys.modules, "karui_probe", module)
        monkeypatch.setitem(cli.VERBS, "probe", cli.Verb("karui_probe", "probe", "Try things."))

    return install


def failing(error: BaseException):
    def body(_count: int) -> None:
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("reviews.csv:3: no column 'txt'"), 2, "reviews.csv:3: no column 'txt'"),
        (ArtifactError("m.karui: cut after 10 bytes"), 2, "m.karui: cut after 10 bytes"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (typer.Abort(), 130, "stopped"),
        (
            OSError(errno.ENOSPC, "x", "run/metrics.jsonl"),
            2,
            "cannot use run/metrics.jsonl: the disk is full; free some space or choose another folder",
        ),
        (
            ImportError("karui probe needs x: install karui[train]"),
            2,
            "karui probe needs x: install karui[train]",
        ),
        (
            ModuleNotFoundError("No module named 'optuna'", name="optuna"),
            2,
            "this command needs optuna: install karui[tune]",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_what_the_user_can_put_right_is_one_line(verb, capsys, monkeypatch, error, code, line) -> None:
    monkeypatch.delitem(sys.modules, "optuna", raising=False)  # another test may have imported it
    verb(failing(error))
    assert cli.main(["probe"]) == code
    captured = capsys.readouterr()
    assert captured.err == f"karui: {line}\n"
    assert captured.out == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_full_standard_output_is_named_once(unbuffered: str) -> None:
    command = [sys.executable, "-m", "karui", "--version"]
    with Path("/dev/full").open("wb") as full:
        environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, env=environment, text=True, check=False
        )
    expected = (
        "karui: cannot write standard output: the disk is full; free some space or choose another folder\n"
    )
    assert (done.returncode, done.stderr) == (2, expected)


def test_closed_standard_output_is_named(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert cli.main(["--version"]) == 2
    assert capsys.readouterr().err.startswith("karui: standard output is closed; send it to")


@pytest.mark.parametrize(
    "bug", [ZeroDivisionError("x"), ModuleNotFoundError("no karui.x", name="karui.x"), OSError("x")]
)
def test_a_bug_keeps_its_traceback(verb, bug) -> None:
    verb(failing(bug))
    with pytest.raises(type(bug)):
        cli.main(["probe"])


def test_exit_codes_of_a_verb_are_passed_on(verb) -> None:
    seen = []
    verb(seen.append)
    assert cli.main(["probe", "--count", "3"]) == 0
    assert seen == [3]
    verb(failing(typer.Exit(5)))
    assert cli.main(["probe"]) == 5


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["tran"], "no such verb 'tran'; did you mean 'train'?"),
        (["zzzz"], "no such verb 'zzzz'; the verbs are train, eval,"),
        (["--nothing"], "No such option: --nothing (karui --help)"),
        (["probe", "--count", "many"], "probe: Invalid value for '--count': "),
        (["probe", "--cuont", "1"], "probe: No such option: --cuont"),
    ],
)
def test_a_wrong_command_line_is_one_line(verb, capsys, arguments, line) -> None:
    verb(failing(AssertionError("must not run")))
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"karui: {line}")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_no_arguments_is_help_and_version_is_a_number(capsys) -> None:
    assert cli.main([]) == 0
    assert "Verbs:" in capsys.readouterr().out
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("karui 0.")


@pytest.mark.parametrize("name", list(cli.VERBS))
def test_each_verb_has_a_page_of_help(name: str, capsys) -> None:
    assert cli.main([name, "--help"]) == 0
    assert f"Usage: karui {name} " in capsys.readouterr().out


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    code = "import sys, typer; from karui.cli import main as m\n"
    code += "m.load_verb = lambda name: typer.main.get_command(app)\napp = typer.Typer()\n"
    code += "@app.command()\ndef f():\n    while True: print('x' * 1000)\n"
    code += "sys.exit(m.main(['predict']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(1000)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=20) == cli.EXIT_BROKEN_PIPE


def test_the_module_is_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "karui", "tran"],
        capture_output=True,
        encoding="utf-8",
        cwd=tmp_path,
        env=os.environ,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "karui: no such verb 'tran'; did you mean 'train'?\n"
