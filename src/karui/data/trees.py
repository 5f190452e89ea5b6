"""Sentiment trees in Penn Treebank brackets: `(3 (2 It) (4 (2 's) (3 good)))`, a label 0 to 4 at each node.

Phrases as in Socher et al. 2013: every node of a training tree is one labelled phrase.
"""

import re

from karui.errors import UserError

NEUTRAL = 2
_TOKEN = re.compile(r"\((\d)\s+|([^()\s]+)|\)")
_ESCAPES = {"-LRB-": "(", "-RRB-": ")"}


def tree_phrases(line: str) -> list[tuple[int, str]]:
    """Return `(label, text)` of every node of one tree, the whole sentence first.

    Words are joined with blanks, lower-cased as in the published sentence files, with `-LRB-` written `(`.
    Raises `ValueError` when the brackets do not close.
    """
    words: list[str] = []
    open_nodes: list[tuple[int, int]] = []  # position in `found`, index of its first word
    found: list[tuple[int, str]] = []
    closes = True
    for match in _TOKEN.finditer(line):
        label, word = match.groups()
        closes &= bool(open_nodes) or not found  # nothing may follow the root
        if label is not None:
            open_nodes.append((len(found), len(words)))
            found.append((int(label), ""))
        elif word is not None:
            words.append(_ESCAPES.get(word, word).lower())
        elif open_nodes:
            position, first = open_nodes.pop()
            found[position] = (found[position][0], " ".join(words[first:]))
    if open_nodes or not found or not closes or not found[0][1]:
        raise ValueError(f"brackets do not close in the tree {line[:60]!r}")
    return found


def training_phrases(content: str, *, binary: bool) -> list[tuple[int, str]]:
    """Return the distinct phrases of a file of trees in order of first appearance, as `(label, text)`.

    `binary` leaves neutral phrases out and returns 0 for labels 0 and 1, 1 for labels 3 and 4. A phrase that
    occurs with two labels counts once for each.
    """
    seen: dict[tuple[int, str], None] = {}
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            phrases = tree_phrases(line)
        except ValueError as error:
            raise UserError(
                f"line {number}: {error}; fetch the set again with: karui data fetch sst_trees"
            ) from error
        for label, text in phrases:
            if not binary:
                seen[label, text] = None
            elif label != NEUTRAL:
                seen[int(label > NEUTRAL), text] = None
    return list(seen)
