"""`karui inspect`: where the bytes of a `.karui` file are, and what it knows."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from karui.cli.inspect_language import inspect_language
from karui.cli.inspect_parts import layer_lines, provenance_lines, stored, table_lines

if TYPE_CHECKING:
    import numpy as np

    from karui.runtime.format import ClassifierSpec
    from karui.runtime.model import Classifier


def inspect(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A .karui file.")],
    words: Annotated[
        int, typer.Option(min=0, help="How many of the strongest words and pairs to print.")
    ] = 20,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document for machines, with all words.")
    ] = False,
) -> None:
    """Show what a .karui file holds: bytes by part, matrices with density and encoding, strongest words, provenance.

    The weight of a word is what it alone changes in the logit of the label it speaks for; that of a pair of words in a
    row is its score, which a text adds divided by the square root of its length. A language model has no such words.
    """
    from karui.runtime.language_reader import LanguageArtifact
    from karui.runtime.model import Classifier
    from karui.runtime.reader import read_any

    artifact = read_any(model)
    if isinstance(artifact, LanguageArtifact):
        typer.echo(inspect_language(model, artifact, as_json=as_json))
        return
    spec = artifact.spec
    strongest = word_weights(Classifier(spec, name=model))
    report: dict[str, Any] = {
        "file": model,
        "artifact_bytes": sum(artifact.sizes.values()),
        "bytes_by_part": artifact.sizes,
        "labels": spec.labels,
        "normalisation": spec.normalisation,
        "max_tokens": spec.max_tokens,
        "pooling": spec.pooling,
        **stored(artifact),
        "num_words": len(spec.words),
        "words": [
            {"word": word, "label": label, "weight": round(weight, 6)} for word, label, weight in strongest
        ],
        "num_pairs": 0 if spec.pairs is None else len(spec.pairs),
        "pairs": [
            {"pair": pair, "label": label, "weight": round(weight, 6)}
            for pair, label, weight in pair_weights(spec)
        ],
    }
    typer.echo(json.dumps(report, indent=2, ensure_ascii=False) if as_json else text_report(report, words))


def word_weights(classifier: "Classifier") -> list[tuple[str, str, float]]:
    """(word, label it speaks for, weight), strongest first: how this word alone moves the logit."""
    import numpy as np

    if not classifier.words:
        return []
    ids = np.arange(len(classifier.words) + 1, dtype=np.int32)[:, None]
    logits = classifier.logits_ids(list(ids))
    return _strongest(classifier.words, logits[1:] - logits[0], classifier.labels)


def pair_weights(spec: "ClassifierSpec") -> list[tuple[str, str, float]]:
    """(two words, label they speak for, weight), strongest first."""
    if spec.pairs is None or spec.pair_scores is None:
        return []
    return _strongest(spec.pair_names(), spec.pair_scores, spec.labels)


def _strongest(names: list[str], change: "np.ndarray", labels: list[str]) -> list[tuple[str, str, float]]:
    """(name, label, weight) of changes (N, C) of the logits."""
    import numpy as np

    if change.shape[1] == 1:
        best, weight = (change[:, 0] > 0).astype(int), np.abs(change[:, 0])
    else:
        change = change - change.mean(axis=1, keepdims=True)
        best, weight = change.argmax(axis=1), change.max(axis=1)
    order = np.argsort(-weight, kind="stable")
    return [(names[k], labels[best[k]], float(weight[k])) for k in order]


def text_report(report: dict[str, Any], num_words: int) -> str:
    """The report for people."""
    words, labels = report["num_words"], ", ".join(report["labels"])
    pooling, tokens, most = report["pooling"], report["normalisation"], report["max_tokens"] or "all"
    out = [
        f"{report['file']}: {report['artifact_bytes']} bytes, {words} words, labels {labels}",
        *layer_lines(report),
        f"pooling {pooling}, tokens {tokens}, at most {most}",
        *table_lines(report),
    ]
    if num_words and report["words"]:
        out += ["", "weight   strongest words"]
        out += [
            f"{entry['weight']:>7.3f}  {entry['word']} ({entry['label']})"
            for entry in report["words"][:num_words]
        ]
    if num_words and report["pairs"]:
        out += ["", f"weight   strongest of {report['num_pairs']} pairs"]
        out += [
            f"{entry['weight']:>7.3f}  {entry['pair']} ({entry['label']})"
            for entry in report["pairs"][:num_words]
        ]
    return "\n".join([*out, *provenance_lines(report)])
