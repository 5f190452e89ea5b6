"""What sampled losses read of the scores of their noise words, in plain torch.

N positions, K noise words, H hidden size. z_nk = x_n . w_k + o_k; a word that is the position's target can be left out.

logsumexp: log sum_k e^z, with the target's own term e^v in the sum where there is one (Jozefowicz et al. 2016, section
3.1; Bengio and Senecal 2008). softplus: sum_k log(1 + e^z), the noise half of NCE (Gutmann and Hyvarinen 2010, equation
3). blackout: log R - sum_k log(1 - e^z / R), R = e^v + sum_k e^z (Ji et al. 2016, equations 5 and 6).
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def sampled_logits(
    hidden: Tensor, rows: Tensor, offset: Tensor, *, first: Tensor | None, hits: Tensor | None, term: str
) -> Tensor:
    """hidden (N, H), rows (K, H), offset (K,), first (N,) v, hits (N, K) bool to leave out; returns (N,)."""
    z = hidden @ rows.T + offset
    if hits is not None:
        z = z.masked_fill(hits, -torch.inf)
    if term == "softplus":
        return -F.logsigmoid(-z).sum(1)  # F.softplus is linear from 20 on
    log_total = (z if first is None else torch.cat([first[:, None], z], 1)).logsumexp(1)
    if term == "logsumexp":
        return log_total
    share = (z - log_total[:, None]).exp()
    # Below 1, or one noise word that takes all the mass makes the loss infinite.
    return log_total - torch.log1p(-share.clamp(max=1 - torch.finfo(z.dtype).eps)).sum(1)
