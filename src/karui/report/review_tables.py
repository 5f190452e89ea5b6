"""Tables of sparse classifiers of film reviews: words kept beside what others have published, and targets."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from karui.report.asked import targets_table
from karui.report.groups import Records, average, by_recipe, source_of, spread
from karui.report.tables import Column, Table

TASK = "sparse-classification"
VOC, SMALL, DENSE = "imdb-voc-", "imdb-small-", "imdb-dense"
"""How the recipes of points of accuracy against words, of small dense models, and of the dense one are called."""


class PublishedWords(NamedTuple):
    """A sparse classifier of IMDb reviews of somebody else."""

    method: str
    words: int
    accuracy: float
    """Test accuracy, a share."""
    compression: float
    """Weights over weights that are not zero."""


SOURCE = "logs of Chirkova, Lobacheva, Vetrov 2018"
PUBLISHED = (
    PublishedWords("SparseVD", 5054, 0.8410, 1208.5),
    PublishedWords("SparseVD-Voc", 265, 0.8328, 19_498.9),
    PublishedWords("SparseVD, W+N", 316, 0.8401, 16_676.0),
    PublishedWords("SparseVD, W+G+N", 307, 0.8387, 18_457.5),
)
"""An LSTM of 128 units over 300 columns that reads the first 200 words."""


def reviews(records: Records) -> list[Mapping[str, Any]]:
    """Those of sparse classifiers and of the dense ones beside them."""
    return [record for record in records if record["task"] == TASK]


def groups(records: Records) -> dict[str, list[Mapping[str, Any]]]:
    """The same by recipe."""
    return by_recipe(reviews(records))


def word_groups(records: Records) -> list[list[Mapping[str, Any]]]:
    """The points of accuracy against words, the fewest words first."""
    found = [group for name, group in groups(records).items() if name.startswith(VOC)]
    return sorted(found, key=lambda group: average(group, "words_kept"))


def words_table(records: Records) -> Table:
    """A row for each weight of the penalty, the fewest words first, then the published ones."""
    numbers = ("words kept", "test accuracy, %", "weights left", "bytes of the file", "live units")
    table = Table([Column("model"), *(Column(name, number=True) for name in numbers), Column("source")])
    for group in word_groups(records):
        metrics = group[0]["metrics"]
        table.rows.append(
            [
                f"SparseVD-Voc, penalty {metrics['penalty_weight']:g}",
                _whole(group, "words_kept"),
                _accuracy(group),
                _whole(group, "kept_params"),
                _whole(group, "artifact_bytes"),
                ", ".join(dict.fromkeys(_shape(record) for record in group)),
                source_of(group),
            ]
        )
    if table.rows:
        dense = groups(records).get(DENSE, [])
        if dense:
            shape = _shape(dense[0])
            cells = [_whole(dense, key) for key in ("kept_params", "artifact_bytes")]
            row = ["dense", _whole(dense, "words_kept"), _accuracy(dense), *cells, shape, source_of(dense)]
            table.rows.append(row)
        table.rows += [
            [
                each.method,
                f"{each.words:,}",
                f"{100 * each.accuracy:.2f}",
                f"1 / {each.compression:,.0f}",
                "–",
                "–",
                SOURCE,
            ]
            for each in PUBLISHED
        ]
    return table


def asked_table(records: Records) -> Table:
    """What each method was asked for and came to, a row a target, and a small dense model of these bytes."""
    found = groups(records)
    small = {
        1000 * int(name.removeprefix(SMALL).removesuffix("kb")): group
        for name, group in found.items()
        if name.startswith(SMALL)
    }
    return targets_table(found.values(), "accuracy, %", _accuracy, small=small)


def _accuracy(group: Records) -> str:
    return spread(group, "test_accuracy", lambda share: f"{100 * share:.2f}")


def _whole(group: Records, key: str) -> str:
    values = list(dict.fromkeys(int(record["metrics"][key]) for record in group))
    return ", ".join(f"{value:,}" for value in values)


def _shape(record: Mapping[str, Any]) -> str:
    """Columns of the embedding and units of each direction."""
    _, columns, *units = record["metrics"]["architecture"]
    return f"{columns}-{'+'.join(map(str, units))}"
