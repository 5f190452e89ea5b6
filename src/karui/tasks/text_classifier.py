"""Embedding, recurrent layers, pooling, linear output; beside them an optional score per word.

T time, B batch, E embedding width, H hidden size, D directions, C outputs (1 for two classes), S score columns
(C or 0).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from karui.nn.registry import RECURRENT, build_recurrent
from karui.tasks.pair_scores import PairScores

POOLINGS = ("last", "mean", "max", "mean+max")


class TextClassifier(nn.Module):
    """Ids of words to logits: forward(ids (B, T) int64, lengths (B,) int64) -> (B, C).

    Row 0 of the embedding is zero and never trained: padding, unknown and pruned words share it. `embedding` holds E
    columns for the recurrence and, with `word_scores`, C more that are summed over the text and divided by
    sqrt(length): a linear model beside the recurrence. C = 1 for two classes: sigmoid(logit) is the share of the second
    label.

    recurrent: a name of `karui.nn.registry`, or "none". activation: of "sru" alone. options: further arguments of the
    layer's constructor, such as num_stats. linear_share: part of the logits in eval mode that `linear` has, a fixed
    model fitted apart (its values are loaded later); training is the network's alone. Raises ValueError on arguments
    out of range.
    """

    def __init__(
        self,
        n_words: int,
        n_classes: int,
        *,
        recurrent: str = "sru",
        embedding_dim: int = 16,
        hidden_size: int = 16,
        num_layers: int = 1,
        directions: int = 2,
        pooling: str = "mean+max",
        word_scores: bool = True,
        activation: str = "identity",
        options: Mapping[str, Any] | None = None,
        linear_share: float = 0.0,
        embedding_dropout: float = 0.0,
        dropout: float = 0.0,
        word_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if n_classes < 2:
            raise ValueError(f"n_classes must be at least 2, got {n_classes}")
        if pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {POOLINGS}, got {pooling!r}")
        if recurrent not in (*RECURRENT, "none"):
            raise ValueError(f"recurrent must be one of {(*RECURRENT, 'none')}, got {recurrent!r}")
        if recurrent == "none" and not word_scores:
            raise ValueError("recurrent='none' leaves nothing to learn from: set word_scores=True")
        self.n_outputs = 1 if n_classes == 2 else n_classes
        self.pooling, self.embedding_dropout, self.word_dropout = pooling, embedding_dropout, word_dropout
        self.embedding_dim = embedding_dim if recurrent != "none" else 0
        columns = self.embedding_dim + (self.n_outputs if word_scores else 0)
        self.embedding = nn.Embedding(n_words + 1, columns, padding_idx=0)
        with torch.no_grad():
            self.embedding.weight.uniform_(-0.1, 0.1)[:, self.embedding_dim :] = 0.0
            self.embedding.weight[0] = 0.0
        self.linear = PairScores(n_words, self.n_outputs, share=linear_share) if linear_share else None
        self.recurrent: nn.Module | None = None
        pooled = 0
        if recurrent != "none":
            self.recurrent = build_recurrent(
                recurrent,
                embedding_dim,
                hidden_size,
                num_layers,
                bidirectional=directions == 2,
                dropout=dropout,
                options={**({"activation": activation} if recurrent == "sru" else {}), **(options or {})},
            )
            pooled = directions * hidden_size * (2 if pooling == "mean+max" else 1)
        self.dropout = dropout
        self.output = nn.Linear(pooled, self.n_outputs) if pooled else None
        self.output_bias = None if pooled else nn.Parameter(torch.zeros(self.n_outputs))

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """ids (B, T), 0 beyond lengths (B,); logits (B, C)."""
        logits = self._network(ids.t(), lengths)
        if self.linear is None or self.training:
            return logits
        share = self.linear.share
        return (1.0 - share) * logits + share * self.linear(ids.t(), lengths)

    def _network(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """ids (T, B) to the logits (B, C) of the part that is trained."""
        if self.training and self.word_dropout:
            ids = ids * (torch.rand(ids.shape, device=ids.device) >= self.word_dropout)
        embedded = self.embedding(ids)  # (T, B, E + S)
        E = self.embedding_dim
        logits = (
            embedded[..., E:].sum(0) * lengths[:, None].to(embedded.dtype).rsqrt()
        )  # zero columns: no scores
        if self.recurrent is None or self.output is None:
            return logits + self.output_bias
        x = embedded[..., :E]
        if self.training and self.embedding_dropout:
            keep = 1.0 - self.embedding_dropout
            x = x * ((torch.rand_like(x) < keep) / keep)  # several times as fast as F.dropout on a CPU
        h, _ = self.recurrent(x, lengths=lengths)
        pooled = F.dropout(self.pool(h, lengths), self.dropout, self.training)
        return self.output(pooled) + (logits if embedded.shape[2] > E else 0.0)

    def pool(self, h: Tensor, lengths: Tensor) -> Tensor:
        """h (T, B, D*H), zero in the padding, to (B, D*H) or (B, 2*D*H)."""
        if self.pooling == "last":
            T, B, width = h.shape
            two = bool(getattr(getattr(self.recurrent, "base", self.recurrent), "bidirectional", False))
            ends = h[lengths - 1, torch.arange(B, device=h.device)]  # forward direction's last step
            return torch.cat([ends[:, : width // 2], h[0, :, width // 2 :]], dim=1) if two and T else ends
        parts = []
        if self.pooling in ("mean", "mean+max"):
            parts.append(h.sum(0) / lengths[:, None].to(h.dtype))
        if self.pooling in ("max", "mean+max"):
            padding = torch.arange(h.shape[0], device=h.device)[:, None] >= lengths
            parts.append(h.masked_fill(padding[..., None], -torch.inf).max(dim=0).values)
        return torch.cat(parts, dim=1)
