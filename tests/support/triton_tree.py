"""Calls of `tree_path`, run by its Triton kernels in a process with the interpreter on.

python -m tests.support.triton_tree calls.pt results.pt
"""

import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from karui.ops.tree_path import build_huffman, reference, tree_path

SMALL = {"TILE": 64, "MOST_STEPS": 4, "COLUMNS": 16, "ROWS": 2, "PIECE": 4, "LEAVES": 32}


@dataclass
class Call:
    """N rows of H columns, each on the path of a class of V; numbers are first rounded to dtype."""

    sizes: tuple[int, int, int]
    dtype: torch.dtype
    sparse: bool = False
    has_bias: bool = True
    compiled: bool = False
    small: bool = True  # launches that cut even inputs as small as these

    def steps(self) -> dict[str, Tensor]:
        """Nodes, codes and offsets by the reference."""
        return dict(zip(("nodes", "codes", "offsets"), reference.leaf_paths(*self.tree()), strict=True))

    def tree(self) -> tuple[Tensor, Tensor, Tensor]:
        """Parents, depths and the classes asked for."""
        N, _, V = self.sizes
        generator = torch.Generator().manual_seed(V)
        parent, depth, _, _ = build_huffman(torch.randint(0, 1000, (V,), generator=generator))
        return parent, depth, torch.randint(V, (N,), generator=generator)

    def leaves(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Hidden, weight and bias in dtype."""
        N, H, V = self.sizes
        generator = torch.Generator().manual_seed(11)
        shapes = {"hidden": (N, H), "weight": (V - 1, H)} | ({"bias": (V - 1,)} if self.has_bias else {})
        numbers = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        return {name: x.to(self.dtype).to(dtype).requires_grad_() for name, x in numbers.items()}

    def run(
        self, implementation: str, dtype: torch.dtype | None = None, device: str = "cpu"
    ) -> dict[str, Tensor]:
        """Log-probabilities, gradients, and the ids of a sparse gradient."""
        given = {
            n: x.detach().to(device).requires_grad_() for n, x in self.leaves(dtype or self.dtype).items()
        }
        steps = {name: x.to(device) for name, x in self.steps().items()}

        tree = [x.to(device) for x in self.tree()]

        def call(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
            words: dict[str, Any] = {"sparse": self.sparse, "implementation": implementation}
            if not self.compiled or implementation != "triton":
                return tree_path(hidden, weight, bias, **steps, **words)
            from karui.ops.tree_path.triton import leaf_paths

            nodes, codes, offsets = leaf_paths(*tree)  # of a length that the graph does not know
            return tree_path(hidden, weight, bias, nodes=nodes, codes=codes, offsets=offsets, **words)

        if self.compiled and implementation == "triton":
            call = torch.compile(call, backend="aot_eager", fullgraph=True)
        log_prob = call(**given)
        slopes = torch.randn(len(log_prob), generator=torch.Generator().manual_seed(23))
        log_prob.backward(slopes.to(device, log_prob.dtype))
        found = {"log_prob": log_prob.detach()}
        found |= {f"grad_{name}": x.grad.to_dense() for name, x in given.items()}
        if self.sparse and implementation == "triton":
            found["ids"] = given["weight"].grad._indices()[0]
        return found


def edges_have_an_answer() -> None:
    words = {"implementation": "triton"}
    hidden, weight, bias = torch.randn(3, 4), torch.randn(1, 4, requires_grad=True), torch.randn(1)
    nothing = {"nodes": torch.zeros(0, dtype=torch.int32), "codes": torch.zeros(0, dtype=torch.uint8)}
    for sparse in (False, True):
        weight.grad = None
        log_prob = tree_path(
            hidden, weight, bias, **nothing, offsets=torch.zeros(4).long(), sparse=sparse, **words
        )
        assert log_prob.tolist() == [0.0, 0.0, 0.0]
        log_prob.sum().backward()
        assert weight.grad.to_dense().count_nonzero() == 0
    empty = tree_path(hidden[:0], weight, bias, **nothing, offsets=torch.zeros(1).long(), **words)
    assert empty.shape == (0,)
    steps = {"nodes": torch.zeros(2).int(), "codes": torch.tensor([0, 1]).byte(), "offsets": torch.arange(3)}
    for score, expected in ((1000.0, [0.0, -1000.0]), (-1000.0, [-1000.0, 0.0])):
        hidden = torch.full((2, 1), score, requires_grad=True)
        log_prob = tree_path(hidden, torch.ones(1, 1), None, **steps, **words)
        assert log_prob.tolist() == expected
        log_prob.sum().backward()
        assert hidden.grad.isfinite().all()
    mixed = torch.tensor([[torch.nan], [1.0]])
    log_prob = tree_path(mixed, torch.ones(1, 1), None, **steps, **words)
    assert log_prob.isnan().tolist() == [True, False]


def paths_are_those_of_the_reference(kernels: ModuleType) -> None:
    parent, depth, classes = Call((70, 1, 300), torch.float32).tree()
    for leaves in (classes, torch.arange(300)[::7], classes[:0]):
        pairs = zip(
            kernels.leaf_paths(parent, depth, leaves),
            reference.leaf_paths(parent, depth, leaves),
            strict=True,
        )
        for found, expected in pairs:
            assert torch.equal(found, expected)
            assert found.dtype == expected.dtype
    one = build_huffman(torch.ones(1, dtype=torch.int64))
    nodes, codes, offsets = kernels.leaf_paths(*one[:2], torch.zeros(3).long())
    assert (len(nodes), len(codes), offsets.tolist()) == (0, 0, [0, 0, 0, 0])


def gradients_of_gradients() -> None:
    call = Call((2, 1, 3), torch.float64)
    steps, given = call.steps(), tuple(call.leaves(torch.float64).values())
    assert torch.autograd.gradgradcheck(lambda *x: tree_path(*x, **steps, implementation="triton"), given)


def operators_agree_with_their_fakes(kernels: ModuleType) -> None:
    utilities = ("test_schema", "test_faketensor", "test_autograd_registration")
    for call in (Call((5, 3, 6), torch.float32), Call((5, 3, 6), torch.bfloat16, has_bias=False)):
        given, steps = call.leaves(call.dtype), call.steps()
        for save in (True, False):
            arguments = (given["hidden"], given["weight"], given.get("bias"), *steps.values(), save, False)
            torch.library.opcheck(kernels.forward_op, arguments, test_utils=utilities)
        hidden, nodes = given["hidden"].detach(), steps["nodes"]
        grad, slope = torch.randn(5), torch.randn(len(nodes))
        rows = torch.arange(5, dtype=torch.int32).repeat_interleave(steps["offsets"].diff())
        arrays = (grad, hidden, nodes, slope, rows)
        torch.library.opcheck(kernels.dense_op, (*arrays, 5), test_utils=utilities)
        torch.library.opcheck(kernels.sparse_op, arrays, test_utils=utilities)
    torch.library.opcheck(kernels.paths_op, call.tree(), test_utils=utilities)
    with FakeTensorMode(allow_non_fake_inputs=True):
        fakes = [torch.empty(5, 3), torch.empty(5, 3), None]
        assert tree_path(*fakes, **steps, implementation="triton").shape == (5,)


def main(calls: str, results: str) -> None:
    assert "torch._dynamo" not in sys.modules  # the import of an operation does not take seconds
    from karui.ops.tree_path import triton as kernels

    torch.use_deterministic_algorithms(True)  # fills fresh memory with NaN
    assert torch.empty(3).isnan().all()
    usual = {name: getattr(kernels, name) for name in SMALL}
    found = []
    for call in torch.load(calls, weights_only=False):
        for name, value in (SMALL if call.small else usual).items():
            setattr(kernels, name, value)
        found.append(call.run("triton"))
    edges_have_an_answer()
    paths_are_those_of_the_reference(kernels)
    gradients_of_gradients()
    operators_agree_with_their_fakes(kernels)
    torch.save(found, results)


if __name__ == "__main__":
    from tests.support import triton_tree  # the calls were pickled by this name, not as part of __main__

    triton_tree.main(*sys.argv[1:])
