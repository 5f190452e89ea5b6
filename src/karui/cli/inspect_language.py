"""`karui inspect` for language models."""

import json
from typing import TYPE_CHECKING, Any

from karui.cli.inspect_parts import layer_lines, provenance_lines, stored, table_lines

if TYPE_CHECKING:
    from karui.runtime.language_reader import LanguageArtifact


def inspect_language(file: str, artifact: "LanguageArtifact", *, as_json: bool) -> str:
    """What `karui inspect` prints: kind, parts, bytes, matrices, provenance."""
    from karui.runtime.language_spec import outline_of

    spec = artifact.spec
    outline = outline_of(spec)
    report: dict[str, Any] = {
        "file": file,
        "kind": "language model",
        "artifact_bytes": sum(artifact.sizes.values()),
        "bytes_by_part": artifact.sizes,
        "num_words": len(spec.words),
        "end_of_line": spec.words[spec.eos],
        "unknown": None if spec.unk is None else spec.words[spec.unk],
        "tokenisation": spec.tokenisation,
        "lower": spec.lower,
        "embedding_dim": outline.embedding_dim,
        "projection": outline.projection,
        "output": outline.output.kind,
        "tied": outline.output.is_tied,
        "parameters": outline.cells,
        **stored(artifact),
    }
    return json.dumps(report, indent=2, ensure_ascii=False) if as_json else text_report(report)


def text_report(report: dict[str, Any]) -> str:
    """The report for people."""
    case = ", lower-cased" if report["lower"] else ""
    tied = ", one table with the embedding" if report["tied"] else ""
    unknown, words, weights = report["unknown"] or "none", report["num_words"], report["parameters"]
    projection = [] if report["projection"] is None else [f"projection to {report['projection']}"]
    lines = [
        f"{report['file']}: {report['artifact_bytes']} bytes, {words} words, {weights} parameters",
        f"language model, tokens {report['tokenisation']}{case}, unknown word {unknown}",
        f"embedding {report['embedding_dim']}, output {report['output']}{tied}",
    ]
    return "\n".join(
        [*lines, *layer_lines(report), *projection, *table_lines(report), *provenance_lines(report)]
    )
