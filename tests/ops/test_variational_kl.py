"""Proof of the compiled KL, and of the approximation itself against Monte Carlo."""

import math

import pytest
import torch

from karui.ops.variational_kl import variational_kl
from karui.ops.variational_kl.reference import SMALL
from tests.support.kernel_proof import assert_as_exact_as_plain


def values(size: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(size, generator=generator).mul(0.5)
    weight[:: max(1, size // 7)] = 0.0
    log_sigma2 = torch.randn(size, generator=generator).mul(3.0) - 4.0
    return weight.to(dtype).requires_grad_(), log_sigma2.to(dtype).requires_grad_()


def run(size: int, dtype: torch.dtype, implementation: str) -> list[torch.Tensor]:
    weight, log_sigma2 = values(size, dtype)
    total = variational_kl(weight, log_sigma2, implementation=implementation)
    (2.5 * total).backward()
    return [total.detach(), weight.grad, log_sigma2.grad]


@pytest.mark.parametrize("size", [1, 7, 1024, 5000])
def test_compiled_is_as_exact_as_plain(size: int) -> None:
    truth = run(size, torch.float64, "reference")
    plain, fused, double = (
        run(size, d, i)
        for d, i in ((torch.float32, "reference"), (torch.float32, "cpp"), (torch.float64, "cpp"))
    )
    for index, name in enumerate(("total", "grad_weight", "grad_log_sigma2")):
        assert_as_exact_as_plain(name, fused[index], plain[index], truth[index])
        assert (double[index] - truth[index]).abs().max() <= 1e-12 * (1 + truth[index].abs().max())


@pytest.mark.parametrize("log_alpha", [-8.0, -4.0, -1.0, 0.0, 1.0, 3.0, 8.0])
def test_approximation_is_within_a_hundredth_of_monte_carlo(log_alpha: float) -> None:
    """KL = -0.5 log(alpha) + E log|1 + sqrt(alpha) eps| + constant; the constant makes it vanish for large alpha."""
    noise = torch.randn(2_000_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def estimate(a: float) -> float:
        return (torch.log((1 + math.exp(0.5 * a) * noise).abs()).mean() - 0.5 * a).item()

    limit = (torch.log(noise.abs())).mean().item()  # a to infinity: E log|eps|
    weight = torch.ones(1, dtype=torch.float64)
    formula = variational_kl(weight, torch.full((1,), log_alpha + math.log(1 + SMALL), dtype=torch.float64))
    assert abs(formula.item() - (estimate(log_alpha) - limit)) < 0.0125


def test_never_negative_and_flat_outside_the_clip() -> None:
    weight = torch.ones(3, dtype=torch.float64, requires_grad=True)
    log_sigma2 = torch.tensor([-30.0, 0.0, 30.0], dtype=torch.float64, requires_grad=True)
    for implementation in ("cpp", "reference"):
        weight.grad = log_sigma2.grad = None
        total = variational_kl(weight, log_sigma2, implementation=implementation)
        total.backward()
        assert total > 0
        assert log_sigma2.grad[0] == 0
        assert log_sigma2.grad[1] < 0
        assert log_sigma2.grad[2] == 0


def test_zero_weight_is_finite() -> None:
    weight, log_sigma2 = torch.zeros(5, requires_grad=True), torch.full((5,), -6.0, requires_grad=True)
    variational_kl(weight, log_sigma2).backward()
    assert weight.grad.isfinite().all()
    assert log_sigma2.grad.isfinite().all()


def test_gradcheck_and_opcheck() -> None:
    from karui.ops.variational_kl import cpu

    weight = torch.tensor([0.3, -1.2, 0.7], dtype=torch.float64, requires_grad=True)
    log_sigma2 = torch.tensor([-2.0, 1.0, -5.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda w, s: variational_kl(w, s, implementation="cpp"), (weight, log_sigma2)
    )
    torch.library.opcheck(cpu.kl_op, (weight, log_sigma2))


def test_what_does_not_fit_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="must have one shape"):
        variational_kl(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="implementation must be .* got 'cuda'"):
        variational_kl(torch.zeros(2), torch.zeros(2), implementation="cuda")
