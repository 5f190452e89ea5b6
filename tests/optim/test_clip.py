import pytest
import torch
from torch import nn

from karui.optim import clip_grad_norm_


def parameters(*, sparse):
    generator = torch.Generator().manual_seed(3)
    table, matrix, unused = (nn.Parameter(torch.zeros(9, 4).double()) for _ in range(3))
    ids, values = torch.tensor([[5, 1, 5, 5]]), torch.randn(4, 4, generator=generator).double()
    grad = torch.sparse_coo_tensor(ids, values, (9, 4), check_invariants=True)
    table.grad = grad if sparse else grad.to_dense()
    matrix.grad = torch.randn(9, 4, generator=generator).double()
    return [table, matrix, unused]


@pytest.mark.parametrize("max_norm", [0.25, 1e3])
def test_norm_and_gradients_are_those_of_the_dense_table(max_norm):
    sparse, dense = parameters(sparse=True), parameters(sparse=False)
    found = clip_grad_norm_(iter(sparse), max_norm)
    wanted = nn.utils.clip_grad_norm_(dense, max_norm)
    assert abs(found - wanted) <= 1e-14 * wanted
    for one, other in zip(sparse[:2], dense[:2], strict=True):
        assert (one.grad.to_dense() - other.grad).abs().max() <= 1e-15
    assert sparse[0].grad.is_coalesced()
    assert sparse[0].grad._nnz() == 2
    assert sparse[2].grad is None


def test_a_gradient_without_rows_and_no_gradients_at_all():
    table = nn.Parameter(torch.zeros(9, 4))
    assert clip_grad_norm_([table], 1.0) == 0
    table.grad = torch.sparse_coo_tensor(
        torch.zeros(1, 0, dtype=torch.int64), torch.zeros(0, 4), (9, 4), check_invariants=True
    )
    assert clip_grad_norm_(table, 1.0) == 0
    assert table.grad._nnz() == 0


def test_nan_is_not_hidden_and_a_negative_norm_refused():
    table = nn.Parameter(torch.zeros(9, 4))
    table.grad = torch.sparse_coo_tensor([[2]], torch.full((1, 4), torch.nan), (9, 4), check_invariants=True)
    assert clip_grad_norm_([table], 1.0).isnan()
    assert table.grad._values().isnan().all()
    with pytest.raises(ValueError, match="max_norm must be >= 0, got -1"):
        clip_grad_norm_([table], -1)
