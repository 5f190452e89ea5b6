"""What the published `sru` package 2.6.0 computed in float64, case by case: outputs, last states, every gradient.

The files hold its weights under its own names, so each case also proves the converter, in both directions.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from karui.nn import SRU
from karui.nn.convert import sru_from_package, sru_to_package, state_from_package, state_to_package

FILES = sorted((Path(__file__).resolve().parent.parent / "golden" / "oracles").glob("sru260_*.npz"))
ALLOWED = {torch.float64: 1e-10, torch.float32: 1e-5}

every_oracle = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem.removeprefix("sru260_"))


class Oracle(NamedTuple):
    """One configuration and what the package made of it."""

    config: dict[str, Any]
    arrays: dict[str, Tensor]

    def named(self, start: str) -> dict[str, Tensor]:
        return {key.removeprefix(start): value for key, value in self.arrays.items() if key.startswith(start)}

    def convert(self, state: dict[str, Tensor]) -> SRU:
        """Says only what a checkpoint does not tell."""
        layer_norm = "post" if self.config.get("normalize_after") else None
        return sru_from_package(
            state,
            bidirectional=self.config.get("bidirectional", False),
            variant="v1" if self.config.get("v1") else "v2",
            activation="tanh" if self.config.get("use_tanh") else "identity",
            has_skip_term=self.config.get("has_skip_term", True),
            layer_norm=layer_norm if self.config.get("layer_norm") else None,
        )


def read(path: Path, dtype: torch.dtype = torch.float64) -> Oracle:
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: torch.from_numpy(file[key]).to(dtype) for key in file.files if key != "config"}
        return Oracle(json.loads(str(file["config"])), arrays)


def check(name: str, found: Tensor | None, expected: Tensor) -> None:
    assert found is not None, name
    assert found.shape == expected.shape, name
    error = (found - expected).abs().max().item() / max(1.0, expected.abs().max().item())
    assert error <= ALLOWED[expected.dtype], f"{name}: {error:.1e}"


def test_the_oracles_are_here() -> None:
    assert len(FILES) == 11


@every_oracle
@pytest.mark.parametrize("implementation", ["reference", "cpp"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["fp64", "fp32"])
def test_outputs_states_and_gradients(path: Path, implementation: str, dtype: torch.dtype) -> None:
    oracle = read(path, dtype)
    of, two = oracle.arrays, oracle.config.get("bidirectional", False)
    layer = oracle.convert(oracle.named("state."))
    layer.implementation = implementation
    x = of["input"].clone().requires_grad_()
    c_0 = state_from_package(of["c_0"], bidirectional=two).clone().requires_grad_()
    mask = of["padding_mask"].t() == 1 if "padding_mask" in of else None
    output, c_n = layer(x, c_0, padding_mask=mask)
    check("output", output.detach(), of["output"])
    check("c_n", state_to_package(c_n.detach(), bidirectional=two), of["c_n"])
    upstream_c_n = state_from_package(of["upstream_c_n"], bidirectional=two)
    ((output * of["upstream_output"]).sum() + (c_n * upstream_c_n).sum()).backward()
    check("grad_input", x.grad, of["grad_input"])
    check("grad_c_0", state_to_package(c_0.grad, bidirectional=two), of["grad_c_0"])
    # A gradient has the layout of its weight, so the converter reads it too; the package froze what is not there.
    like = {key: torch.zeros_like(value) for key, value in oracle.named("state.").items()}
    expected = dict(oracle.convert(like | oracle.named("grad.")).named_parameters())
    for name, parameter in layer.named_parameters():
        check(f"grad {name}", parameter.grad, expected[name].detach())
    with torch.no_grad():
        again, _ = layer.eval()(x, c_0, padding_mask=mask)
    assert torch.equal(again, output)


@every_oracle
@pytest.mark.parametrize("version", ["2.6", "3.0"])
def test_a_checkpoint_comes_back_as_it_was(path: Path, version: str) -> None:
    oracle = read(path)
    layer = oracle.convert(oracle.named("state."))
    back = sru_to_package(layer, version=version)
    if version == "2.6":
        assert back.keys() == oracle.named("state.").keys()
        assert all(torch.equal(back[key], value) for key, value in oracle.named("state.").items())
    again = oracle.convert(back)
    assert repr(again) == repr(layer)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), layer.parameters(), strict=True))
