"""The part of `docs/sparsity.md` on language models: perplexity at how many weights, beside published rows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from karui.report.generated import update_part
from karui.report.groups import Records, average, by_recipe, source_of
from karui.report.language_tables import DELIVERED
from karui.report.language_tables import SPARSE_TASK as TASK
from karui.report.records import read_records
from karui.report.sparse_figures import METHODS
from karui.report.tables import Column, Table

PAGE, MARKER = "sparsity.md", "sparse-lm"


class PublishedModel(NamedTuple):
    """A sparse language model of somebody else, from the logs of their code, last epoch."""

    variables: str
    perplexity: float
    """Of the test part."""
    compression: float
    words: int
    units: int
    epochs: int = 150


SOURCE = "logs of Chirkova, Lobacheva, Vetrov 2018"
PUBLISHED = (
    PublishedModel("SparseVD", 109.22, 22.10, 9990, 156),
    PublishedModel("SparseVD-Voc", 120.22, 19.32, 3164, 209),
    PublishedModel("SparseVD, W+N", 110.98, 23.49, 9992, 127),
    PublishedModel("SparseVD, W+G+N", 116.47, 24.46, 9972, 117),
)
"""An LSTM of 256 units on one-hot words of the Penn Treebank."""

MEASURED = (
    "Words of the Penn Treebank, state carried over the whole test part, every token and end of a line; perplexity is "
    "that of the .karui file. Times fewer: weights of matrices over those that are kept; weights left are numbers "
    "that are not zero, biases included; FLOPs are the multiplications of a token, recurrent matrices and output "
    "table, against the dense model's."
)


def language_models(records: Records) -> list[Mapping[str, Any]]:
    """Those of sparse language models."""
    return [record for record in records if record["task"] == TASK]


def language_table(records: Records) -> Table:
    """A row for each recipe, the best perplexity first, then the published ones."""
    numbers = (
        "test perplexity",
        "times fewer",
        "weights left",
        "words read",
        "units",
        "FLOPs, %",
        "bytes",
        "minutes",
    )
    table = Table(
        [
            Column("model"),
            Column("variables"),
            *(Column(name, number=True) for name in numbers),
            Column("source"),
        ]
    )
    groups = by_recipe(language_models(records)).values()
    for group in sorted(groups, key=lambda group: average(group, DELIVERED)):
        first = group[0]
        settings = first["settings"]["sparse"]
        units = first["metrics"]["architecture"][1:]
        table.rows.append(
            [
                first["model"],
                f"{METHODS[first['method']]}, {'+'.join(settings['groups'] or ['word'])}",
                f"{average(group, DELIVERED):.2f}",
                f"{average(group, 'compression'):.1f}",
                f"{average(group, 'kept_params'):,.0f}",
                f"{average(group, 'words_kept'):,.0f}",
                "-".join(map(str, units)),
                f"{100 * average(group, 'flops_ratio'):.1f}",
                f"{average(group, 'artifact_bytes'):,.0f}",
                f"{average(group, 'train_minutes'):.0f}",
                source_of(group, first["hardware"]),
            ]
        )
    if table.rows:
        table.rows += [_published(each) for each in PUBLISHED]
    return table


def _published(model: PublishedModel) -> list[str]:
    figures = [
        f"{model.perplexity:.2f}",
        f"{model.compression:.1f}",
        "–",
        f"{model.words:,}",
        str(model.units),
    ]
    return ["lstm-256", model.variables, *figures, "–", "–", "–", f"{SOURCE}, {model.epochs} epochs"]


def section(records: Records) -> str:
    """Markdown of what is generated; "" without records."""
    table = language_table(records)
    if not table.rows:
        return ""
    return f"## Language models\n\n{MEASURED}\n\n{table.to_markdown()}\n"


def update_sparse_language(docs: Path, results: Path, *, check: bool = False) -> list[str]:
    """Write the section where it is not that of the records; return the names that differed.

    With `check` nothing is written. Raises UserError where there is no such folder, or only one of the markers.
    """
    return update_part(docs / PAGE, MARKER, section(read_records(results)), {}, check=check)
