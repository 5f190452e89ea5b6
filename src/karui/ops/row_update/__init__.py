"""Updates of those rows of a large table that a step touched: never a pass over the table. Derivation in README.md."""

from torch import Tensor

from karui.ops.row_update import reference

__all__ = ["lazy_adam_", "row_adagrad_", "sum_rows"]


def sum_rows(ids: Tensor, values: Tensor, *, implementation: str | None = None) -> tuple[Tensor, Tensor]:
    """Return the distinct ids (R,) in rising order and the sums of their rows, (R, ...); ids (M,), values (M, ...).

    implementation: "reference" or None for the fastest that the device and dtype have.
    Raises ValueError on shapes that do not fit.
    """
    _check(ids, values)
    del implementation
    return reference.sum_rows(ids, values)


def row_adagrad_(
    weight: Tensor,
    sum_of_squares: Tensor,
    ids: Tensor,
    values: Tensor,
    *,
    lr: float,
    eps: float = 1e-10,
    implementation: str | None = None,
) -> None:
    """Row-wise Adagrad in place, on the rows named by ids alone (Lerer et al. 2019, section 3.4).

    weight (V, H) and sum_of_squares (V,) are changed; ids (M,) int64 with repeats; values (M, H) gradient rows.
    Raises ValueError on shapes that do not fit.
    """
    _check(ids, values, weight)
    del implementation
    reference.row_adagrad_(weight, sum_of_squares, ids, values, lr=lr, eps=eps)


def lazy_adam_(
    weight: Tensor,
    averages: tuple[Tensor, Tensor],
    touches: Tensor,
    ids: Tensor,
    values: Tensor,
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> None:
    """Adam in place, on the rows named by ids alone; the averages of a row that is not touched do not decay.

    weight (V, H), averages two (V, H) and touches (V,) int32 are changed; ids (M,) int64 with repeats; values (M, H).
    Raises ValueError on shapes that do not fit.
    """
    _check(ids, values, weight)
    reference.lazy_adam_(weight, averages, touches, ids, values, lr=lr, betas=betas, eps=eps)


def _check(ids: Tensor, values: Tensor, weight: Tensor | None = None) -> None:
    if ids.dim() != 1 or values.shape[:1] != ids.shape:
        raise ValueError(
            f"ids must be (M,) and values (M, ...), got {tuple(ids.shape)} and {tuple(values.shape)}"
        )
    if weight is not None and (weight.dim() != 2 or values.shape[1:] != weight.shape[1:]):
        raise ValueError(
            f"weight must be (V, H) and values (M, H), got {tuple(weight.shape)} and {tuple(values.shape)}"
        )
