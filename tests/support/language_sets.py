"""A tiny running text with something to learn, and tasks on it."""

import numpy as np

from karui.data.language import LanguageCorpus
from karui.tasks.language import LanguageTask
from karui.tasks.language_settings import LanguageData, LanguageModelSettings

WORDS = ["</s>", *"abcdefghij", "<unk>"]


def corpus(*, n_train: int = 900, n_held: int = 130, level: str = "word", seed: int = 0) -> LanguageCorpus:
    """Words that mostly follow one another in their order, with a line end now and then."""
    random = np.random.default_rng(seed)

    def part(count: int) -> np.ndarray:
        jumps = np.where(random.random(count) < 0.2, random.integers(1, 9, count), 1)
        return (np.cumsum(jumps) % (len(WORDS) - 1)).astype(np.int32)

    train = part(n_train)
    return LanguageCorpus(
        name="tiny",
        level=level,
        words=WORDS,
        counts=np.bincount(train, minlength=len(WORDS)),
        train=train,
        valid=part(n_held),
        test=part(n_held),
        tokens="blank-v1" if level == "word" else "chars-v1",
    )


def task(
    *, level: str = "word", seed: int = 0, max_epochs: int = 0, data: dict | None = None, **model
) -> LanguageTask:
    """A language-model task on the tiny text."""
    settings = {"hidden_size": 8, "num_layers": 1, "num_samples": 6, **model}
    return LanguageTask(
        LanguageData(name="tiny", level=level, **{"batch_size": 4, "bptt_len": 7, **(data or {})}),
        LanguageModelSettings(**settings),
        seed=seed,
        max_epochs=max_epochs,
        corpus=corpus(level=level),
    )
