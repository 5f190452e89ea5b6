"""`karui compact` for language models: describe, prove on held-out text, choose the stored values, write the file."""

import json
import sys
from pathlib import Path
from typing import Any

from karui.errors import UserError
from karui.files import atomic_write


def compact_language_run(
    run: Path, output: Path, *, values: str, max_bytes: int | None, tolerance: float | None, provenance: bool
) -> dict[str, Any]:
    """Write the file of a run of `karui train lm`; returns what `page` shows.

    Raises:
        UserError: the run is not finished, its text cannot be read, the file would answer differently or is too large.
    """
    from karui.cli.language_runs import open_language_run, spec_of
    from karui.compact.language import PERPLEXITY_TOLERANCE, compact_language, model_log_probs
    from karui.data.language_sets import read_lines_of
    from karui.runtime.format import VALUES
    from karui.runtime.reader import read_any

    if values != "auto" and values not in VALUES:
        raise UserError(f"values must be auto, fp32, fp16 or int8, got {values!r}")
    if tolerance is not None and not tolerance >= 0:
        raise UserError(f"tolerance must be at least 0, got {tolerance}")
    trained, recipe = open_language_run(run)
    data = recipe.data
    _say(f"reading the validation part of {data.name}")
    lines, _ = read_lines_of(data.name, "valid", text=data.text, valid_fraction=data.valid_fraction)
    spec = spec_of(trained, trained.model)
    if provenance:
        spec.provenance = {"recipe": recipe.name, "data": data.name, "seed": str(recipe.train.seed)}
    _say("proving that the file answers as the model does, choosing values")
    # a dense run stays what the others are compared with, as that of a text classifier does
    usual = 0.0 if recipe.sparse.method == "none" else PERPLEXITY_TOLERANCE
    try:
        made = compact_language(
            spec,
            lines,
            model_log_probs(trained.model, trained.eos),
            values=None if values == "auto" else values,
            max_bytes=max_bytes,
            tolerance=(usual if tolerance is None else tolerance / 100),
        )
    except ValueError as error:  # a size that the format does not allow
        raise UserError(f"{run} does not fit a .karui file: {error}; train a smaller model") from error
    atomic_write(output, made.data)
    found = _summary(made, read_any(made.data).sizes)
    shape = {"trained": _shape(spec), "compact": _shape(made.spec)}
    return {"run": str(run), "file": str(output), **found, "shape": shape}


def _shape(spec: Any) -> dict[str, Any]:
    """Sizes of a description; weights are those that are not zero, words_read those whose embedding is not."""
    from karui.runtime.language_format import arrays_of

    return {
        "embedding_dim": spec.embedding.shape[1],
        "hidden_sizes": [layer.hidden_sizes[0] for layer in spec.layers],
        "words_read": int(spec.embedding.any(axis=1).sum()),
        "cells": sum(array.size for _, array in arrays_of(spec)),
        "weights": sum(int((array != 0).sum()) for _, array in arrays_of(spec)),
    }


def _summary(made: Any, sizes: dict[str, int]) -> dict[str, Any]:
    """What is told of a file; made is a `CompactedLanguage`."""
    return {
        "kind": "language model",
        "artifact_bytes": len(made.data),
        "values": made.chosen.values,
        "words": len(made.spec.words),
        "bytes_by_part": sizes,
        "proof": {
            "tokens": made.proof.tokens,
            "max_error": made.proof.max_error,
            "perplexity": made.proof.perplexity,
        },
        "tried": [
            {
                "values": each.values,
                "artifact_bytes": len(each.data),
                "perplexity": each.perplexity,
                "change": each.perplexity / made.tried[0].perplexity - 1.0,
            }
            for each in made.tried
        ],
    }


def compact_language_command(
    run: Path, output: Path, *, as_json: bool, levels: int | None, **wish: Any
) -> str:
    """What `karui compact` prints for a language model."""
    if levels is not None:
        raise UserError(
            "levels are for text classifiers; a language model's int8 values have a scale for each row"
        )
    found = compact_language_run(run, output, **wish)
    return json.dumps(found, ensure_ascii=False) if as_json else page(found)


def page(found: dict[str, Any]) -> str:
    """What a person reads."""
    proof, total = found["proof"], found["artifact_bytes"]
    lines = [
        f"{found['file']}: {total:,} bytes, {found['words']:,} words, {found['values']} values",
        f"proved on {proof['tokens']:,} held-out tokens: log-probabilities within {proof['max_error']:.1e}",
        *_shrunk(found["shape"]["trained"], found["shape"]["compact"], found["words"]),
        "",
        f"{'values':<7} {'bytes':>12} {'perplexity':>12} {'change':>10}",
    ]
    for each in found["tried"]:
        mark = "  <- written" if each["values"] == found["values"] else ""
        lines.append(
            f"{each['values']:<7} {each['artifact_bytes']:>12,} {each['perplexity']:>12.4f}"
            f" {each['change']:>+10.4%}{mark}"
        )
    lines += ["", f"{'bytes':>12}  share  part"]
    lines += [
        f"{size:>12,} {size / total:>6.1%}  {part}" for part, size in found["bytes_by_part"].items() if size
    ]
    return "\n".join(lines)


def _shrunk(before: dict[str, Any], after: dict[str, Any], words: int) -> list[str]:
    """One line on what was left out; none for a dense model."""
    if after["weights"] == after["cells"] == before["cells"]:
        return []

    def units(sizes: list[int]) -> str:
        return " + ".join(map(str, sizes)) or "no"

    columns = f"embedding {before['embedding_dim']} -> {after['embedding_dim']}"
    layers = f"{units(before['hidden_sizes'])} -> {units(after['hidden_sizes'])} units"
    weights = f"{after['weights']:,} weights of {before['cells']:,}"
    return [f"{columns}, {layers}, {after['words_read']:,} of {words:,} words are read, {weights}"]


def _say(line: str) -> None:
    """Tell a person who waits what is going on; files and pipes get the result alone."""
    if sys.stderr.isatty():
        sys.stderr.write(f"{line} ...\n")
