"""Reads the artifact of a language model: format version 2 of docs/format.md."""

from dataclasses import dataclass, field, replace

import numpy as np

from karui.runtime import spec as limits
from karui.runtime.language_format import LANGUAGE_MODEL, MAX_CODED_CELLS
from karui.runtime.language_output import (
    MAX_TAILS,
    OUTPUTS,
    AdaptiveOutput,
    ClassOutput,
    FullOutput,
    Output,
    OutputOutline,
    Tail,
    TreeOutput,
    numbers_problem,
    tail_sizes,
    tree_from,
)
from karui.runtime.language_spec import (
    LanguageModelSpec,
    LanguageOutline,
    layers_from,
)
from karui.runtime.language_tokens import TOKENISATIONS
from karui.runtime.part_reader import PartReader, Record, RefusedError


@dataclass
class LanguageArtifact:
    """A read file: description, bytes by part (they sum to the file's size), and how each matrix is stored."""

    spec: LanguageModelSpec
    sizes: dict[str, int]
    records: list[Record] = field(default_factory=list)


class LanguageReader(PartReader):
    """Reads everything behind the frame."""

    def run(self) -> LanguageArtifact:
        """The whole file; `RefusedError` and `BadStream` tell what is wrong with it."""
        kind = self.varint("kind")
        if kind != LANGUAGE_MODEL:
            raise RefusedError(f"it is of the unknown kind {kind}", "install a newer karui")
        self.count("header")
        provenance = self.provenance()
        self.count("provenance")
        token_form = self.varint("tokenisation", 7)
        if token_form & 3 >= len(TOKENISATIONS):
            raise RefusedError("it has an unknown tokenisation")
        n_words = self.varint("number of words", limits.MAX_WORDS)
        eos, unk = self.varint("end of a line", max(0, n_words - 1)), self.varint("unknown word", n_words)
        outline = self.outline(n_words)
        self.count("header")
        words = self.words(n_words)
        self.count("words")
        table = self.word_table(outline)
        self.count("word table")
        if outline.output.kind == "adaptive":
            sizes = tail_sizes(table, len(outline.output.widths))
            outline = replace(outline, output=replace(outline.output, tail_words=sizes))
        self.check(outline)
        for number, (name, rows, cols) in enumerate(outline.records()):
            self.arrays[name] = self.matrix(number, name, rows, cols)
        self.finish()
        spec = LanguageModelSpec(
            words=words, eos=eos, unk=unk - 1 if unk else None, embedding=self.arrays["embedding"],
            layers=layers_from(outline, self.arrays), output=self.output(outline, table),
            tokenisation=TOKENISATIONS[token_form & 3], lower=bool(token_form & 4),
            projection_weight=self.arrays.get("projection_weight"), projection_bias=self.vector("projection_bias"),
            provenance=provenance,
        )  # fmt: skip
        return LanguageArtifact(spec, self.sizes, self.records)

    def outline(self, n_words: int) -> LanguageOutline:
        """All sizes but the number of words of each tail."""
        width, form = self.varint("embedding width", limits.MAX_WIDTH), self.varint("form", 3)
        projection = self.varint("width of the projection", limits.MAX_WIDTH) if form & 2 else None
        layers = [self.layer() for _ in range(self.varint("number of layers", limits.MAX_LAYERS))]
        kind = OUTPUTS[self.varint("output", len(OUTPUTS) - 1)]
        n_classes, widths = 0, ()
        if kind == "classes":
            n_classes = self.varint("number of classes", n_words)
        elif kind == "adaptive":
            number = self.varint("number of tails", MAX_TAILS)
            widths = tuple(self.varint("width of a tail", limits.MAX_WIDTH) for _ in range(number))
        output = OutputOutline(kind, bool(form & 1), n_classes, widths, (0,) * len(widths))
        outline = LanguageOutline(n_words, width, tuple(layers), projection, output)
        self.check(outline)
        return outline

    def check(self, outline: LanguageOutline) -> None:
        """Refuse sizes outside the limits, or far beyond what a file of this size is worth."""
        if problem := outline.problem():
            raise RefusedError(problem)
        if problem := outline.memory_problem(self.size):
            raise RefusedError(problem)

    def take_cells(self, count: int, what: str) -> None:
        """Refuse what would take minutes to decode."""
        super().take_cells(count, what)
        if self.coded_cells > MAX_CODED_CELLS:
            raise RefusedError(f"{what} is one coded cell too many, at most {MAX_CODED_CELLS} are allowed")

    def word_table(self, outline: LanguageOutline) -> np.ndarray:
        """Class or tail of each word, or the children of the inner nodes of a tree; empty for a full softmax."""
        n_words, output = outline.n_words, outline.output
        if output.kind == "full":
            return np.zeros(0, np.int64)
        if output.kind == "tree":
            cells = 2 * n_words - 1
            bits = np.frombuffer(self.take(-(-cells // 8), "shape of the tree"), np.uint8)
            shape = np.unpackbits(bits, bitorder="little")
            if shape[cells:].any():
                raise RefusedError("the tree has bits set behind its last node")
            leaves = np.asarray(
                [self.varint("word of the tree", n_words - 1) for _ in range(n_words)], np.int64
            )
            try:
                return tree_from(shape[:cells], leaves)
            except ValueError as error:
                raise RefusedError(f"its tree is wrong: {error}") from None
        most = output.n_classes - 1 if output.kind == "classes" else len(output.widths)
        numbers = np.asarray([self.varint("class of a word", most) for _ in range(n_words)], np.int64)
        if problem := numbers_problem(
            "word table", numbers, n_words, 0, most, first=output.kind == "adaptive"
        ):
            raise RefusedError(problem)
        return numbers

    def vector(self, name: str) -> np.ndarray | None:
        """A record of one column as a vector, or None."""
        return self.arrays[name].reshape(-1) if name in self.arrays else None

    def output(self, outline: LanguageOutline, table: np.ndarray) -> Output:
        """Put the matrices of the output layer back together."""
        bias = self.arrays["output_bias"].reshape(-1)
        if outline.output.kind == "full":
            return FullOutput(self.arrays.get("output_weight"), bias)
        weight = self.arrays["output_weight"]
        if outline.output.kind == "tree":
            return TreeOutput(table, weight, bias)
        if outline.output.kind == "classes":
            class_bias = self.arrays["class_bias"].reshape(-1)
            return ClassOutput(table, self.arrays["class_weight"], class_bias, weight, bias)
        tails = [
            Tail(
                self.arrays[f"{name}.projection"],
                self.arrays[f"{name}.weight"],
                self.arrays[f"{name}.bias"].reshape(-1),
            )
            for name in (f"tails.{number}" for number in range(len(outline.output.widths)))
        ]
        return AdaptiveOutput(table, weight, bias, tails)
