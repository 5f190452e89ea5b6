"""What the Triton kernels share: who may run them, on which device, with which number types.

Nothing here or in `karui` imports Triton before a kernel is asked for; `import karui` works without it.
"""

import sys
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# Triton 3.9 warns where this is not said; a product and the sum behind it in one rounding is what we count on.
COMPILE_OPTIONS: dict[str, Any] = {"enable_fp_fusion": True}


@torch.compiler.assume_constant_result
def is_installed() -> bool:
    """Tell whether the package `triton` can be imported; it is not imported."""
    return "triton" in sys.modules or find_spec("triton") is not None


@torch.compiler.assume_constant_result
def _interpreter_is_on() -> bool:
    from triton import knobs

    return bool(knobs.runtime.interpret)


def runs_by_itself(tensor: Tensor) -> bool:
    """Tell whether `implementation=None` means Triton for this tensor: on a GPU, where Triton is installed."""
    return tensor.is_cuda and tensor.dtype in DTYPES and is_installed()


def check_can_run(tensor: Tensor) -> None:
    """Raise ValueError with the remedy where a Triton kernel that was asked for by name cannot run.

    On the CPU the kernels run in Triton's interpreter only (TRITON_INTERPRET=1 before the first use): slow, for tests.
    """
    if not is_installed():
        raise ValueError("implementation 'triton' needs the package triton: install karui[gpu] (Linux)")
    if tensor.dtype not in DTYPES:
        raise ValueError(f"implementation 'triton' needs a floating-point tensor, got {tensor.dtype}")
    if tensor.is_cuda:
        return
    if tensor.device.type != "cpu" or not _interpreter_is_on():
        raise ValueError(
            f"implementation 'triton' needs a CUDA tensor, got one on {tensor.device}: move it there, "
            "or leave implementation out"
        )


def on_device_of(tensor: Tensor) -> AbstractContextManager[object]:
    """Make the tensor's GPU the current one, on which Triton launches; nothing where it is already."""
    if tensor.is_cuda and tensor.device.index != torch.cuda.current_device():
        return torch.cuda.device(tensor.device)
    return nullcontext()
