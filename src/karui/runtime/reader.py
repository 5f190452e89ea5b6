"""Reads the artifact of docs/format.md; no code is in the file."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from karui import _native
from karui.errors import ArtifactError
from karui.runtime import spec as limits
from karui.runtime.language_reader import LanguageArtifact, LanguageReader
from karui.runtime.pairs import CELLS_PER_PAIR, MAX_PAIRS, pairs_problem, word_hints
from karui.runtime.part_reader import DAMAGED, PartReader, Record, RefusedError
from karui.runtime.spec import NORMALISATIONS, POOLINGS, ClassifierSpec, Outline, spec_from

__all__ = ["Artifact", "Record", "read", "read_any", "read_artifact"]


@dataclass
class Artifact:
    """A read file: description, bytes by part (they sum to the file's size), and how each matrix is stored."""

    spec: ClassifierSpec
    sizes: dict[str, int]
    records: list[Record] = field(default_factory=list)


def read(source: str | os.PathLike[str] | bytes) -> ClassifierSpec:
    """Description of a text classifier, given by path or as bytes; raises `ArtifactError` with one line."""
    return read_artifact(source).spec


def read_artifact(source: str | os.PathLike[str] | bytes) -> Artifact:
    """Description, byte table and records of a text classifier; raises `ArtifactError` with one line."""
    found = read_any(source)
    if isinstance(found, LanguageArtifact):
        name = "artifact" if isinstance(source, bytes) else os.fspath(source)
        raise ArtifactError(
            f"{name}: this is a language model, not a text classifier; give a file of another task"
        )
    return found


def read_any(source: str | os.PathLike[str] | bytes) -> Artifact | LanguageArtifact:
    """Read an artifact of any kind, given by path or as bytes; raises `ArtifactError` with one line."""
    name = "artifact" if isinstance(source, bytes) else os.fspath(source)
    if isinstance(source, bytes):
        data = source
    else:
        try:
            data = Path(source).read_bytes()
        except FileNotFoundError:
            raise ArtifactError(f"{name}: there is no such file; check the path") from None
        except IsADirectoryError:
            raise ArtifactError(
                f"{name}: this is a folder, not a .karui file; `karui compact` makes one from a run folder"
            ) from None
        except OSError as error:
            raise ArtifactError(
                f"{name}: cannot be read ({error.strerror}); check the path and its permissions"
            ) from None
    try:
        return (LanguageReader if data[4:5] == b"\x02" else _ClassifierReader)(data).run()
    except RefusedError as error:
        raise ArtifactError(f"{name}: {error}; {error.remedy}") from None
    except _native.BadStream as error:
        raise ArtifactError(f"{name}: {error}; {DAMAGED}") from None


class _ClassifierReader(PartReader):
    def run(self) -> Artifact:
        normalisation = NORMALISATIONS[self.varint("normalisation", len(NORMALISATIONS) - 1)]
        max_tokens = self.varint("max_tokens", limits.MAX_TOKENS)
        n_labels = self.varint("number of labels", limits.MAX_LABELS)
        self.count("header")
        labels = [self.text("a label") for _ in range(n_labels)]
        self.count("labels")
        provenance = self.provenance()
        self.count("provenance")
        outline = self.outline(n_labels)
        self.count("header")
        words = self.words(outline.n_words)
        self.count("words")
        for number, (name, rows, cols) in enumerate(outline.records()):
            if name == "pair_scores":
                self.pairs = self.pair_list(rows, words)
                self.count("pairs")
            self.arrays[name] = self.matrix(number, name, rows, cols)
        self.finish()
        spec = spec_from(outline, words, labels, self.arrays, self.pairs)
        spec.normalisation, spec.max_tokens, spec.provenance = normalisation, max_tokens, provenance
        return Artifact(spec, self.sizes, self.records)

    def outline(self, n_labels: int) -> Outline:
        n_words = self.varint("number of words", limits.MAX_WORDS)
        width = self.varint("embedding width", limits.MAX_WIDTH)
        flags = self.varint("pooling", 15)
        layers = []
        for _ in range(self.varint("number of layers", limits.MAX_LAYERS)):
            layers.append(self.layer())
        n_pairs = self.varint("number of pairs", MAX_PAIRS) if flags >> 3 else 0
        if flags >> 3 and not n_pairs:
            raise RefusedError("it declares pairs and has none")
        has_scores, pooling = bool(flags >> 2 & 1), POOLINGS[flags & 3]
        outline = Outline(n_words, n_labels, width, pooling, has_scores, tuple(layers), n_pairs)
        problem = limits.size_problem(outline)
        if problem:
            raise RefusedError(problem)
        return outline

    def pair_list(self, count: int, words: list[str]) -> np.ndarray:
        if self.varint("form of the pair list", 1):
            self.take_cells(CELLS_PER_PAIR * count, f"a list of {count} pairs")
            pairs = np.empty((count, 2), np.int32)
            hints = word_hints([word.encode() for word in words], self.arrays.get("word_scores"))
            self.coded.pairs(pairs, hints=hints)
            return pairs.astype(np.int64)
        found, first, second = [], 0, 0
        for _ in range(count):
            step = self.varint("first word of a pair", len(words) - first)
            second = 0 if step else second
            first += step
            second += 1 + self.varint("second word of a pair", len(words))
            found.append((first, second))
        pairs = np.asarray(found, np.int64)
        if problem := pairs_problem(pairs, len(words)):
            raise RefusedError(problem)
        return pairs
