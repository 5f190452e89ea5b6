"""Output layers of the artifact of a language model: full softmax, classes, adaptive softmax, tree (docs/format.md).

V words, D inputs, C classes, S words of the head, d and n width and words of a tail.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

OUTPUTS = ("full", "classes", "adaptive", "tree")
MAX_TAILS = 64
MAX_DEPTH = 128  # inner nodes above a word of a tree
Shapes = Iterator[tuple[str, int, int]]
Arrays = Iterator[tuple[str, np.ndarray]]


@dataclass(frozen=True)
class OutputOutline:
    """Kind and sizes: `widths` and `n_words` of the tails (n_words is known after the word table)."""

    kind: str
    is_tied: bool = False
    n_classes: int = 0
    widths: tuple[int, ...] = ()
    tail_words: tuple[int, ...] = ()

    def problem(self, n_words: int) -> str | None:
        """Say which size is outside the limits of the format, or None."""
        if self.is_tied and self.kind != "full":
            return f"a table shared with an output of kind {self.kind}"
        if self.kind == "classes" and not 1 <= self.n_classes <= n_words:
            return f"{self.n_classes} classes, 1 to {n_words} are allowed"
        if len(self.widths) > MAX_TAILS:
            return f"{len(self.widths)} tails, at most {MAX_TAILS} are allowed"
        return None

    def records(self, n_words: int, inputs: int) -> Shapes:
        """Name, rows and columns of each matrix; vectors are one column."""
        if self.kind == "classes":
            yield "class_weight", self.n_classes, inputs
            yield "class_bias", self.n_classes, 1
        rows = n_words
        if self.kind == "tree":
            rows = n_words - 1
        elif self.kind == "adaptive":
            rows = n_words - sum(self.tail_words) + len(self.widths)
        if not self.is_tied:
            yield "output_weight", rows, inputs
        yield "output_bias", rows, 1
        for number, (width, words) in enumerate(zip(self.widths, self.tail_words, strict=True)):
            yield f"tails.{number}.projection", width, inputs
            yield f"tails.{number}.weight", words, width
            yield f"tails.{number}.bias", words, 1


@dataclass
class FullOutput:
    """log softmax(weight d + bias): weight (V, D), or None where it is the embedding; bias (V,)."""

    weight: np.ndarray | None
    bias: np.ndarray

    def outline(self) -> OutputOutline:
        """Kind and sizes."""
        return OutputOutline("full", is_tied=self.weight is None)

    def arrays(self) -> Arrays:
        """Name and matrix of each record."""
        if self.weight is not None:
            yield "output_weight", self.weight
        yield "output_bias", self.bias

    def with_words_in(self, order: np.ndarray) -> "FullOutput":
        """New word k is old word order[k]."""
        return FullOutput(None if self.weight is None else self.weight[order], self.bias[order])

    def form_problem(self, n_words: int) -> str | None:
        """Say what beside the shapes does not fit, or None."""
        return (
            None
            if len(self.bias) == n_words
            else f"output_bias must have {n_words} rows, got {len(self.bias)}"
        )


@dataclass
class ClassOutput:
    """log softmax of the class plus log softmax among its words.

    classes (V,): of each word, 0 to C - 1; class_weight (C, D), class_bias (C,), weight (V, D), bias (V,).
    """

    classes: np.ndarray
    class_weight: np.ndarray
    class_bias: np.ndarray
    weight: np.ndarray
    bias: np.ndarray

    def outline(self) -> OutputOutline:
        """Kind and sizes."""
        return OutputOutline("classes", n_classes=len(self.class_bias))

    def arrays(self) -> Arrays:
        """Name and matrix of each record."""
        yield "class_weight", self.class_weight
        yield "class_bias", self.class_bias
        yield "output_weight", self.weight
        yield "output_bias", self.bias

    def with_words_in(self, order: np.ndarray) -> "ClassOutput":
        """New word k is old word order[k]."""
        return replace(self, classes=self.classes[order], weight=self.weight[order], bias=self.bias[order])

    def form_problem(self, n_words: int) -> str | None:
        """Say what beside the shapes does not fit, or None."""
        return numbers_problem("classes", self.classes, n_words, 0, len(self.class_bias) - 1)


@dataclass
class Tail:
    """Words of a tail: log softmax(weight (projection d) + bias); projection (d, D), weight (n, d), bias (n,)."""

    projection: np.ndarray
    weight: np.ndarray
    bias: np.ndarray


@dataclass
class AdaptiveOutput:
    """log softmax of the head: its S words in their order, then the tails; plus log softmax within the tail.

    tail_of (V,): 0 for a word of the head, k for one of tail k; weight (S + tails, D), bias (S + tails,).
    """

    tail_of: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    tails: list[Tail] = field(default_factory=list)

    def outline(self) -> OutputOutline:
        """Kind and sizes."""
        widths = tuple(len(tail.projection) for tail in self.tails)
        return OutputOutline("adaptive", widths=widths, tail_words=tail_sizes(self.tail_of, len(widths)))

    def arrays(self) -> Arrays:
        """Name and matrix of each record."""
        yield "output_weight", self.weight
        yield "output_bias", self.bias
        for number, tail in enumerate(self.tails):
            yield f"tails.{number}.projection", tail.projection
            yield f"tails.{number}.weight", tail.weight
            yield f"tails.{number}.bias", tail.bias

    def with_words_in(self, order: np.ndarray) -> "AdaptiveOutput":
        """New word k is old word order[k]."""
        tail_of = self.tail_of[order]
        place = np.empty(len(order), np.int64)  # row of each old word in its part
        for number in range(len(self.tails) + 1):
            members = np.flatnonzero(self.tail_of == number)
            place[members] = np.arange(len(members))
        moved = [place[order[tail_of == number]] for number in range(len(self.tails) + 1)]
        head = np.concatenate([moved[0], np.arange(len(moved[0]), len(self.bias))])
        tails = [
            replace(tail, weight=tail.weight[rows], bias=tail.bias[rows])
            for tail, rows in zip(self.tails, moved[1:], strict=True)
        ]
        return AdaptiveOutput(tail_of, self.weight[head], self.bias[head], tails)

    def form_problem(self, n_words: int) -> str | None:
        """Say what beside the shapes does not fit, or None."""
        return numbers_problem("tail_of", self.tail_of, n_words, 0, len(self.tails), first=1)


@dataclass
class TreeOutput:
    """Sum of log sigmoid(s) where the path takes the first child of a node, log sigmoid(-s) where it takes the second.

    children (V - 1, 2): of each inner node, the root first and in preorder; k >= 0 is inner node k, -1 - w is word w.
    s = weight d + bias of the node: weight (V - 1, D), bias (V - 1,).
    """

    children: np.ndarray
    weight: np.ndarray
    bias: np.ndarray

    def outline(self) -> OutputOutline:
        """Kind and sizes."""
        return OutputOutline("tree")

    def arrays(self) -> Arrays:
        """Name and matrix of each record."""
        yield "output_weight", self.weight
        yield "output_bias", self.bias

    def with_words_in(self, order: np.ndarray) -> "TreeOutput":
        """New word k is old word order[k]."""
        new_id = np.empty(len(order), np.int64)
        new_id[order] = np.arange(len(order))
        words = self.children < 0
        moved = self.children.copy()
        moved[words] = -1 - new_id[-1 - self.children[words]]
        return replace(self, children=moved)

    def form_problem(self, n_words: int) -> str | None:
        """Say what beside the shapes does not fit, or None."""
        if self.children.shape != (n_words - 1, 2) or self.children.dtype.kind not in "iu":
            return f"children must be integers of shape {(n_words - 1, 2)}, got {self.children.shape}"
        try:
            shape, leaves = preorder(self.children)
            rebuilt = tree_from(shape, leaves)
        except (ValueError, IndexError) as error:
            return f"children are no tree of {n_words} words: {error}"
        if not np.array_equal(rebuilt, self.children):
            return "the inner nodes of a tree must be numbered in preorder; use `in_preorder`"
        return None


Output = FullOutput | ClassOutput | AdaptiveOutput | TreeOutput


def tail_sizes(tail_of: np.ndarray, n_tails: int) -> tuple[int, ...]:
    """Words of each tail."""
    return tuple(np.bincount(tail_of.astype(np.int64), minlength=n_tails + 1)[1 : n_tails + 1].tolist())


def numbers_problem(
    name: str, numbers: np.ndarray, n_words: int, least: int, most: int, *, first: int = 0
) -> str | None:
    """Say what is wrong with a number for each word, or None; each one from `first` to `most` must be taken."""
    if numbers.shape != (n_words,) or numbers.dtype.kind not in "iu":
        return f"{name} must be integers of shape ({n_words},), got {numbers.dtype} of shape {numbers.shape}"
    if n_words and (numbers.min() < least or numbers.max() > most):
        return f"{name} must be from {least} to {most}, got {numbers.min()} to {numbers.max()}"
    empty = np.flatnonzero(np.bincount(numbers.astype(np.int64), minlength=most + 1)[first:] == 0)
    return f"{name}: number {empty[0] + first} has no word" if len(empty) else None


def preorder(children: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shape (2V - 1,) of a tree, 1 an inner node and 0 a word, and its words (V,), both in preorder."""
    rows = children.tolist()
    shape, leaves, waiting = [], [], [0 if rows else -1]
    while waiting:
        node = waiting.pop()
        if len(shape) > 2 * len(rows):
            raise ValueError("a node is there twice")
        shape.append(int(node >= 0))
        if node < 0:
            leaves.append(-1 - node)
        else:
            waiting += [rows[node][1], rows[node][0]]
    return np.asarray(shape, np.uint8), np.asarray(leaves, np.int64)


