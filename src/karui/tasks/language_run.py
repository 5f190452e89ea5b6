"""A trained language model out of its run folder: figures of a text, and text from a prompt.

The counterpart of `karui.runtime.language.LanguageModel`, which answers from a file without torch: equal conventions,
equal figures. T tokens, V words.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from karui.errors import UserError
from karui.runtime.language import Perplexity, check_draws, place_drawn
from karui.runtime.language_tokens import END, join_tokens, text_lines, tokenise_line, tokenise_lines
from karui.sparse import harden
from karui.tasks.language import EVALUATION_STEPS, VOCABULARY_FILE, with_first
from karui.tasks.language_model import LanguageModel, build_language_model
from karui.tasks.language_settings import LanguageModelSettings
from karui.tasks.settings import DENSE, SparseSettings


class TrainedLanguage:
    """The model of a run with its words; `model` is in eval mode, on the CPU, and its weights are the caller's to load.

    A sparse model takes the weights as it was trained, and `mask` then makes it the plain one that it stands for.
    Raises UserError when the folder holds no vocabulary.
    """

    def __init__(
        self, run_dir: Path, settings: LanguageModelSettings, sparse: SparseSettings = DENSE
    ) -> None:
        path = run_dir / VOCABULARY_FILE
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            self.words = [str(word) for word in kept["words"]]
            self.counts = np.array(kept["counts"], np.int64)
            self.tokenisation, self.lower = str(kept["tokens"]), bool(kept["lower"])
            self.level, self.subset = str(kept["level"]), bool(kept["subset"])
            self.eos, self.unk = int(kept["eos"]), int(kept["unk"])
            if (
                self.counts.shape != (len(self.words),)
                or self.words[self.eos] != END
                or self.unk >= len(self.words)
            ):
                raise ValueError("its words, counts, eos and unk do not fit together")
        except (OSError, ValueError, LookupError, TypeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            message = f"{path}: no readable vocabulary ({reason}); give the folder of a run made by `karui train lm`"
            raise UserError(message) from error
        self.model = build_language_model(torch.from_numpy(self.counts), settings, sparse).eval()
        self._ids = {word: number for number, word in enumerate(self.words)}
        self._sorted = torch.tensor(sorted(range(len(self.words)), key=self.words.__getitem__))

    def mask(self) -> None:
        """Put plain layers with pruned weights at zero in the place of sparse ones."""
        model = harden(self.model).eval()
        assert isinstance(model, LanguageModel)
        self.model = model

    def encode(self, tokens: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids (T,) int32 of tokens, and which of them are in the word list."""
        ids = np.fromiter((self._ids.get(token, -1) for token in tokens), np.int32, len(tokens))
        known = ids >= 0
        return np.where(known, ids, np.int32(self.unk)).astype(np.int32), known

    @torch.no_grad()
    def perplexity(self, lines: Sequence[str]) -> Perplexity:
        """Figures of a text given as lines; the state is carried over their ends.

        Raises UserError where there is no line.
        """
        if not lines:
            raise UserError("there is no text to measure, not even an empty line")
        ids, known = self.encode(tokenise_lines(lines, self.tokenisation, lower=self.lower))
        stream = torch.from_numpy(with_first(ids, self.eos)).long()
        state: Any = None
        of_known = of_oovs = 0.0
        for start in range(0, len(ids), EVALUATION_STEPS):
            piece = stream[start : start + EVALUATION_STEPS + 1].unsqueeze(1)
            hidden, state = self.model(piece[:-1], state)
            nll = self.model.output.nll(hidden, piece[1:], reduction="none").squeeze(1).double().numpy()
            is_known = known[start : start + EVALUATION_STEPS]
            of_known -= float(nll[is_known].sum())
            of_oovs -= float(nll[~is_known].sum())
        return Perplexity(
            log_prob_of_known=of_known,
            log_prob_of_oovs=of_oovs,
            tokens=len(ids),
            oovs=int((~known).sum()),
            lines=len(lines),
        )

    @torch.no_grad()
    def sample(
        self, prompt: str = "", *, tokens: int = 100, temperature: float = 1.0, top_k: int = 0, seed: int = 0
    ) -> str:
        """Continue a prompt by drawn tokens, as `karui.runtime.language.LanguageModel.sample` does.

        Raises UserError on numbers out of range.
        """
        check_draws(tokens, temperature, top_k, len(self.words))
        random = np.random.Generator(np.random.PCG64(seed))
        lines = [tokenise_line(line, self.tokenisation, lower=self.lower) for line in text_lines(prompt)]
        read = [token for line in lines for token in [*line, END]]
        ids, _ = self.encode(read if prompt.endswith("\n") else read[:-1])
        hidden, state = self.model(torch.from_numpy(with_first(ids, self.eos)).long().unsqueeze(1))
        drawn: list[int] = []
        for _ in range(tokens):
            drawn.append(self._draw(hidden[-1, 0], float(random.random()), temperature, top_k))
            hidden, state = self.model(torch.tensor([[drawn[-1]]]), state)
        return join_tokens([self.words[number] for number in drawn], self.tokenisation)

    def _draw(self, hidden: torch.Tensor, number: float, temperature: float, top_k: int) -> int:
        """Id of the word that a number from 0 to 1 falls on."""
        if temperature == 0:
            return int(self.model.output.predict(hidden))
        if top_k:
            log_prob, ids = self.model.output.topk(hidden, top_k)
        else:  # in the order of a file's words, so that a run and its file draw the same
            log_prob, ids = self.model.output.log_prob(hidden)[self._sorted], self._sorted
        return int(ids[place_drawn(log_prob.numpy(), number, temperature)])
