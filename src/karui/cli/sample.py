"""`karui sample`: text from a language model, a run folder or a .karui file; a file needs no torch."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from karui.cli.task_table import task_of_run
from karui.errors import UserError


def sample(
    model: Annotated[
        Path, typer.Argument(metavar="RUN_OR_FILE", help="A run folder of karui train lm, or a .karui file.")
    ],
    *,
    prompt: Annotated[str, typer.Option(help="Text to continue; a new line if left out.")] = "",
    tokens: Annotated[int, typer.Option(min=0, help="Words (or characters) to draw.")] = 100,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="Below 1 the likely words gain; 0 takes the likeliest each time.")
    ] = 1.0,
    top_k: Annotated[int, typer.Option(min=0, help="Draw among the likeliest words only; 0 = all.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same text.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document for machines.")] = False,
) -> None:
    """Continue a prompt with a language model."""
    answer = _open(model).sample(prompt, tokens=tokens, temperature=temperature, top_k=top_k, seed=seed)
    if as_json:
        settings = {"tokens": tokens, "temperature": temperature, "top_k": top_k, "seed": seed}
        found = {"model": str(model), "prompt": prompt, "text": answer, **settings}
        typer.echo(json.dumps(found, ensure_ascii=False))
    else:
        typer.echo(_joined(prompt, answer))


def _open(path: Path) -> Any:
    if path.is_dir():
        task = task_of_run(path)
        if task != "lm":
            raise UserError(f"{path} is a run of karui train {task}; only language models can be sampled")
        from karui.cli.language_runs import open_language_run

        return open_language_run(path)[0]
    import karui

    model = karui.load(path)
    if not hasattr(model, "sample"):
        raise UserError(f"{path} is no language model; karui predict answers with it")
    return model


def _joined(prompt: str, answer: str) -> str:
    """Prompt and answer; words that do not begin a line are a blank apart."""
    needs_blank = prompt and not prompt[-1].isspace() and answer and not answer[0].isspace()
    return f"{prompt} {answer}" if needs_blank else f"{prompt}{answer}"
