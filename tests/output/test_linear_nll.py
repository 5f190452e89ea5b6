"""The fused cross-entropy of a linear map: equal to torch's, chunked or not, once or twice."""

import pytest
import torch
from torch.nn import functional as F

from karui.output import linear_nll as module
from karui.output.linear_nll import linear_nll


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("saved", [10**9, 0])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (5, 3, 16), (11, 4, 37)])
def test_values_and_gradients_are_those_of_cross_entropy(monkeypatch, sizes, saved, has_bias) -> None:
    monkeypatch.setattr(module, "SAVED_NUMBERS", saved)
    monkeypatch.setattr(
        module, "CHUNK_NUMBERS", 3 * sizes[2]
    )  # three positions at once where nothing is saved
    N, H, V = sizes
    torch.manual_seed(0)
    hidden, weight, bias = (
        torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((N, H), (V, H), (V,))
    )
    target = torch.randint(V, (N,))
    inputs = [hidden, weight, *([bias] if has_bias else [])]
    found = linear_nll(hidden, weight, bias if has_bias else None, target)
    expected = F.cross_entropy(F.linear(hidden, weight, bias if has_bias else None), target, reduction="none")
    assert (found - expected).abs().max() <= 1e-12
    ramp = torch.linspace(-1, 2, N, dtype=torch.float64)
    wanted = torch.autograd.grad((expected * ramp).sum(), inputs)
    for _ in range(2):  # the first backward may use up what was saved, the second finds it used
        for a, b in zip(
            torch.autograd.grad((found * ramp).sum(), inputs, retain_graph=True), wanted, strict=True
        ):
            assert (a - b).abs().max() <= 1e-12
    with torch.no_grad():
        assert (linear_nll(*inputs, *(() if has_bias else (None,)), target) - expected).abs().max() <= 1e-12


def test_sparse_gradients_have_all_rows() -> None:
    hidden, weight = torch.randn(4, 3, requires_grad=True), torch.randn(6, 3, requires_grad=True)
    target = torch.tensor([0, 5, 5, 2])
    dense, sparse = (
        torch.autograd.grad(linear_nll(hidden, weight, None, target, sparse=s).sum(), [weight])[0]
        for s in (False, True)
    )
    assert sparse.is_coalesced()
    assert sparse._nnz() == 6
    assert torch.equal(sparse.to_dense(), dense)


def test_a_frozen_table_gets_no_gradient_and_costs_none() -> None:
    hidden, weight = torch.randn(4, 3, requires_grad=True), torch.randn(6, 3)
    linear_nll(hidden, weight, None, torch.tensor([0, 5, 5, 2])).sum().backward()
    assert hidden.grad.isfinite().all()
    assert weight.grad is None
