"""What `karui compact` tells: one page for people, `compact.json` and `examples.json` for the run's report.

K classes, C outputs (1 for two classes), V words.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from karui.cli.runs import TrainedRun
from karui.compact.figures import spread
from karui.files import atomic_write

MAX_WORDS_LISTED = 3000
EXAMPLES = 12
EXAMPLE_CHARACTERS = 1500


@dataclass
class Measured:
    """A written file and its figures beside those of the masked and the dense model, by name."""

    made: Any
    artifact: Any
    models: dict[str, dict[str, Any]]
    labels_changed: dict[str, int]
    """Stored values -> test documents with another label than the masked model gives."""


def summarise(trained: TrainedRun, output: Path, measured: Measured, splits: Any) -> dict[str, Any]:
    """Everything `--json` prints; what the page shows is taken from it."""
    made, models = measured.made, measured.models
    compact, dense = models["compact"], models["dense"]
    return {
        "task": "classification",
        "data": splits.name,
        "subset": bool(splits.subset),
        "recipe": trained.recipe.name,
        "seed": trained.recipe.train.seed,
        "path": str(output),
        "artifact_bytes": len(made.data),
        "values": made.chosen.values,
        "levels": made.chosen.levels,
        "sizes": byte_table(made.data),
        "words_before": len(trained.words),
        **compact,
        "masked": models["masked"],
        "dense": dense,
        "exact_bytes": len(made.exact_data),
        "measured_documents": len(splits.test or splits.valid),
        "labels_changed": measured.labels_changed,
        "exact_proof": asdict(made.exact),
        "proof": asdict(made.proof),
        "metrics": {
            "test_accuracy": compact["test_accuracy"],
            "artifact_bytes": len(made.data),
            "dense_accuracy": dense["test_accuracy"],
            "dense_bytes": dense["artifact_bytes"],
            "words_kept": compact["words_kept"],
            "us_per_document": compact["us_per_document"],
        },
    }


def byte_table(data: bytes) -> dict[str, int]:
    """Part -> bytes; the parts add up to the whole file."""
    from karui.runtime.reader import read_artifact

    table: dict[str, int] = {}
    for name, count in read_artifact(data).sizes.items():
        part = name.partition("_")[0] if name.startswith("output_") else name
        part = "recurrent" if name.startswith("layers.") else part
        part = "header" if part in ("frame", "provenance") else part
        table[part] = table.get(part, 0) + count
    return table


def page(summary: dict[str, Any]) -> str:
    """What a person reads: the file, its byte table, figures of the three models, and the proof."""
    size = summary["artifact_bytes"]
    subset = " (subset)" if summary["subset"] else ""
    words = f"{summary['words_kept']:,} of {summary['words_before']:,} words"
    lines = [
        f"{summary['path']}: {size:,} bytes, {summary['values']}{_levels(summary['levels'])}, {words}",
        "",
        *(f"  {part:<12} {count:>10,} bytes" for part, count in summary["sizes"].items() if count),
        f"  {'whole file':<12} {size:>10,} bytes",
        "",
        f"{summary['data'] + subset:<16} {'valid':>9} {'test':>9} {'µs/document':>13} {'bytes':>12}",
    ]
    for name in ("dense", "masked", "compact"):
        entry = summary[name] if name != "compact" else summary
        count = entry.get("artifact_bytes")
        timed = entry["us_per_document"]
        lines.append(
            f"  {name:<14} {_percent(entry['valid_accuracy'])} {_percent(entry['test_accuracy'])}"
            f" {'–' if timed is None else f'{timed:,.1f}':>13} {'–' if count is None else f'{count:,}':>12}"
        )
    proof, exact = summary["proof"], summary["exact_proof"]
    error = f"{exact['max_error']:.1e} (allowed {exact['allowed_error']:.1e})"
    lines.append(
        f"\nproof: on {exact['documents']} texts the fp32 file equals the masked model within {error}"
    )
    changed = ", ".join(f"{count:,} by {values}" for values, count in summary["labels_changed"].items())
    split = "validation" if summary["test_accuracy"] is None else "test"
    lines.append(f"labels that change on {summary['measured_documents']:,} {split} documents: {changed}")
    if not proof["exact"]:
        same = f"{proof['label_agreement']:.1%} of {proof['documents']} validation texts keep their label"
        lines.append(
            f"rounding to {summary['values']}: {same}, a logit changes by at most {proof['max_error']:.2g}"
        )
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return f"{'–' if share is None else f'{share:.2%}':>9}"


def _levels(levels: dict[str, int]) -> str:
    lists = [part for part in ("words", "pairs") if part in levels]
    fewer = [f"{group} ±{most}" for group, most in levels.items() if most != 127 and group not in lists]
    fewer += [f"{levels[part]} % of the {part}, to fit" for part in lists]
    return f" ({', '.join(fewer)})" if fewer else ""


def write_summary(trained: TrainedRun, summary: dict[str, Any], measured: Measured, splits: Any) -> None:
    """Add the file to `compact.json` and write `examples.json`; schemas are in `karui.report.schema`.

    Raises:
        UserError: the run folder cannot be written.
    """
    path = trained.path / "compact.json"
    entry = {name: summary[name] for name in ("artifact_bytes", "values", "sizes", "words_kept")}
    entry |= {name: summary[name] for name in ("valid_accuracy", "test_accuracy", "us_per_document")}
    entry |= {"path": _relative(Path(summary["path"]), trained.path), "levels": summary["levels"]}
    files = [old for old in _files_before(path) if old.get("path") != entry["path"]]
    files = [old for old in files if (trained.path / str(old.get("path"))).exists()]
    content = {
        "files": [*files, entry],
        "dense": summary["dense"],
        "masked": summary["masked"],
        "words": word_weights(measured.artifact),
    }
    atomic_write(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    examples = pick_examples(measured.artifact, splits.test or splits.valid)
    atomic_write(trained.path / "examples.json", json.dumps(examples, ensure_ascii=False, indent=1) + "\n")


def _files_before(path: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [entry for entry in content.get("files", []) if isinstance(entry, dict)]
    except (OSError, ValueError, AttributeError):
        return []  # not there yet, or not ours: it is written anew


def _relative(path: Path, folder: Path) -> str:
    path, folder = path.resolve(), folder.resolve()
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


def word_weights(artifact: Any) -> list[dict[str, Any]]:
    """What each kept word says when it is the whole text, against an unknown word: the label it speaks for most."""
    words = list(artifact.words)
    if not words:
        return []
    ids = [np.array([i], np.int32) for i in range(len(words) + 1)]
    logits = np.asarray(artifact.logits_ids(ids), np.float64)  # (V + 1, C)
    effect = logits[1:] - logits[0]
    if effect.shape[1] == 1:
        effect = np.concatenate([-effect, effect], axis=1)
    else:
        effect -= effect.mean(axis=1, keepdims=True)
    best = effect.argmax(axis=1)
    weight = effect[np.arange(len(words)), best]
    order = np.argsort(-weight, kind="stable")[:MAX_WORDS_LISTED]
    return [
        {"word": words[i], "weight": round(float(weight[i]), 4), "class": artifact.labels[best[i]]}
        for i in order
    ]


def pick_examples(artifact: Any, part: Any) -> list[dict[str, Any]]:
    """Some short documents, spread over the split, with the spans the model reads."""
    short = [i for i, text in enumerate(part.texts) if 0 < len(text) <= EXAMPLE_CHARACTERS]
    found = []
    for position in spread(len(short), EXAMPLES):
        text, label = part.texts[short[position]], part.label_names[part.labels[short[position]]]
        found.append(
            {
                "text": text,
                "label": label,
                "predicted": artifact.predict([text])[0],
                "spans": [
                    [part.start, part.end, round(part.weight, 4)]
                    for part in artifact.contributions(text)
                    if part.weight
                ],
            }
        )
    return found
