"""The names of groups: what lives or dies as one. Which layer offers which stands in `karui.sparse.offers`."""

GROUPS = {
    "weight": "every element of a weight",
    "word": "rows of an embedding",
    "dimension": "columns of an embedding",
    "input": "input units: columns of a Linear or recurrent matrix, input channels of a convolution",
    "output": "output units: rows of a Linear, output channels of a convolution",
    "gate": "gate pre-activations: a row of every matrix that a recurrent layer adds up in it, as one",
    "rank": "rank-one parts of a factorised Linear",
    "16x1": "blocks of 16 rows and 1 column",
    "8x4": "blocks of 8 rows and 4 columns",
}
ALIASES = {"neuron": "input"}


def check_groups(groups: tuple[str, ...] | None) -> None:
    """Raise ValueError for names that are none of `GROUPS` (or "neuron", the old word for "input")."""
    if groups is None:
        return
    unknown = set(groups) - set(GROUPS) - set(ALIASES)
    if unknown:
        raise ValueError(f"groups must be among {tuple(GROUPS)}, got {sorted(unknown)}")
    blocks = [group for group in groups if group in ("16x1", "8x4")]
    if len(set(blocks)) > 1:
        raise ValueError("groups names both '16x1' and '8x4': a weight falls into blocks of one form")


def canonical(groups: tuple[str, ...]) -> tuple[str, ...]:
    """The names of `GROUPS`, each once, in their order there."""
    named = {ALIASES.get(group, group) for group in groups}
    return tuple(group for group in GROUPS if group in named)
