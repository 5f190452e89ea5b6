"""Sampled layers on a GPU: the kernels are asked, and give the losses and gradients of plain operations."""

import pytest
import torch

from karui.output.fused import fused_form
from karui.output.registry import build_output
from tests.support.kernel_proof import assert_as_exact_as_plain

pytestmark = pytest.mark.gpu
V, H, K, N = 5000, 256, 300, 130


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "name", ["importance", "importance-target", "sampled", "nce", "negative", "blackout"]
)
def test_as_exact_as_plain(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"num_samples": K, "num_splits": 2}
    layer = build_output(name, H, torch.arange(V) % 977, sparse=True, options=options).cuda().to(dtype)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(V, H, generator=generator) / 16)
    hidden = torch.randn(N, H, generator=generator).cuda().to(dtype)
    target = torch.randint(V, (N,), generator=generator).cuda()
    noise = torch.randint(V, (2, K), generator=generator).cuda()
    noise[0, :5], noise[1, :5] = target[:5], target[-5:]
    monkeypatch.setattr(layer, "_draw", lambda _: (noise, None))
    assert fused_form(hidden, layer.weight, dtype) == "triton"

    def run(kind: torch.dtype, form: str | None) -> dict[str, torch.Tensor]:
        monkeypatch.setattr("karui.output.flat.fused_form", lambda *_: form)
        layer.to(kind).zero_grad()
        x = hidden.to(kind).requires_grad_()
        losses = layer(x, target, reduction="none")
        losses.sum().backward()
        grads = {"weight": layer.weight.grad.to_dense(), "bias": layer.bias.grad.to_dense(), "hidden": x.grad}
        return {"losses": losses.detach(), **grads}

    fused, plain = run(dtype, "triton"), run(dtype, None)
    truth = run(torch.float64, None)
    for tensor, found in fused.items():
        assert_as_exact_as_plain(tensor, found, plain[tensor], truth[tensor])
