"""Which implementation of an operation runs: the caller's word, or the fastest that the tensor allows."""

import torch
from torch import Tensor, nn

HALVES = (torch.bfloat16, torch.float16)
FULL_DTYPES = (torch.float32, torch.float64)
COMPILED_DTYPES = (*FULL_DTYPES, *HALVES)  # 16 bits by float32 arithmetic inside


def choose_implementation(
    tensor: Tensor,
    implementation: str | None,
    known: tuple[str, ...],
    *,
    dtypes: tuple[torch.dtype, ...] = COMPILED_DTYPES,
) -> str:
    """Return one of `known` for a tensor; raise ValueError with the remedy where a named one cannot run on it.

    dtypes: those that "cpp" takes, `COMPILED_DTYPES` or `FULL_DTYPES`.
    """
    if implementation is not None and implementation not in known:
        raise ValueError(f"implementation must be None or one of {known}, got {implementation!r}")
    compiled = tensor.device.type == "cpu" and tensor.dtype in dtypes
    if implementation == "cpp" and not compiled:
        kind = "float32 or float64" if dtypes == FULL_DTYPES else "floating-point"
        raise ValueError(
            f"implementation 'cpp' needs a {kind} CPU tensor, got {tensor.dtype} on {tensor.device}; "
            "move it with .cpu() or choose 'reference'"
        )
    if implementation == "triton":
        from karui.ops import triton_launch

        triton_launch.check_can_run(tensor)
    if implementation is not None:
        return implementation
    if compiled:
        return "cpp"
    if "triton" in known and tensor.is_cuda:
        from karui.ops import triton_launch

        return "triton" if triton_launch.runs_by_itself(tensor) else "reference"
    return "reference"


def is_traced(*tensors: Tensor) -> bool:
    """Tell whether a compiler or an exporter is looking, who must see an operator and gives tensors without memory."""
    return torch.compiler.is_compiling() or any(
        type(tensor) not in (Tensor, nn.Parameter) for tensor in tensors
    )
