"""`karui eval` for language models: log-probability, tokens, words outside the vocabulary, perplexity."""

import math
from pathlib import Path
from typing import Any

from karui.errors import UserError

LN_10 = math.log(10.0)


def evaluate_language(
    path: Path, *, artifact: Any = None, data: str | None, split: str, text: str | None
) -> dict[str, Any]:
    """Figures of a run folder, or of the loaded `artifact`, on a part of a named text or a folder, or on a file.

    Raises:
        UserError: no text is named for a file, the text cannot be read, or the run is not finished.
    """
    from karui.data.language_sets import read_lines_of

    subset, fraction = False, 0.0
    if artifact is None:
        from karui.cli.language_runs import open_language_run

        model, recipe = open_language_run(path)
        subset = model.subset
        if data in (None, recipe.data.name) and text is None:
            data, text, fraction = recipe.data.name, recipe.data.text, recipe.data.valid_fraction
    else:
        model = artifact
    if data is None:
        raise UserError("a .karui file knows no data: add --data NAME or --data PATH")
    lines, name = read_lines_of(data, split, text=text, valid_fraction=fraction)
    found = model.perplexity(lines)
    is_char = model.tokenisation == "chars-v1"
    return {
        "model": str(path),
        "data": data,
        "subset": subset,
        "split": name,
        "log10_prob": _finite(found.log_prob / LN_10),
        "tokens": found.tokens,
        "lines": found.lines,
        "oovs": found.oovs,
        "oov_rate": found.oovs / found.tokens,
        "perplexity": _finite(found.perplexity),
        "perplexity_without_oovs": _finite(found.perplexity_without_oovs),
        **({"bpc": _finite(found.bits_per_token)} if is_char else {}),
    }


def page(result: dict[str, Any]) -> str:
    """What a person reads."""
    unit = "characters" if "bpc" in result else "tokens"
    lines = [
        f"{result['model']} on {result['data']}, {result['split']}: {result['lines']:,} lines",
        f"total log10 probability     {_shown(result['log10_prob'], '.4f')}",
        f"{unit:<27} {result['tokens']:,} (ends of lines included)",
        f"out of vocabulary           {result['oovs']:,} ({result['oov_rate']:.3%})",
        f"perplexity with them        {_shown(result['perplexity'], '.4f')}",
        f"perplexity without them     {_shown(result['perplexity_without_oovs'], '.4f')}",
    ]
    if "bpc" in result:
        lines.append(f"bits per character          {_shown(result['bpc'], '.4f')}")
    return "\n".join(lines)


def _finite(value: float) -> float | None:
    """JSON has neither NaN nor infinity: null."""
    return value if math.isfinite(value) else None


def _shown(value: float | None, form: str) -> str:
    return "infinite or undefined" if value is None else format(value, form)
