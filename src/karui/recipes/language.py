"""Recipes of language modelling."""

from dataclasses import dataclass, field, replace
from typing import Literal

from karui.tasks.language_settings import LanguageData, LanguageModelSettings
from karui.train.settings import TrainSettings


@dataclass(frozen=True, kw_only=True)
class LanguageRecipe:
    """Everything that decides how a language model is trained."""

    task: Literal["lm"] = "lm"
    """The task."""

    name: str = "lm"
    """Name of the recipe."""

    data: LanguageData = field(default_factory=LanguageData)
    """Text and batches."""

    model: LanguageModelSettings = field(default_factory=LanguageModelSettings)
    """Embedding, recurrent layer, output layer."""

    train: TrainSettings = field(default_factory=TrainSettings)
    """The training loop."""

    expect: dict[str, float] = field(default_factory=dict)
    """Numbers the recipe should reach, such as test_perplexity; empty where none is known."""


_TRAIN = TrainSettings(
    max_epochs=12, lr=2e-3, grad_clip_norm=1.0, monitor="nll", keep="best", schedule="linear", decay_start=0.3
)
_DEFAULT = LanguageRecipe(
    model=LanguageModelSettings(output_dropout=0.3, input_dropout=0.3, dropout=0.1),
    train=replace(_TRAIN, max_epochs=6),
)
PTB_WORD = LanguageRecipe(
    name="ptb-word",
    data=LanguageData(name="ptb"),
    model=LanguageModelSettings(
        hidden_size=512,
        num_layers=3,
        dropout=0.2,
        recurrent_dropout=0.2,
        word_dropout=0.1,
        input_dropout=0.25,
        output_dropout=0.4,
        highway_bias=-1.0,
        rescale=False,
        output="sampled",
        output_finish="full",
        finish_share=0.1,
    ),
    train=replace(
        _TRAIN,
        max_epochs=20,
        lr=3e-3,
        betas=(0.9, 0.99),
        schedule="cosine",
        warmup_steps=200,
        evaluate_every=2,
        precision="bf16-mixed",
    ),
    expect={"test_perplexity": 100.0},
)
PTB_CHAR = LanguageRecipe(
    name="ptb-char",
    data=LanguageData(name="ptb", level="char", batch_size=64, bptt_len=100),
    model=LanguageModelSettings(
        hidden_size=512,
        num_layers=4,
        embedding_dim=64,
        tied=False,
        dropout=0.1,
        output_dropout=0.1,
        highway_bias=-2.0,
    ),
    train=replace(_TRAIN, max_epochs=10),
)
_ALL = (_DEFAULT, PTB_WORD, PTB_CHAR)
RECIPES = {recipe.name: recipe for recipe in _ALL}
