"""`karui eval RUN --samples N`: predictions of N draws of the weights, and how unsure they are.

p_s: probabilities of draw s for a document, p their mean. Entropy of p: all that is unsure. Less the mean entropy
of the p_s, what the draws disagree about (mutual information): unsure because of the weights. Both in nats.
"""

from typing import Any

import numpy as np

from karui.cli.runs import TrainedRun
from karui.errors import UserError


def sampled_figures(run: TrainedRun, part: Any, samples: int) -> dict[str, Any]:
    """Figures of a sparse run on the documents of a split; the draws are the same at every call.

    Weights are drawn as in training, from the gates or the posterior, before anything is pruned.

    Raises:
        UserError: the run has no noise to draw from, or samples is below 1.
    """
    import torch

    from karui.compact.figures import probabilities
    from karui.sparse.measures import sampling

    if samples < 1:
        raise UserError(f"samples must be at least 1, got {samples}")
    if run.recipe.sparse.method not in ("l0", "vd"):
        raise UserError(f"{run.path} has no random weights: --samples needs a run of --sparse l0 or vd")
    answer = run.answers(run.model)
    torch.manual_seed(0)
    mean, inner = 0.0, 0.0
    with sampling(run.model):
        for _ in range(samples):
            shares = probabilities(np.asarray(answer(part.texts)))
            mean, inner = mean + shares / samples, inner + _entropy(shares) / samples
    assert isinstance(mean, np.ndarray)
    entropy, chosen = _entropy(mean), mean.argmax(1)
    is_right = chosen == part.labels
    return {
        "samples": samples,
        "accuracy": float(is_right.mean()),
        "nll": float(-np.log(np.maximum(mean[np.arange(len(mean)), part.labels], 1e-300)).mean()),
        "entropy": float(entropy.mean()),
        "mutual_information": float((entropy - inner).mean()),
        "entropy_of_right": _mean(entropy[is_right]),
        "entropy_of_wrong": _mean(entropy[~is_right]),
    }


def page(found: dict[str, Any]) -> str:
    """What a person reads."""
    right, wrong = (
        "–" if found[name] is None else f"{found[name]:.4f}"
        for name in ("entropy_of_right", "entropy_of_wrong")
    )
    return (
        f"mean of {found['samples']} draws of the weights: accuracy {found['accuracy']:.2%}   nll {found['nll']:.4f}\n"
        f"entropy {found['entropy']:.4f} nats ({right} where right, {wrong} where wrong), of which the weights' "
        f"{found['mutual_information']:.4f}"
    )


def _entropy(shares: np.ndarray) -> np.ndarray:
    """(N, K) to (N,), in nats."""
    return -(shares * np.log(np.maximum(shares, 1e-300))).sum(1)


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
