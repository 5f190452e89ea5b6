"""Updates of the rows of a large table that a step touched, in plain torch.

V rows of the table, H values a row, M gradient rows with repeated ids, R distinct ids among them. Row-wise Adagrad is
the rule of PyTorch-BigGraph (Lerer et al. 2019, section 3.4): one sum of squares a row.
"""

import torch
from torch import Tensor


def sum_rows(ids: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distinct ids (R,) in rising order and, for each, the sum of its rows of values (M, H): (R, H).

    The rows of an id are added in the order in which they come.
    """
    distinct, place = ids.unique(return_inverse=True)
    return distinct, values.new_zeros(len(distinct), *values.shape[1:]).index_add_(0, place, values)


def row_adagrad_(
    weight: Tensor, sum_of_squares: Tensor, ids: Tensor, values: Tensor, *, lr: float, eps: float
) -> None:
    """a_r += mean_h g_rh^2;  w_r -= lr g_r / (sqrt(a_r) + eps)  for every distinct id r, g_r the sum of its rows."""
    rows, g = sum_rows(ids, values.to(sum_of_squares.dtype))
    a = sum_of_squares[rows] + g.square().mean(1)
    sum_of_squares[rows] = a
    weight[rows] = (weight[rows] - lr * g / (a.sqrt() + eps)[:, None]).to(weight.dtype)


def lazy_adam_(
    weight: Tensor,
    averages: tuple[Tensor, Tensor],
    touches: Tensor,
    ids: Tensor,
    values: Tensor,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """Adam (Kingma & Ba 2014, algorithm 1) on the touched rows; t is the number of times that a row was touched."""
    lazy_adam_rows_(
        weight, averages, touches, *sum_rows(ids, values.to(averages[0].dtype)), lr=lr, betas=betas, eps=eps
    )


def lazy_adam_rows_(
    weight: Tensor,
    averages: tuple[Tensor, Tensor],
    touches: Tensor,
    rows: Tensor,
    g: Tensor,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """`lazy_adam_` with distinct rows (R,) and their gradients g (R, H)."""
    t = touches[rows] + 1
    touches[rows] = t
    (beta_1, beta_2), (first, second) = betas, averages
    m = first[rows].lerp_(g, 1 - beta_1)
    v = second[rows].mul_(beta_2).addcmul_(g, g, value=1 - beta_2)
    first[rows], second[rows] = m, v
    seen_1, seen_2 = (1 - torch.pow(beta, t.double())[:, None] for beta in betas)
    step = m / (v.sqrt() / seen_2.sqrt().to(v.dtype) + eps)
    weight[rows] -= lr * step / seen_1.to(v.dtype)