def in_preorder(children: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same tree with its inner nodes numbered in preorder, and the old number of each."""
    rows = children.tolist()
    old, waiting = [], [0] if rows else []
    while waiting:
        node = waiting.pop()
        old.append(node)
        waiting += [child for child in reversed(rows[node]) if child >= 0]
    numbers = np.empty(len(rows), np.int64)
    numbers[old] = np.arange(len(rows))
    moved = children[old]
    return np.where(moved >= 0, numbers[np.maximum(moved, 0)] if len(rows) else moved, moved), np.asarray(
        old, np.int64
    )


def tree_from(shape: np.ndarray, leaves: np.ndarray) -> np.ndarray:
    """Children (V - 1, 2) of a tree in preorder; `ValueError` tells what is wrong with it."""
    n_words = len(leaves)
    if len(shape) != 2 * n_words - 1 or int(shape.sum()) != n_words - 1:
        raise ValueError("a tree has one inner node less than words")
    if not np.array_equal(np.sort(leaves), np.arange(n_words)):
        raise ValueError("a word is missing or there twice")
    rows, words = [], leaves.tolist()
    open_nodes: list[list[int]] = []  # inner nodes that still miss a child
    inner = 0
    for place, bit in enumerate(shape.tolist()):
        if place and not open_nodes:
            raise ValueError("its shape ends too early")
        node = inner if bit else -1 - words[place - inner]
        if open_nodes:
            open_nodes[-1].append(node)
            if len(open_nodes[-1]) == 2:
                open_nodes.pop()
        if bit:
            rows.append([])
            open_nodes.append(rows[-1])
            inner += 1
    if open_nodes:
        raise ValueError("its shape ends too late")
    children = np.asarray(rows, np.int64).reshape(-1, 2)
    if depth_of(children) > MAX_DEPTH:
        raise ValueError(f"a word lies below more than {MAX_DEPTH} inner nodes")
    return children


def depth_of(children: np.ndarray) -> int:
    """Most inner nodes above a word; nodes are numbered in preorder."""
    above = [1] * len(children)
    for node, pair in enumerate(children.tolist()):
        for child in pair:
            if child >= 0:
                above[child] = above[node] + 1
    return max(above, default=0)
