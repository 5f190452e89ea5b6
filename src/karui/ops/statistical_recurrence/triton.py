"""The Statistical Recurrent Unit on a GPU: launches of triton_kernels.py, the products over all steps by torch.

T time, B batch, P statistics, R recurrent statistics (none without feedback), A scales.
"""

from typing import Any

import torch
from torch import Tensor

from karui.ops.double_backward import differentiable_gradients
from karui.ops.eager import eager_twin
from karui.ops.statistical_recurrence import reference
from karui.ops.statistical_recurrence.triton_kernels import (
    average_backward_kernel,
    average_kernel,
    feedback_backward_kernel,
    feedback_kernel,
)
from karui.ops.triton_launch import COMPILE_OPTIONS, on_device_of

ACTIVATIONS = tuple(reference.ACTIVATIONS)  # in the order of the kernels
ROWS = 16  # sequences of a program: the height of one tensor-core tile
TILE = 64  # statistics of one tile of weights: 16 KiB at 64 recurrent statistics
WIDEST = 128  # recurrent statistics, rounded up to a power of two
MOST_STATES = 2048  # A times that: the state of a program in registers
SLOPES = {  # derivatives of the activations, from their values
    "relu": lambda v: v > 0,
    "elu": lambda v: torch.where(v > 0, 1.0, v + 1),
    "tanh": lambda v: 1 - v * v,
}
AHEAD = 8
BLOCK = 32


def refusal(weight_phi: Tensor | None, A: int, dtype: torch.dtype) -> str:
    """Why these sizes or numbers cannot run here; empty where they can."""
    if dtype == torch.float64:
        return "implementation 'triton' computes in 32 bits, got float64; choose 'reference'"
    if weight_phi is not None and (
        _width(weight_phi.shape[1]) > WIDEST or A * _width(weight_phi.shape[1]) > MOST_STATES
    ):
        return (
            f"implementation 'triton' needs recur_size of at most {WIDEST} and, times the number of alphas, "
            f"{MOST_STATES}, got {weight_phi.shape[1]} and {A} alphas; choose 'reference'"
        )
    return ""


def _width(size: int) -> int:
    return max(16, 1 << (size - 1).bit_length())


