"""Sentiment trees to phrases."""

import pytest

from karui.data.trees import training_phrases, tree_phrases
from karui.errors import UserError

TREE = "(3 (2 It) (4 (2 (2 -LRB-) (1 's)) (3 good)))"


def test_every_node_is_a_phrase():
    assert tree_phrases(TREE) == [
        (3, "it ( 's good"),
        (2, "it"),
        (4, "( 's good"),
        (2, "( 's"),
        (2, "("),
        (1, "'s"),
        (3, "good"),
    ]


def test_distinct_phrases_with_and_without_neutral():
    content = f"{TREE}\n\n(3 Good)\n(1 good)\n"
    assert training_phrases(content, binary=True) == [
        (1, "it ( 's good"),
        (1, "( 's good"),
        (0, "'s"),
        (1, "good"),
        (0, "good"),
    ]
    fine = training_phrases(content, binary=False)
    assert fine == [*tree_phrases(TREE), (1, "good")]


@pytest.mark.parametrize(
    "line", ["(3 (2 It)", "3 good", "(3 good))) (2", ")", "(3 good) (2 bad)", "(3 good) bad"]
)
def test_broken_trees_are_named_by_line(line):
    with pytest.raises(UserError, match="line 2: brackets do not close in the tree"):
        training_phrases(f"(3 good)\n{line}\n", binary=True)
