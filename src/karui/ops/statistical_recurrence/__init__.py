"""Walk over time of the Statistical Recurrent Unit: its only sequential part. Derivation in README.md."""

import torch
from torch import Tensor

from karui.ops.statistical_recurrence import reference

IMPLEMENTATIONS = ("reference", "cpp", "triton")
ACTIVATIONS = tuple(reference.ACTIVATIONS)
COMPILED_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def statistical_recurrence(
    projected: Tensor,
    weight_r: Tensor | None,
    bias_r: Tensor | None,
    weight_phi: Tensor | None,
    *,
    alphas: Tensor,
    mu_0: Tensor,
    padding_mask: Tensor | None = None,
    activation: str = "relu",
    last_only: bool = False,
    implementation: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Moving averages of recurrent statistics at several scales (Oliva et al., ICML 2017, equations 7 to 9).

    With f the activation, r_t = f(W_r mu_{t-1} + b_r), phi_t = f(projected_t + W_phi r_t) and, for every alpha,
    mu_t = alpha mu_{t-1} + (1 - alpha) phi_t.

    projected (T, B, P): W_x x + b of P statistics. weight_r (R, A*P), bias_r (R,), weight_phi (P, R): the feedback
    through R recurrent statistics; all three None for none (the ablations "iid" and "multi").
    alphas (A,): decay a step of every scale, in [0, 1]; takes a gradient; float32 beside 16-bit tensors keeps 0.999
    from being 1. mu_0 (B, A*P): first averages, scale-major.
    padding_mask (T, B) bool: True marks a step that changes nothing, whatever stands there (NaN too), and gets no
    gradient; mu repeats the last averages there. activation: "relu", "elu" or "tanh".
    last_only: mu is then (1, B, A*P), the last averages, and the steps between take no memory.
    implementation: "reference", "cpp", "triton" or None for the fastest one that this device and dtype have. Compiled
    ones run 16-bit tensors in float32 inside. Gradients of gradients go through the reference.

    Returns mu (T, B, A*P) and mu_n (B, A*P). Raises ValueError on shapes that do not fit or an unknown word.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {ACTIVATIONS}, got {activation!r}")
    _check(projected, (weight_r, bias_r, weight_phi), alphas, mu_0, padding_mask)
    options = {"alphas": alphas, "mu_0": mu_0, "padding_mask": padding_mask}
    options |= {"activation": activation, "last_only": last_only}
    choice = _choose(projected, weight_phi, len(alphas), implementation)
    if choice == "cpp":
        from karui.ops.statistical_recurrence import cpu as chosen
    elif choice == "triton":
        from karui.ops.statistical_recurrence import triton as chosen
    else:
        chosen = reference
    return chosen.statistical_recurrence(projected, weight_r, bias_r, weight_phi, **options)


def _choose(projected: Tensor, weight_phi: Tensor | None, A: int, implementation: str | None) -> str:
    if implementation not in (None, *IMPLEMENTATIONS):
        raise ValueError(f"implementation must be None or one of {IMPLEMENTATIONS}, got {implementation!r}")
    compiled = projected.device.type == "cpu" and projected.dtype in COMPILED_DTYPES
    if implementation == "cpp" and not compiled:
        raise ValueError(
            f"implementation 'cpp' needs a CPU tensor of 16, 32 or 64 bits, got {projected.dtype} on "
            f"{projected.device}; move it there or choose 'reference'"
        )
    if implementation == "triton" or (implementation is None and projected.is_cuda):
        from karui.ops import triton_launch  # loads torch's compiler

        if implementation == "triton":
            triton_launch.check_can_run(projected)
        elif triton_launch.runs_by_itself(projected):
            from karui.ops.statistical_recurrence import triton

            return "reference" if triton.refusal(weight_phi, A, projected.dtype) else "triton"
    one_step = projected.shape[0] == 1 and projected.dtype in (torch.float32, torch.float64)
    # A single step (streaming) is over before the compiled walk has packed its weights.
    return implementation or ("cpp" if compiled and not one_step else "reference")


def _check(
    projected: Tensor,
    feedback: tuple[Tensor | None, Tensor | None, Tensor | None],
    alphas: Tensor,
    mu_0: Tensor,
    padding_mask: Tensor | None,
) -> None:
    if projected.dim() != 3:
        raise ValueError(f"projected must be (T, B, P), got {tuple(projected.shape)}")
    if alphas.dim() != 1 or not len(alphas):
        raise ValueError(f"alphas must be (A,) with A at least 1, got {tuple(alphas.shape)}")
    T, B, P = projected.shape
    A = len(alphas)
    expected = {"alphas": (alphas, (A,)), "mu_0": (mu_0, (B, A * P))}
    weight_r, bias_r, weight_phi = feedback
    if weight_r is not None and bias_r is not None and weight_phi is not None:
        R = len(weight_r)
        expected |= {"weight_r": (weight_r, (R, A * P)), "bias_r": (bias_r, (R,))}
        expected |= {"weight_phi": (weight_phi, (P, R))}
    elif feedback != (None, None, None):
        raise ValueError("weight_r, bias_r and weight_phi must be given together or all be None")
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"{name} must have shape {shape} to go with projected {tuple(projected.shape)} and {A} alphas, "
                f"got {tuple(tensor.shape)}"
            )
        if tensor.dtype != projected.dtype and not (name == "alphas" and tensor.dtype == torch.float32):
            raise ValueError(
                f"{name} must have the dtype of projected, {projected.dtype}, got {tensor.dtype}"
            )
    if padding_mask is not None and (tuple(padding_mask.shape) != (T, B) or padding_mask.dtype != torch.bool):
        raise ValueError(
            f"padding_mask must be bool of shape {(T, B)}, got {padding_mask.dtype} of "
            f"{tuple(padding_mask.shape)}"
        )
