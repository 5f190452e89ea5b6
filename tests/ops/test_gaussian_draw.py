"""Proof of the compiled draws against the reference with the same noise, and of their law."""

import pytest
import torch
from torch import Tensor

from karui.ops import gaussian_draw as op
from karui.ops.gaussian_draw import cpu, reference
from karui.ops.noise import reference as noise
from karui.ops.variational_kl import variational_kl

# Box and Muller's radius in float32: near u = 1 the logarithm is as coarse as u, and its root coarser.
FLOAT32 = 2e-5


def posterior(rows: int, columns: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    mean = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    log_sigma2 = torch.randn(rows, columns, generator=generator, dtype=torch.float64) - 1.0
    return mean.to(dtype).requires_grad_(), log_sigma2.to(dtype).requires_grad_()


def noise_of(seed: int, like: Tensor) -> Tensor:
    return noise.normal(seed, like.numel()).view(like.shape)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 11), (50, 64), (90, 33)])
@pytest.mark.parametrize("some", [False, True])
@pytest.mark.parametrize("with_kl", [False, True])
def test_weights_and_their_gradients(rows: int, columns: int, some: bool, with_kl: bool) -> None:
    index = torch.arange(0, rows, 2) if some else None
    found = []
    for dtype in (None, torch.float32, torch.float64):
        mean, log_sigma2 = posterior(rows, columns, dtype or torch.float64)
        if dtype is None:
            taken = [t if index is None else t[index] for t in (mean, log_sigma2)]
            drawn = reference.weights(*taken, noise_of(8, taken[0]))
            kl = variational_kl(mean, log_sigma2, implementation="reference")
        else:
            drawn, kl = cpu.weights(mean, log_sigma2, 8, index, cpu.Pass() if with_kl else None)
        loss = (drawn * drawn).sum()
        if with_kl:
            assert kl is not None
            loss = loss + 0.3 * kl
        loss.backward()
        found.append([drawn.detach(), mean.grad, log_sigma2.grad])
    truth, *compiled = found
    for tensors, tolerance in zip(compiled, (FLOAT32, 1e-12), strict=True):
        for tensor, right in zip(tensors, truth, strict=True):
            assert (tensor - right).abs().max() <= tolerance * (1.0 + right.abs().max())


@pytest.mark.parametrize("images", [False, True])
def test_outputs_and_their_gradients(images: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    shape = (3, 5, 4, 7) if images else (33, 21)
    mean, variance, direction = (
        torch.rand(shape, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    if images:
        mean, variance = (t.to(memory_format=torch.channels_last) for t in (mean, variance))
        eps = noise.normal(6, mean.numel()).view(3, 4, 7, 5).permute(0, 3, 1, 2)
    else:
        eps = noise_of(6, mean)
    found = []
    for dtype in (None, torch.float32, torch.float64):
        m, v = (t.detach().to(dtype or torch.float64).requires_grad_() for t in (mean, variance))
        drawn = reference.outputs(m, v, eps) if dtype is None else cpu.outputs(m, v, 6)
        (drawn * direction.to(drawn.dtype)).sum().backward()
        found.append([drawn.detach(), m.grad, v.grad])
    truth, *compiled = found
    for tensors, tolerance in zip(compiled, (FLOAT32, 1e-12), strict=True):
        for tensor, right in zip(tensors, truth, strict=True):
            assert (tensor - right).abs().max() <= tolerance * (1.0 + right.abs().max())


def test_draws_follow_the_law() -> None:
    """Mean, variance and fourth moment of 200,000 draws; 4 standard errors."""
    n = 200_000
    torch.manual_seed(0)
    z = op.draw_weights(torch.full((n,), 2.0), torch.full((n,), -1.0), implementation="cpp").double()
    z = (z - 2.0) / torch.tensor(-0.5, dtype=torch.float64).exp()
    assert abs(z.mean()) < 4 / n**0.5
    assert abs(z.var() - 1) < 4 * (2 / n) ** 0.5
    assert abs((z**4).mean() - 3) < 4 * (96 / n) ** 0.5


def test_threads_change_no_bit_and_the_generator_decides() -> None:
    mean, log_sigma2 = posterior(90, 65, torch.float32)
    before, found = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        torch.manual_seed(4)
        drawn = op.draw_weights(mean, log_sigma2)
        gradients = torch.autograd.grad((drawn * drawn).sum(), (mean, log_sigma2))
        found.append([drawn, *gradients])
    torch.set_num_threads(before)
    assert all(torch.equal(one, three) for one, three in zip(*found, strict=True))
    assert not torch.equal(found[0][0], op.draw_weights(mean, log_sigma2))


def test_gradcheck() -> None:
    mean, log_sigma2 = posterior(4, 5, torch.float64)
    rows = torch.tensor([0, 3])
    for given in (None, rows):
        assert torch.autograd.gradcheck(
            lambda m, s, given=given: cpu.weights(m, s, 3, given, cpu.Pass()), (mean, log_sigma2)
        )
    variance = torch.rand(4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m, v: cpu.outputs(m, v, 3), (mean, variance))


def test_other_dtypes_and_graphs_take_the_reference() -> None:
    mean = torch.zeros(5, dtype=torch.bfloat16)
    assert op.draw_weights(mean, mean).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="needs a float32 or float64 CPU tensor"):
        op.draw_weights(mean, mean, implementation="cpp")
    with pytest.raises(ValueError, match="must have one shape"):
        op.draw_outputs(torch.zeros(2), torch.zeros(3))
