"""The bytes of the file that `karui compact` writes of a model as it stands: what a target size is compared with."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from karui.compact.convert import to_spec
from karui.compact.images import image_bytes
from karui.compact.language import to_language_spec
from karui.compact.language_shrink import shrink_language
from karui.compact.rounding import MAX_LEVELS, encode_rounded, groups
from karui.compact.sequences import masked_bytes
from karui.compact.shrink import shrink
from karui.runtime.language_format import encode_language_model
from karui.sparse import harden
from karui.tasks.classification import ClassificationTask
from karui.tasks.images import ImageTask
from karui.tasks.language import LanguageTask
from karui.tasks.language_model import LanguageModel
from karui.tasks.text_classifier import TextClassifier

Measure = Callable[[nn.Module], int]


def bytes_of_task(task: Any) -> Measure:
    """The measure of a task's file."""
    if isinstance(task, ClassificationTask):
        words, labels = task.vocabulary.words, task.label_names
        return classifier_bytes(words, labels, max_tokens=task.data.max_tokens)
    if isinstance(task, LanguageTask):
        corpus = task.corpus
        tokens = corpus.tokens
        return language_bytes(
            corpus.words, eos=corpus.eos, unk=corpus.unk, tokenisation=tokens, lower=corpus.lower
        )
    if isinstance(task, ImageTask):
        return image_bytes(task.example)
    return masked_bytes


def classifier_bytes(words: Sequence[str], labels: Sequence[str], *, max_tokens: int = 0) -> Measure:
    """Bytes of a text classifier's int8 file; the arguments are those of `karui.compact.compact`."""

    def measure(model: nn.Module) -> int:
        masked = harden(model)
        assert isinstance(masked, TextClassifier)
        spec = shrink(to_spec(masked.eval(), words, labels, max_tokens=max_tokens))
        return len(encode_rounded(spec, dict.fromkeys(groups(spec), MAX_LEVELS)))

    return measure


def language_bytes(
    words: Sequence[str], *, eos: int, unk: int | None, tokenisation: str, lower: bool
) -> Measure:
    """Bytes of a language model's int8 file; the arguments are those of `to_language_spec`."""

    def measure(model: nn.Module) -> int:
        masked = harden(model)
        assert isinstance(masked, LanguageModel)
        text = {"eos": eos, "unk": unk, "tokenisation": tokenisation, "lower": lower}
        spec = to_language_spec(masked.eval(), words, **text)  # type: ignore[arg-type]
        return len(encode_language_model(shrink_language(spec), values="int8"))

    return measure
