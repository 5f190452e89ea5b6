"""`karui predict`: one line in, one answer out. Needs numpy and the native core, no torch."""

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import IO, Annotated

import typer

from karui.cli.predict_language import language_answers
from karui.errors import UserError
from karui.files import os_reason


def predict(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A .karui file.")],
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Texts, one a line; - is standard input.")
    ] = "-",
    proba: Annotated[bool, typer.Option("--proba", help="Add the probability of every label.")] = False,
    top: Annotated[
        int, typer.Option(min=1, help="Language models: how many next words to print for each line.")
    ] = 5,
    score: Annotated[
        bool, typer.Option("--score", help="Language models: the log10-probability of each line instead.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line for machines.")
    ] = False,
) -> None:
    """Answer with a .karui file: for every line of FILE the most probable label.

    A language model tells the most probable next words and their probabilities; each line begins a text.
    An empty line is a text too and gets an answer. Input is UTF-8.
    """
    from karui.runtime.model import Classifier, load

    classifier = load(model)
    with open_input(file) as stream:
        texts = lines(stream, "standard input" if file == "-" else file)
        if not isinstance(classifier, Classifier):
            if proba:
                raise UserError(
                    f"{model} is a language model, it has no labels; --score and --top are for those"
                )
            for answer in language_answers(classifier, texts, top=top, score=score, as_json=as_json):
                _write(answer, flush=file == "-")
            return
        if score:
            raise UserError(f"{model} is a text classifier; --score is for language models")
        for text in texts:
            probabilities = classifier.predict_proba(text)
            best = int(probabilities.argmax())
            label = classifier.labels[best]
            if as_json:
                pairs = dict(zip(classifier.labels, (round(float(p), 7) for p in probabilities), strict=True))
                answer = json.dumps(
                    {"label": label, "probability": pairs[label], "probabilities": pairs}, ensure_ascii=False
                )
            elif proba:
                answer = "\t".join(
                    [
                        label,
                        *(
                            f"{name}={p:.6f}"
                            for name, p in zip(classifier.labels, probabilities, strict=True)
                        ),
                    ]
                )
            else:
                answer = label
            _write(answer, flush=file == "-")


def _write(answer: str, *, flush: bool) -> None:
    sys.stdout.write(answer + "\n")
    if flush:
        sys.stdout.flush()  # whoever feeds a pipe may wait for the answer


def open_input(file: str) -> contextlib.AbstractContextManager[IO[bytes]]:
    """Bytes of a file, or of standard input for "-"."""
    if file == "-":
        return contextlib.nullcontext(sys.stdin.buffer)
    try:
        return open(file, "rb")  # noqa: PTH123 - the caller closes it
    except OSError as error:
        raise UserError(f"cannot read {file}: {os_reason(error) or error.strerror}") from None


def lines(stream: IO[bytes], name: str) -> Iterator[str]:
    """Texts of a UTF-8 stream, one a line, without line ends; `UserError` names file, line and byte."""
    for number, line in enumerate(stream, 1):
        try:
            yield line.removesuffix(b"\n").removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            byte = line[error.start]
            raise UserError(
                f"{name}, line {number}: byte {byte:#04x} at position {error.start + 1} is not UTF-8;"
                " convert the file to UTF-8"
            ) from None
