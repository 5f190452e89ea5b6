"""What `karui inspect` shows of every file: layers, bytes by part, matrices, provenance."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from karui.runtime.language_reader import LanguageArtifact
    from karui.runtime.reader import Artifact


def stored(artifact: "Artifact | LanguageArtifact") -> dict[str, Any]:
    """Layers, matrices and provenance, for machines."""
    return {
        "layers": [
            {"kind": layer.kind, "activation": layer.activation, "hidden_sizes": list(layer.hidden_sizes)}
            for layer in artifact.spec.layers
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
        "provenance": artifact.spec.provenance,
    }


def layer_lines(report: dict[str, Any]) -> Iterator[str]:
    """A line for each layer."""
    for number, layer in enumerate(report["layers"]):
        sizes = " + ".join(map(str, layer["hidden_sizes"]))
        yield f"layer {number}: {layer['kind']} ({layer['activation']}), {sizes} units"


def table_lines(report: dict[str, Any]) -> Iterator[str]:
    """The table of bytes by part and that of the matrices, for people."""
    total = report["artifact_bytes"]
    yield from ("", "     bytes   share  part")
    for part, size in report["bytes_by_part"].items():
        if size:
            yield f"{size:>10}  {size / total:>6.1%}  {part}"
    yield from ("", "density   kept / cells          values        encoding            matrix")
    for matrix in report["matrices"]:
        share = f"{matrix['kept']} / {matrix['shape'][0] * matrix['shape'][1]}"
        form = f"{matrix['values']:<12}  {matrix['encoding']:<18}"
        yield f"{matrix['density']:>7.1%}   {share:<20}  {form}  {matrix['name']}"


def provenance_lines(report: dict[str, Any]) -> Iterator[str]:
    """What the file says of its origin."""
    if report["provenance"]:
        yield ""
        for key, value in report["provenance"].items():
            yield f"{key}: {value}"
