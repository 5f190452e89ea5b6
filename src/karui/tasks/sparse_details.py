"""What the report shows of a sparse model at one moment: each matrix's density, and how its scores are spread."""

from typing import Any

import torch
from torch import Tensor, nn

from karui.sparse import keep_mask, sparse_layers

BINS = 40
SCORES = {"l0": "log alpha", "vd": "log of mean² / variance", "magnitude": "log of the root mean square"}
"""What decides how long a unit is kept, by method; larger is longer."""

_FAR = 12.0
"""Scores beyond, such as those of weights that are zero already, are counted at this end of the histogram."""


@torch.no_grad()
def sparse_details(model: nn.Module, method: str) -> dict[str, Any]:
    """Numbers for JSON: `score` (what is counted), `matrices` by name with `kept`, `of`, `shape`, live `rows` and
    `columns`, `histograms` by layer with `low`, `high` and `counts` of equal bins.
    """
    matrices = {}
    for name, mask in keep_mask(model).items():
        flat = mask.flatten(1)
        matrices[name] = {
            "kept": int(mask.sum()),
            "of": mask.numel(),
            "shape": list(mask.shape),
            "rows": int(flat.any(1).sum()),
            "columns": int(mask.transpose(0, 1).flatten(1).any(1).sum()),
        }
    histograms = {
        name: _histogram(torch.cat([ranked.score.flatten().float() for ranked in layer.ranked()]), method)
        for name, layer in sparse_layers(model)
    }
    return {"score": SCORES[method], "matrices": matrices, "histograms": histograms}


def _histogram(scores: Tensor, method: str) -> dict[str, Any]:
    if method == "magnitude":
        scores = scores.log()
    scores = scores.clamp(-_FAR, _FAR)
    low, high = float(scores.min()), float(scores.max())
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    counts = torch.histc(scores.cpu(), bins=BINS, min=low, max=high)
    return {"low": round(low, 4), "high": round(high, 4), "counts": [int(count) for count in counts]}
