"""Tables of the language models, each beside what others have published.

Published figures were read in the named papers, repositories and tables; vocabulary, text and protocol are ours: every
token and end of a line, the state carried over the whole part, unless a row says otherwise.
"""

from collections.abc import Sequence

from karui.report.groups import Records, average
from karui.report.sequence_tables import LAYERS, Published, groups_of, sizes_of, spread_of
from karui.report.tables import Column, Table

_TCN = "Bai, Kolter, Koltun 2018"
_CHAINER = "musyoku/chainer-sru"
_SPARSE = "logs of tipt0p/SparseBayesianRNN"

PUBLISHED_WORDS = (
    Published("ptb", "AWD-LSTM", "22 M", 55.97, "Merity, Keskar, Socher 2018, as quoted by others"),
    Published("ptb", "SRU, 6 layers of 910", "24 M", 60.3, "Lei et al. 2018, 300 epochs on a GPU"),
    Published("ptb", "LSTM", "13 M", 78.93, _TCN),
    Published("ptb", "TCN (convolutions)", "13 M", 88.68, _TCN),
    Published("ptb", "LSTM, 2 layers of 640", "", 89.0, _CHAINER),
    Published("ptb", "SRU, 2 layers of 640", "", 92.0, _CHAINER),
    Published("ptb", "GRU", "13 M", 92.48, _TCN),
    Published("ptb", "LSTM of 256, sparse", "", 109.2, f"{_SPARSE}, 22 times smaller"),
)
"""Test perplexity of words."""

PUBLISHED_CHARACTERS = (
    Published("ptb", "TCN (convolutions)", "3 M", 1.31, _TCN),
    Published("ptb", "LSTM", "3 M", 1.36, _TCN),
    Published("ptb", "GRU", "3 M", 1.37, _TCN),
    Published("ptb, reset every 100", "LSTM of 1000, sparse", "", 1.4165, f"{_SPARSE}, 6 times smaller"),
    Published("ptb, reset every 100", "LSTM of 1000", "", 1.4546, f"{_SPARSE}, best validation"),
)
"""Test bits per character."""

SPARSE_TASK, DELIVERED = "sparse-lm", "test_ppl"
"""Task of the records of sparse models, and their test perplexity by the .karui file."""


def word_table(records: Records) -> Table:
    """Return a row for each recipe of words, the best first in each text, then the published ones."""
    return _table(records, "perplexity", PUBLISHED_WORDS, "{:.2f}")


def character_table(records: Records) -> Table:
    """Return a row for each recipe of characters, the best first in each text, then the published ones."""
    return _table(records, "bpc", PUBLISHED_CHARACTERS, "{:.4f}")


def _table(records: Records, score: str, published: Sequence[Published], form: str) -> Table:
    titles = ("text", "model", "weights", "output", f"valid {score}", f"test {score}", "minutes", "source")
    numbers = {"weights", f"valid {score}", f"test {score}", "minutes"}
    table = Table([Column(title, number=title in numbers) for title in titles])
    groups = list(groups_of(records, "lm", f"test_{score}").values())
    if score == "perplexity":
        groups += groups_of(records, SPARSE_TASK, DELIVERED).values()

    def best_first(group: Records) -> tuple[str, float]:
        return str(group[0]["data"]["name"]), average(group, _tested(group, score))

    for group in sorted(groups, key=best_first):
        table.rows += _rows(group, score, form)
    if groups:
        table.rows += [
            [each.about, each.layer, each.size or "–", "–", "–", form.format(each.value), "–", each.source]
            for each in published
        ]
    return table


def _is_sparse(group: Records) -> bool:
    return group[0]["task"] == SPARSE_TASK


def _tested(group: Records, score: str) -> str:
    """The name of the test figure; of sparse models that of the file."""
    return DELIVERED if _is_sparse(group) else f"test_{score}"


def _weights_of(group: Records) -> str:
    """How many there are; of sparse models those that are left."""
    if not _is_sparse(group):
        return f"{average(group, 'parameters') / 1e6:.1f} M"
    return f"{average(group, 'kept_params') / 1e6:.2f} M, {average(group, 'compression'):.0f} times fewer"


def _rows(group: Records, score: str, form: str) -> list[list[str]]:
    """The row of a recipe, and one more for its figure with the state reset, where it has one."""
    record = group[0]
    model, budget = record["settings"]["model"], record["budget"]
    kind = record["layer"]["recurrent"]
    finish = model.get("output_finish")
    subset = " (subset)" if record["data"]["subset"] else ""
    row = [
        f"{record['data']['name']}{subset}",
        f"{LAYERS.get(kind, kind)}, {sizes_of(record['layer'])}{', sparse' if _is_sparse(group) else ''}",
        _weights_of(group),
        model["output"] + (f", then {finish}" if finish else ""),
        spread_of(group, f"valid_{score}", form.format, ""),
        spread_of(group, _tested(group, score), form.format, ""),
        f"{average(group, 'train_minutes'):.0f}",
        f"karui {record['recipe']}, {budget['epochs']} epochs, {record['hardware']}",
    ]
    rows = [row]
    if all("test_bpc_reset_100" in each["metrics"] for each in group):
        reset = spread_of(group, "test_bpc_reset_100", form.format, "")
        rows.append([f"{row[0]}, reset every 100", *row[1:4], "–", reset, *row[6:]])
    return rows
