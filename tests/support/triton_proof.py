"""Calls of recurrent operations for two processes: pytest, and one in which Triton's interpreter is on.

The interpreter has to be on before Triton is imported, so the kernels run in a process of their own:

    python -m tests.support.triton_proof calls.pt results.pt
"""

import importlib
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.support.kernel_proof import assert_as_exact_as_plain

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Call:
    """One call of `karui.ops.<op>.<op>`: leaves take a gradient, options do not; the loss has random weights."""

    op: str
    positional: dict[str, Tensor | None]
    named: dict[str, Tensor]
    options: dict[str, Any]
    dtype: torch.dtype
    compiled: bool = False
    launch: dict[str, int] = field(default_factory=dict)  # constants of the op's triton.py for this call

    def run(self, implementation: str, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Outputs and gradients in `dtype`; the numbers are first rounded to the call's own."""
        kind = dtype or self.dtype

        def cast(tensor: Any) -> Any:
            if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
                return tensor
            return tensor.detach().to(self.dtype).to(kind)

        leaves = {name: cast(tensor) for name, tensor in (self.positional | self.named).items()}
        for leaf in leaves.values():
            if leaf is not None:
                leaf.requires_grad_()
        options = {name: cast(value) for name, value in self.options.items()}
        function = getattr(importlib.import_module(f"karui.ops.{self.op}"), self.op)

        def call() -> tuple[Tensor, Tensor]:
            positional = [leaves[name] for name in self.positional]
            named = {name: leaves[name] for name in self.named}
            return function(*positional, **named, **options, implementation=implementation)

        if self.compiled and implementation == "triton":
            call = torch.compile(call, backend="aot_eager", fullgraph=True)
        outputs = call()
        generator = torch.Generator().manual_seed(23)
        loss = sum((o * cast(torch.randn(o.shape, generator=generator))).sum() for o in outputs)
        loss.backward()
        found = {"output": outputs[0].detach(), "last_state": outputs[1].detach()}
        return found | {f"grad_{name}": leaf.grad for name, leaf in leaves.items() if leaf is not None}


def run_in_interpreter(calls: list[Call], folder: Path) -> list[dict[str, Tensor]]:
    """Results of all calls by Triton kernels, fresh memory filled with NaN."""
    torch.save(calls, folder / "calls.pt")
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.triton_proof", folder / "calls.pt", folder / "results.pt"],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(folder / "results.pt", weights_only=False)


def prove(call: Call, fused: dict[str, Tensor]) -> None:
    """Compare every output and gradient with the reference in the call's dtype and in fp64."""
    plain, truth = call.run("reference"), call.run("reference", torch.float64)
    assert fused.keys() == plain.keys()
    for name, tensor in fused.items():
        assert_as_exact_as_plain(name, tensor, plain[name], truth[name])


def main(calls: str, results: str) -> None:
    """Run the pickled calls; the constants of a call hold for it alone."""
    torch.use_deterministic_algorithms(True)  # fills fresh memory with NaN
    assert torch.empty(3).isnan().all()
    found = []
    for call in torch.load(calls, weights_only=False):
        module = importlib.import_module(f"karui.ops.{call.op}.triton")
        usual = {name: getattr(module, name) for name in call.launch}
        for name, value in call.launch.items():
            setattr(module, name, value)
        found.append(call.run("triton"))
        for name, value in usual.items():
            setattr(module, name, value)
    torch.save(found, results)


if __name__ == "__main__":
    from tests.support import triton_proof  # the calls were pickled by this name, not as part of __main__

    triton_proof.main(*sys.argv[1:])
