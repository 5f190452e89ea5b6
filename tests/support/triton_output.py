"""Calls of the operations of output layers, run by their Triton kernels in a process with the interpreter on.

python -m tests.support.triton_output calls.pt results.pt
"""

import sys

import torch
from torch import Tensor

from karui.ops.row_update import row_adagrad_, sum_rows
from karui.ops.sampled_logits import sampled_logits
from karui.output.fused import Terms, fused_losses


def sampled(given: dict, term: str, implementation: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Value and gradients of `sampled_logits`, in `dtype`; offset and first are float32 at least."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    leaves = {}
    for name, tensor in given.items():
        if tensor is not None and tensor.is_floating_point():
            tensor = tensor.to(dtype if name in ("hidden", "rows") else wide).detach().requires_grad_()
        leaves[name] = tensor
    value = sampled_logits(**leaves, term=term, implementation=implementation)
    weights = torch.randn(len(value), generator=torch.Generator().manual_seed(23))
    value.backward(weights.to(wide))
    found = {"value": value.detach()}
    return found | {f"grad_{n}": t.grad for n, t in leaves.items() if t is not None and t.requires_grad}


def rows(given: dict, implementation: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Table and state after row-wise Adagrad, and the sums of the rows; the state is float32 at least."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    own = {n: t.to(dtype if t.is_floating_point() else t.dtype).clone() for n, t in given.items()}
    own["sum_of_squares"] = own["sum_of_squares"].to(wide)
    row_adagrad_(**own, lr=0.3, implementation=implementation)
    found, total = sum_rows(own["ids"], own["values"], implementation=implementation)
    return {"weight": own["weight"], "sum_of_squares": own["sum_of_squares"], "ids": found, "total": total}


def losses(given: dict, words: dict, implementation: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Losses of a layer and their gradients, products in `dtype`: rows gathered, two sets of noise words."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    leaves = {n: t.to(wide).detach().requires_grad_() for n, t in given.items() if t.is_floating_point()}
    table = (leaves["hidden"], leaves["weight"], leaves["bias"], given["target"], given["noise"])
    terms = Terms(**words, of_target=leaves["of_target"], of_noise=leaves["of_noise"])
    value = fused_losses(*table, terms, sparse=True, form=implementation, dtype=dtype)
    weights = torch.randn(len(value), generator=torch.Generator().manual_seed(23))
    value.backward(weights.to(wide))
    return {"value": value.detach()} | {f"grad_{n}": t.grad.to_dense() for n, t in leaves.items()}


def run(call: tuple, implementation: str, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """call: ("sampled", dtype, inputs, term), ("losses", ..., words of Terms), ("rows", dtype, inputs)."""
    kind, own, given, *words = call
    given = {
        name: t.to(own).float() if t is not None and t.is_floating_point() and own != torch.float64 else t
        for name, t in given.items()
    }
    if kind == "rows":
        return rows(given, implementation, dtype or own)
    if kind == "losses":
        return losses(given, *words, implementation, dtype or own)
    return sampled(given, *words, implementation, dtype or own)


def main(calls: str, results: str) -> None:
    from karui.ops.sampled_logits import triton as kernels

    kernels.BLOCK_N = kernels.BLOCK_K = 32  # of inputs as small as these
    kernels.BLOCK_H = 16
    torch.use_deterministic_algorithms(True)  # fills fresh memory with NaN
    found = [run(call, "triton") for call in torch.load(calls, weights_only=False)]
    empty = torch.zeros(0, 4)
    value = sampled_logits(empty, torch.ones(3, 4), torch.zeros(3), implementation="triton")
    assert value.shape == (0,)
    assert sum_rows(torch.zeros(0, dtype=torch.int64), empty, implementation="triton")[1].shape == (0, 4)
    utilities = ("test_schema", "test_faketensor", "test_autograd_registration")
    x, w, o = (torch.randn(*s, requires_grad=True) for s in ((5, 4), (3, 4), (3,)))
    torch.library.opcheck(kernels.forward_op, (x, w, o, None, None, None, 1), test_utils=utilities)
    torch.save(found, results)


if __name__ == "__main__":
    main(*sys.argv[1:])