def _feedback_launch(weight_phi: Tensor, A: int, B: int, activation: int, precise: bool) -> tuple[Any, dict]:
    P, R = weight_phi.shape
    constants = {"P": P, "R": R, "A": A, "PW": min(TILE, _width(P)), "RW": _width(R), "ROWS": ROWS}
    # 16-bit inputs lose nothing in TF32; 32-bit ones take three products that add up to 32 bits
    constants |= {"ACTIVATION": activation, "PRECISION": "tf32x3" if precise else "tf32"}
    # one stage: more would hold a copy of every tile of weights for each
    constants |= {"num_warps": 8 if P > 32 else 4, "num_stages": 1}
    return (-(-B // ROWS),), constants | COMPILE_OPTIONS


def _by_scale(weight_r: Tensor, A: int) -> Tensor:
    """W_r of each scale: (R, A*P) to (A, R, P)."""
    return weight_r.view(len(weight_r), A, -1).transpose(0, 1).contiguous()


def _padding(padding_mask: Tensor | None) -> Tensor | None:
    return None if padding_mask is None else padding_mask.view(torch.uint8)


def _average(
    phi: Tensor, alphas: Tensor, mu_0: Tensor, padding_mask: Tensor | None, *, all_steps: bool
) -> tuple[Tensor, Tensor]:
    """Moving averages of phi (T, B, P): mu (T or 0, B, A*P) and mu_n (B, A*P)."""
    T, B, P = phi.shape
    A = len(alphas)
    mu, mu_n = phi.new_empty(T if all_steps else 0, B, A * P), torch.empty_like(mu_0)
    if phi.numel() == 0:
        return mu, mu_n.copy_(mu_0)
    constants: dict[str, Any] = {
        "P": P,
        "A": A,
        "BLOCK": BLOCK,
        "AHEAD": AHEAD,
        "num_warps": 1,
    } | COMPILE_OPTIONS
    with on_device_of(phi):
        average_kernel[(-(-B * P // BLOCK), A)](
            phi, alphas, mu_0, _padding(padding_mask), mu if all_steps else None, mu_n, T, B, **constants
        )
    return mu, mu_n


def _forward(
    projected: Tensor,
    weight_r: Tensor | None,
    bias_r: Tensor | None,
    weight_phi: Tensor | None,
    alphas: Tensor,
    mu_0: Tensor,
    padding_mask: Tensor | None,
    activation: int,
    last_only: bool,
    precise: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Contiguous float32; returns mu (T or 0, B, A*P), mu_n (B, A*P), phi (T, B, P) and r (T, B, R)."""
    T, B, P = projected.shape
    A = len(alphas)
    if weight_r is None or weight_phi is None:
        phi, r = reference.ACTIVATIONS[ACTIVATIONS[activation]](projected), projected.new_empty(T, B, 0)
        if padding_mask is not None:
            phi = phi.masked_fill(padding_mask[..., None], 0.0)
    else:
        phi, r = torch.empty_like(projected), projected.new_empty(T, B, len(weight_r))
    if weight_r is not None and weight_phi is not None and projected.numel():
        by_scale = _by_scale(weight_r, A)
        y_0 = torch.einsum("arp,bap->bar", by_scale, mu_0.view(B, A, P)).contiguous()
        grid, constants = _feedback_launch(weight_phi, A, B, activation, precise)
        with on_device_of(projected):
            feedback_kernel[grid](
                projected, by_scale, bias_r, weight_phi, alphas, y_0, _padding(padding_mask), phi, r, T, B, **constants
            )  # fmt: skip
    mu, mu_n = _average(phi, alphas, mu_0, padding_mask, all_steps=not last_only)
    return mu, mu_n, phi, r


def _grad_alphas(e: Tensor, phi: Tensor, alphas: Tensor, mu_0: Tensor, padding_mask: Tensor | None) -> Tensor:
    """Sum of e (T, B, A, P), the gradient of every average, times what a step of the scale moves: mu_{t-1} - phi_t."""
    mu, _ = _average(phi, alphas, mu_0, padding_mask, all_steps=True)
    before = torch.cat((mu_0[None], mu[:-1])) if len(mu) else mu
    return (e * (before.view(e.shape) - phi[:, :, None])).sum((0, 1, 3))


def _gradients(
    grad_mu: Tensor | None,
    grad_mu_n: Tensor,
    weight_r: Tensor | None,
    weight_phi: Tensor | None,
    alphas: Tensor,
    mu_0: Tensor,
    padding_mask: Tensor | None,
    phi: Tensor,
    r: Tensor,
    activation: int,
    grad_alphas_wanted: bool,
    precise: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of projected, weight_r, bias_r, weight_phi, alphas and mu_0; empty where there is no such tensor."""
    T, B, P = phi.shape
    A, new = len(alphas), phi.new_empty
    grad_phi, e_0, e = torch.empty_like(phi), torch.empty_like(mu_0), None
    if grad_alphas_wanted:
        e = new(T, B, A, P)
    if phi.numel() == 0:
        e_0.copy_(grad_mu_n)
    else:
        constants: dict[str, Any] = {"P": P, "A": A, "BLOCK": BLOCK, "num_warps": 1} | COMPILE_OPTIONS
        with on_device_of(phi):
            average_backward_kernel[(-(-B * P // BLOCK),)](
                grad_mu, grad_mu_n, alphas, _padding(padding_mask), grad_phi, e_0, e, T, B, **constants
            )
    if weight_r is None or weight_phi is None:
        grad_alphas = new(0) if e is None else _grad_alphas(e, phi, alphas, mu_0, padding_mask)
        return grad_phi * SLOPES[ACTIVATIONS[activation]](phi), new(0), new(0), new(0), grad_alphas, e_0

    R, by_scale = len(weight_r), _by_scale(weight_r, A)
    pre_phi, pre_r = torch.empty_like(phi), torch.empty_like(r)
    z, z_0 = new(T, B, A, R), phi.new_zeros(B, A, R)
    if phi.numel():
        grid, constants = _feedback_launch(weight_phi, A, B, activation, precise)
        with on_device_of(phi):
            feedback_backward_kernel[grid](
                grad_phi, by_scale, weight_phi, alphas, _padding(padding_mask), phi, r, pre_phi, pre_r, z, z_0, T, B,
                **constants,
            )  # fmt: skip
    grad_alphas = new(0)
    if e is not None:
        e = e + torch.einsum("tbar,arp->tbap", z, by_scale)
        grad_alphas = _grad_alphas(e, phi, alphas, mu_0, padding_mask)
    over_time = (z.view(T * B, A * R).T @ phi.view(T * B, P)).view(A, R, P) * (1 - alphas)[:, None, None]
    grad_weight_r = over_time + torch.einsum("bar,bap->arp", z_0, mu_0.view(B, A, P))
    grad_weight_phi = pre_phi.view(T * B, P).T @ r.view(T * B, R)
    grad_mu_0 = e_0 + torch.einsum("bar,arp->bap", z_0, by_scale).reshape(B, A * P)
    grad_weight_r = grad_weight_r.transpose(0, 1).reshape(R, A * P)
    return pre_phi, grad_weight_r, pre_r.sum((0, 1)), grad_weight_phi, grad_alphas, grad_mu_0


forward_op = torch.library.custom_op("karui::statistical_recurrence_triton", _forward, mutates_args=())
backward_op = torch.library.custom_op(
    "karui::statistical_recurrence_triton_backward", _gradients, mutates_args=()
)


@forward_op.register_fake
def _(projected, weight_r, bias_r, weight_phi, alphas, mu_0, padding_mask, activation, last_only, precise):  # noqa: ANN001, ANN202, ARG001
    T, B, P = projected.shape
    new = projected.new_empty
    R = 0 if weight_r is None else len(weight_r)
    mu = new(0 if last_only else T, B, len(alphas) * P)
    return mu, torch.empty_like(mu_0), torch.empty_like(projected), new(T, B, R)


@backward_op.register_fake
def _(*given):  # noqa: ANN002, ANN202
    _, _, weight_r, weight_phi, alphas, mu_0, _, phi, r, _, grad_alphas_wanted, _ = given
    new = phi.new_empty
    grad_alphas = new(len(alphas) if grad_alphas_wanted else 0)
    if weight_r is None:
        return torch.empty_like(phi), new(0), new(0), new(0), grad_alphas, torch.empty_like(mu_0)
    weights = torch.empty_like(weight_r), new(r.shape[2]), torch.empty_like(weight_phi)
    return torch.empty_like(phi), *weights, grad_alphas, torch.empty_like(mu_0)


def _setup(ctx: Any, inputs: tuple, output: tuple) -> None:
    *tensors, ctx.activation, ctx.last_only, ctx.precise = inputs
    ctx.save_for_backward(*tensors, *output[2:])
    ctx.mark_non_differentiable(*output[2:])
    ctx.set_materialize_grads(False)


def _backward(ctx, grad_mu, grad_mu_n, _grad_phi, _grad_r):  # noqa: ANN001, ANN202
    *inputs, phi, r = ctx.saved_tensors
    projected, weight_r, _, weight_phi, alphas, mu_0, padding_mask = inputs
    grad_mu = None if ctx.last_only or grad_mu is None else grad_mu.contiguous()
    grad_mu_n = torch.zeros_like(mu_0) if grad_mu_n is None else grad_mu_n.contiguous()
    if torch.is_grad_enabled():  # gradients of these gradients will be asked for

        def again(*given: Any) -> tuple[Tensor, Tensor]:
            options = {"padding_mask": padding_mask, "activation": ACTIVATIONS[ctx.activation]}
            mu, mu_n = reference.statistical_recurrence(
                *given[:4], alphas=given[4], mu_0=given[5], last_only=ctx.last_only, **options
            )
            return (projected.new_zeros(()) if grad_mu is None else mu), mu_n

        outer = (projected.new_zeros(()) if grad_mu is None else grad_mu), grad_mu_n
        return *differentiable_gradients(again, inputs[:6], outer), *[None] * 4
    run = backward_op if torch.compiler.is_compiling() else _gradients
    given = (weight_r, weight_phi, alphas, mu_0, padding_mask, phi, r, ctx.activation)
    grads = run(grad_mu, grad_mu_n, *given, ctx.needs_input_grad[4], ctx.precise)
    wanted = zip(grads, inputs[:6], ctx.needs_input_grad, strict=False)
    found = [grad if tensor is not None and needed else None for grad, tensor, needed in wanted]
    return *found, *[None] * 4


forward_op.register_autograd(_backward, setup_context=_setup)


_eager = eager_twin(_forward, _setup, _backward)


def statistical_recurrence(
    projected: Tensor,
    weight_r: Tensor | None,
    bias_r: Tensor | None,
    weight_phi: Tensor | None,
    *,
    alphas: Tensor,
    mu_0: Tensor,
    padding_mask: Tensor | None,
    activation: str,
    last_only: bool,
) -> tuple[Tensor, Tensor]:
    """Shapes as in `karui.ops.statistical_recurrence`; CUDA tensors of 16 or 32 bits, computed in 32."""
    if reason := refusal(weight_phi, len(alphas), projected.dtype):
        raise ValueError(reason)
    dtype = projected.dtype
    tensors = [projected, weight_r, bias_r, weight_phi, alphas, mu_0]
    dense = [None if t is None else t.float().contiguous() for t in tensors]
    pads = None if padding_mask is None else padding_mask.contiguous()
    run: Any = forward_op if torch.compiler.is_compiling() else _eager
    precise = dtype == torch.float32
    mu, mu_n, _, _ = run(*dense, pads, ACTIVATIONS.index(activation), last_only, precise)
    mu_n = mu_n.to(dtype)
    return (mu_n[None] if last_only else mu.to(dtype)), mu_n
