"""The compiled walk, registered as the custom operators `karui::statistical_recurrence` and its backward.

T time, B batch, P statistics, R recurrent statistics (0: no feedback), A scales.
"""

from typing import Any

import torch
from torch import Tensor

from karui import _native
from karui.ops.choice import is_traced
from karui.ops.double_backward import differentiable_gradients
from karui.ops.eager import addresses, eager_twin
from karui.ops.statistical_recurrence import reference

ACTIVATIONS = tuple(reference.ACTIVATIONS)  # in the order of the native enumeration


def _sizes(projected: Tensor, weight_phi: Tensor | None, alphas: Tensor, activation: int) -> Any:
    R = 0 if weight_phi is None else weight_phi.shape[1]
    return _native.StatisticalSizes(*projected.shape, R, len(alphas), activation, torch.get_num_threads())


def _empty_outputs(
    projected: Tensor, weight_phi: Tensor | None, mu_0: Tensor, last_only: bool, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    T, B, P = projected.shape
    R = 0 if weight_phi is None else weight_phi.shape[1]
    steps = 0 if last_only else T
    kept = T if keep else 0
    new = projected.new_empty
    return new(steps, *mu_0.shape), torch.empty_like(mu_0), new(kept, B, P), new(kept, B, R)


def run_forward(
    projected: Tensor,
    weight_r: Tensor | None,
    bias_r: Tensor | None,
    weight_phi: Tensor | None,
    alphas: Tensor,
    mu_0: Tensor,
    padding_mask: Tensor | None,
    activation: int,
    last_only: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Contiguous inputs of one dtype; returns mu (T, B, A*P), or (0, B, A*P) with last_only, and mu_n (B, A*P), then
    phi (T, B, P) and r (T, B, R), which the backward pass needs and which have no steps unless `keep`.
    """
    outputs = _empty_outputs(projected, weight_phi, mu_0, last_only, keep)
    mu, mu_n, phi, r = outputs
    sizes = _sizes(projected, weight_phi, alphas, activation)
    scratch = projected.new_empty(sizes.forward_scratch)
    inputs = (projected, weight_r, bias_r, weight_phi, alphas, mu_0, padding_mask)
    kept = (phi, r) if keep else (None, None)
    arrays = addresses(*inputs, None if last_only else mu, mu_n, *kept, scratch)
    _native.statistical_forward(sizes, projected.dtype == torch.float64, arrays)
    return outputs


# Autograd knows the plain functions through _eager, a compiler knows them as operators: those cost more a call, and the
# first call of one loads torch's compiler, for seconds.
forward_op = torch.library.custom_op(
    "karui::statistical_recurrence", run_forward, mutates_args=(), device_types="cpu"
)


@forward_op.register_fake
def _(projected, weight_r, bias_r, weight_phi, alphas, mu_0, padding_mask, activation, last_only, keep):  # noqa: ANN001, ANN202, ARG001
    return _empty_outputs(projected, weight_phi, mu_0, last_only, keep)


def run_backward(
    grad_mu: Tensor | None,
    grad_mu_n: Tensor | None,
    weight_r: Tensor | None,
    weight_phi: Tensor | None,
    alphas: Tensor,
    mu_0: Tensor,
    padding_mask: Tensor | None,
    phi: Tensor,
    r: Tensor,
    activation: int,
    grad_alphas_wanted: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of projected, weight_r, bias_r, weight_phi, alphas and mu_0; empty where there is no such tensor.

    The letters are those of README.md: pre is the gradient before an activation, e_0 and z_0 the two parts of the
    first state's gradient, z the factor of phi in the gradient of weight_r.
    """
    T, B, P = phi.shape
    R, A = r.shape[2], len(alphas)
    sizes = _sizes(phi, weight_phi, alphas, activation)
    double = phi.dtype == torch.float64
    new = phi.new_empty
    pre_phi, pre_r, z, e_0, z_0 = (
        torch.empty_like(phi),
        torch.empty_like(r),
        new(T, B, A * R),
        new(mu_0.shape),
        new(B, A * R),
    )
    scratch = new(sizes.backward_scratch)
    given = (weight_r, weight_phi, alphas, padding_mask, phi, r, grad_mu, grad_mu_n)
    _native.statistical_backward(sizes, double, addresses(*given, pre_phi, pre_r, z, e_0, z_0, scratch))

    grad_alphas = new(0)
    if grad_alphas_wanted:
        part, scratch = new(B, A), new(B, 2, max(P, R))
        given = (phi, grad_mu, grad_mu_n, mu_0, alphas, padding_mask, scratch, part)
        _native.statistical_alpha_slope(sizes, double, False, addresses(*given))
        grad_alphas = part.sum(0)
    if weight_r is None or weight_phi is None:
        return pre_phi, new(0), new(0), new(0), grad_alphas, e_0

    by_scale = weight_r.view(R, A, P).transpose(0, 1).reshape(A * R, P)  # rows scale-major, as in z
    if grad_alphas_wanted:
        y = phi.view(T * B, P) @ by_scale.T  # W_r phi_t, scale by scale
        y_0 = torch.einsum("rap,bap->bar", weight_r.view(R, A, P), mu_0.view(B, A, P)).contiguous()
        given = (y, pre_r, None, y_0, alphas, padding_mask, scratch, part)
        _native.statistical_alpha_slope(sizes, double, True, addresses(*given))
        grad_alphas = grad_alphas + part.sum(0)
    z_0 = z_0.view(B, A, R)
    over_time = (phi.view(T * B, P).T @ z.view(T * B, A * R)).view(P, A, R).permute(2, 1, 0)
    grad_weight_r = over_time + torch.einsum("bar,bap->rap", z_0, mu_0.view(B, A, P))
    grad_weight_phi = pre_phi.view(T * B, P).T @ r.view(T * B, R)
    grad_mu_0 = e_0.view(B, A, P) + torch.einsum("bar,rap->bap", z_0, weight_r.view(R, A, P))
    return (
        pre_phi,
        grad_weight_r.reshape(R, A * P),
        pre_r.sum((0, 1)),
        grad_weight_phi,
        grad_alphas,
        grad_mu_0.view(B, A * P),
    )


backward_op = torch.library.custom_op(
    "karui::statistical_recurrence_backward", run_backward, mutates_args=(), device_types="cpu"
)


@backward_op.register_fake
def _(*given):  # noqa: ANN002, ANN202
    _, _, weight_r, weight_phi, alphas, mu_0, _, phi, r, _, grad_alphas_wanted = given
    new = phi.new_empty
    feedback = (
        (new(0), new(0), new(0))
        if weight_r is None
        else (torch.empty_like(weight_r), new(r.shape[2]), torch.empty_like(weight_phi))
    )
    return (
        torch.empty_like(phi),
        *feedback,
        new(len(alphas) if grad_alphas_wanted else 0),
        torch.empty_like(mu_0),
    )


def _setup(ctx, inputs, output) -> None:  # noqa: ANN001
    *tensors, ctx.activation, ctx.last_only, _ = inputs
    ctx.save_for_backward(*tensors, *output[2:])
    ctx.mark_non_differentiable(*output[2:])
    ctx.set_materialize_grads(False)  # zeros for the states would cost as much as the output


def _backward(ctx, grad_mu, grad_mu_n, _grad_phi, _grad_r):  # noqa: ANN001, ANN202
    *inputs, phi, r = ctx.saved_tensors
    _, weight_r, _, weight_phi, alphas, mu_0, padding_mask = inputs
    if ctx.last_only:
        grad_mu = None  # mu has no steps
    if torch.is_grad_enabled():  # gradients of these gradients will be asked for

        def again(*given: Any) -> tuple[Tensor, Tensor]:
            options = {"padding_mask": padding_mask, "activation": ACTIVATIONS[ctx.activation]}
            return reference.statistical_recurrence(
                *given[:4], alphas=given[4], mu_0=given[5], last_only=ctx.last_only, **options
            )

        return *differentiable_gradients(again, inputs[:6], (grad_mu, grad_mu_n)), None, None, None, None
    dense = [None if g is None else g.contiguous() for g in (grad_mu, grad_mu_n)]
    given = (weight_r, weight_phi, alphas, mu_0, padding_mask, phi, r)
    run: Any = backward_op if is_traced(phi) else run_backward
    grads = run(*dense, *given, ctx.activation, ctx.needs_input_grad[4])
    wanted = zip(grads, inputs[:6], ctx.needs_input_grad, strict=False)
    found = [grad if tensor is not None and needed else None for grad, tensor, needed in wanted]
    return (*found, None, None, None, None)


forward_op.register_autograd(_backward, setup_context=_setup)


_eager = eager_twin(run_forward, _setup, _backward)


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
    """Shapes as in `karui.ops.statistical_recurrence`; a CPU tensor, 16-bit ones by way of float32."""
    dtype = projected.dtype
    tensors = [projected, weight_r, bias_r, weight_phi, alphas, mu_0]
    if dtype == torch.float64:
        tensors[4] = alphas.double()
    elif dtype != torch.float32:
        tensors = [None if t is None else t.float() for t in tensors]  # long averages vanish in 16 bits
    dense = [None if t is None else t.contiguous() for t in (*tensors, padding_mask)]
    keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    run: Any = forward_op if is_traced(projected) else _eager if keep else run_forward
    mu, mu_n, _, _ = run(*dense, ACTIVATIONS.index(activation), last_only, keep)
    mu_n = mu_n.to(dtype)
    return (mu_n[None] if last_only else mu.to(dtype)), mu_n
