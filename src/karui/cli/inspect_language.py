"""`karui inspect` for language models."""

import json
from typing import TYPE_CHECKING, Any

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
        "layers": [
            {"kind": layer.kind, "activation": layer.activation, "hidden_sizes": list(layer.hidden_sizes)}
            for layer in spec.layers
        ],
        "matrices": [
            {
                "name": record.name,
                "shape": list(record.shape),
                "kept": record.kept,
                "density": round(record.kept / max(1, record.shape[0] * record.shape[1]), 6),
                "values": record.values,
                "encoding": record.layout + (", coded" if record.coded else ""),
                "bytes": record.num_bytes,
            }
            for record in artifact.records
        ],
        "provenance": spec.provenance,
    }
    return json.dumps(report, indent=2, ensure_ascii=False) if as_json else text_report(report)


def text_report(report: dict[str, Any]) -> str:
    """The report for people."""
    total, case = report["artifact_bytes"], ", lower-cased" if report["lower"] else ""
    tied = ", one table with the embedding" if report["tied"] else ""
    out = [
        f"{report['file']}: {total} bytes, {report['num_words']} words, {report['parameters']} parameters",
        f"language model, tokens {report['tokenisation']}{case}, unknown word {report['unknown'] or 'none'}",
        f"embedding {report['embedding_dim']}, output {report['output']}{tied}",
    ]
    for number, layer in enumerate(report["layers"]):
        out.append(
            f"layer {number}: {layer['kind']} ({layer['activation']}), {layer['hidden_sizes'][0]} units"
        )
    if report["projection"] is not None:
        out.append(f"projection to {report['projection']}")
    out += ["", "   bytes    share  part"]
    out += [
        f"{size:>10}  {size / total:>5.1%}  {part}" for part, size in report["bytes_by_part"].items() if size
    ]
    out += ["", "density   kept / cells          values        encoding            matrix"]
    for matrix in report["matrices"]:
        share = f"{matrix['kept']} / {matrix['shape'][0] * matrix['shape'][1]}"
        form = f"{matrix['values']:<12}  {matrix['encoding']:<18}"
        out.append(f"{matrix['density']:>7.1%}   {share:<20}  {form}  {matrix['name']}")
    if report["provenance"]:
        out += ["", *(f"{key}: {value}" for key, value in report["provenance"].items())]
    return "\n".join(out)
