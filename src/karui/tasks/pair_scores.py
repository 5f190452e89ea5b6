"""Scores of words and of pairs of adjacent words, fitted apart from the network that they are averaged with.

T time, B batch, V words, K pairs, C outputs (1 for two classes).
"""

import torch
from torch import Tensor, nn

from karui.tasks.linear_scores import LinearScores


class PairScores(nn.Module):
    """A fixed linear model over words and pairs: forward(ids (T, B) int64, lengths (B,)) -> (B, C).

    logits = bias + (sum of the scores of the words + sum of the scores of the pairs) / sqrt(length). A pair is two
    tokens in a row that are both known; id 0, padding or an unknown word, takes part in none. The tables are buffers:
    they are in the state of the model, and no optimizer, penalty or pruning touches them. `load` gives them their
    values; before that the answer is 0.

    share: the part of the logits that this model has in the answer of the classifier it belongs to.
    """

    word_scores: Tensor
    pair_scores: Tensor
    keys: Tensor
    bias: Tensor

    def __init__(self, n_words: int, n_outputs: int, *, share: float) -> None:
        super().__init__()
        if not 0 < share <= 1:
            raise ValueError(f"share must be in (0, 1], got {share}")
        self.share = share
        self.register_buffer("word_scores", torch.zeros(n_words + 1, n_outputs))
        self.register_buffer("keys", torch.zeros(0, dtype=torch.int64))  # first * (V + 1) + second, rising
        self.register_buffer("pair_scores", torch.zeros(0, n_outputs))
        self.register_buffer("bias", torch.zeros(n_outputs))

    def load(self, fitted: LinearScores) -> None:
        """Take the values of a fitted model, on the device of the old ones; ValueError if it is of another size."""
        if fitted.words.shape != self.word_scores.shape:
            raise ValueError(
                f"the linear model has scores of shape {fitted.words.shape}, expected {tuple(self.word_scores.shape)}"
            )
        device = self.bias.device
        self.word_scores = torch.from_numpy(fitted.words).to(device)
        self.keys = torch.from_numpy(fitted.keys).to(device)
        self.pair_scores = torch.from_numpy(fitted.pairs).to(device)
        self.bias = torch.from_numpy(fitted.bias).to(device)

    def pairs(self) -> Tensor:
        """(K, 2) ids of the two words of each pair, rising."""
        base = len(self.word_scores)
        return torch.stack([self.keys // base, self.keys % base], dim=1)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """ids (T, B), 0 beyond lengths (B,); logits (B, C)."""
        total = self.word_scores[ids].sum(0)
        if len(self.keys) and len(ids) > 1:
            wanted = (ids[:-1] * len(self.word_scores) + ids[1:]).contiguous()
            place = torch.searchsorted(self.keys, wanted).clamp(max=len(self.keys) - 1)
            found = (self.keys[place] == wanted)[..., None]  # no key has id 0 in it
            total = total + (self.pair_scores[place] * found).sum(0)
        return total * lengths[:, None].to(total.dtype).rsqrt() + self.bias

    def extra_repr(self) -> str:
        """Sizes and share."""
        return f"words={len(self.word_scores) - 1}, pairs={len(self.keys)}, share={self.share:g}"
