"""The command `karui`: finds the verb, runs it, and turns what went wrong into one line and an exit code.

Exit codes: 0 success, 2 bad input or a missing extra, 130 interrupted, 141 the reader of a pipe went away.
A verb is imported when it is called, so `karui --help` and `karui predict` never pay for training.
"""

import contextlib
import difflib
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple, cast

import typer
from typer.core import TyperGroup

from karui.errors import UserError
from karui.files import os_reason
from karui.memory import keep_for_training

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


class Verb(NamedTuple):
    """Where a verb lives: a function, or a `typer.Typer` holding sub-commands."""

    module: str
    attribute: str
    help: str


VERBS = {
    "train": Verb("karui.cli.train", "train", "Train a model into a run folder."),
    "eval": Verb("karui.cli.eval", "evaluate", "Measure a run or a .karui file on a data set."),
    "compact": Verb("karui.cli.compact", "compact", "Shrink a trained run to one .karui file, exactly."),
    "sample": Verb("karui.cli.sample", "sample", "Continue a text with a language model."),
    "predict": Verb("karui.cli.predict", "predict", "Answer with a .karui file; needs no PyTorch."),
    "inspect": Verb("karui.cli.inspect", "inspect", "Show what a .karui file holds and where its bytes are."),
    "report": Verb("karui.cli.report", "report", "Print tables of runs or records, write report.html."),
    "reproduce": Verb("karui.cli.reproduce", "reproduce", "Make a published row again and record it."),
    "bench": Verb("karui.cli.bench", "app", "Measure speed as ratios against named peers."),
    "data": Verb("karui.cli.data", "app", "List, fetch and verify the named data sets."),
}

TRAINING_VERBS = ("train", "reproduce")

# Import name -> extra that brings it, for the one line a missing package gets.
EXTRAS = {
    **dict.fromkeys(
        (
            "datasets",
            "lightning",
            "lightning_fabric",
            "matplotlib",
            "pyarrow",
            "rich",
            "safetensors",
            "scipy",
            "sklearn",
            "tensorboard",
            "torch",
        ),
        "train",
    ),
    **dict.fromkeys(("starlette", "uvicorn"), "serve"),
    **dict.fromkeys(("onnx", "onnxruntime"), "export"),
    "optuna": "tune",
}


class VerbGroup(TyperGroup):
    """The top level: knows the verbs by name and imports one only when it is called."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # noqa: ARG002
        """Names of the verbs, in the order of the table."""
        return list(VERBS)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]  # noqa: ARG002
        """Import the verb's module and return its command."""
        if cmd_name.startswith("-"):
            return None  # typer words the error for an unknown option
        return load_verb(cmd_name)

    def format_commands(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]  # noqa: ARG002
        """List the verbs from the table, importing none."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, verb.help) for name, verb in VERBS.items()])


app = typer.Typer(
    cls=VerbGroup,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        import karui

        typer.echo(f"karui {karui.__version__}")
        raise typer.Exit


@app.callback()
def _karui(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train small, fast sequence models and ship each as one file that runs without PyTorch."""


def load_verb(name: str) -> Any:
    """Return the command of a verb, importing its module.

    Raises:
        UserError: there is no such verb; the message proposes the nearest one.
    """
    if name not in VERBS:
        near = difflib.get_close_matches(name, VERBS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the verbs are {', '.join(VERBS)}"
        raise UserError(f"no such verb {name!r}; {hint}")
    verb = VERBS[name]
    target = getattr(importlib.import_module(verb.module), verb.attribute)
    if isinstance(target, typer.Typer):
        target.rich_markup_mode = None  # plain help: fast, and the same bytes in every terminal
        return typer.main.get_group(target)
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name)(target)
    return typer.main.get_command(single)


def main(args: Sequence[str]) -> int:
    """Run one command line (without the program's name) and return its exit code.

    Whatever the user can put right is one line on stderr; a bug keeps its traceback.
    """
    if sys.stdout is None:  # closed by the shell's >&-
        return _complain("standard output is closed; send it to a file or to /dev/null", EXIT_BAD_INPUT)
    command = typer.main.get_command(app)
    try:
        with command.make_context("karui", list(args) or ["--help"]) as ctx:
            command.invoke(ctx)
        sys.stdout.flush()
    except typer.Exit as stop:
        return stop.exit_code
    except typer.Abort:
        return _complain("stopped", EXIT_INTERRUPTED)
    except KeyboardInterrupt:
        remedy = "; the same command with --resume continues" if args[:1] == ["train"] else ""
        return _complain(f"interrupted{remedy}", EXIT_INTERRUPTED)
    except BrokenPipeError:
        _forget_stdout()
        return EXIT_BROKEN_PIPE
    except Exception as error:
        line = _one_line(error)
        if line is None:
            raise
        return _complain(line, EXIT_BAD_INPUT)
    return 0


def run() -> None:
    """Entry point of the console script."""
    if sys.argv[1:2] and sys.argv[1] in TRAINING_VERBS:
        keep_for_training()
    sys.exit(main(sys.argv[1:]))


def _one_line(error: Exception) -> str | None:
    """Word an error the user can put right; None for a bug."""
    if isinstance(error, UserError):
        return str(error)
    if hasattr(error, "format_message"):  # typer's own errors: a wrong option, a missing argument
        return _word_usage_error(cast("Any", error))
    if isinstance(error, ImportError):
        return _word_missing_package(error)
    reason = os_reason(error)
    if reason is None:
        return None
    name = getattr(error, "filename", None)
    if name is None and getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        _forget_stdout()  # every file that karui opens by name is named in its errors
        return f"cannot write standard output: {reason}"
    return f"cannot use {os.fspath(name)}: {reason}" if name else reason


def _word_usage_error(error: Any) -> str:
    ctx = getattr(error, "ctx", None)
    path = ctx.command_path if ctx is not None else "karui"
    if ctx is not None and error.format_message() == ctx.get_help():
        return f"{path.removeprefix('karui').strip()}: missing a sub-command ({path} --help)"
    message = " ".join(error.format_message().split()).removesuffix(".")
    return f"{path.removeprefix('karui').strip()}: {message} ({path} --help)".removeprefix(": ")


def _word_missing_package(error: ImportError) -> str | None:
    if error.name is None:
        return str(error)  # raised by karui itself, already names the extra
    package = error.name.partition(".")[0]
    if package not in EXTRAS or package in sys.modules:
        return None  # not ours, or installed and broken: keep the traceback
    return f"this command needs {package}: install karui[{EXTRAS[package]}]"


def _complain(line: str, code: int) -> int:
    with contextlib.suppress(OSError):
        typer.echo(f"karui: {line}", err=True)
    return code


def _forget_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush does not complain again."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
