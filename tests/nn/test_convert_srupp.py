"""SRU++ against the `sru` package's branch 3.0.0-dev (c2d44e6): two calls in a row, states and every gradient.

The files hold what the package computed in float64 on a CPU by its plain code, its weights under its own names.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from karui.nn import SRU
from karui.nn.convert import sru_to_package, state_from_package, state_to_package
from karui.nn.convert_srupp import srupp_from_package, srupp_to_package
from karui.nn.srupp import SRUpp

FILES = sorted((Path(__file__).resolve().parent.parent / "golden" / "oracles").glob("srupp3dev_*.npz"))
every_oracle = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem.removeprefix("srupp3dev_"))


def read(path: Path) -> tuple[dict, dict[str, Tensor]]:
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files if key != "config"}
        return json.loads(str(file["config"])), arrays


def named(arrays: dict[str, Tensor], start: str) -> dict[str, Tensor]:
    return {key.removeprefix(start): value for key, value in arrays.items() if key.startswith(start)}


def convert(config: dict, state: dict[str, Tensor]) -> SRUpp:
    options = {
        name: config[name]
        for name in ("num_heads", "bidirectional", "causal", "memory_len")
        if name in config
    }
    norm = ("post" if config.get("normalize_after") else "pre") if config.get("layer_norm") else None
    return srupp_from_package(state, layer_norm=norm, **options)


def check(name: str, found: Tensor | None, expected: Tensor) -> None:
    assert found is not None, name
    assert (found - expected).abs().max() <= 1e-10 * max(1.0, expected.abs().max().item()), name


def test_the_oracles_are_here() -> None:
    assert len(FILES) == 3


@pytest.mark.parametrize("implementation", ["reference", None])
@every_oracle
def test_outputs_states_and_gradients(path: Path, implementation: str | None) -> None:
    config, of = read(path)
    layer, two = convert(config, named(of, "state.")), config.get("bidirectional", False)
    layer.implementation = implementation
    x, y, c_0 = (of[key].clone().requires_grad_() for key in ("input", "next_input", "c_0"))
    first = state_from_package(c_0, bidirectional=two)
    if layer.memory_len:
        empty = layer(x.detach()[:0])[1]
        first = (first, *empty[1:])
    output, state = layer(x, first)
    next_output, last = layer(y, state)
    c_n = state_to_package(last[0] if layer.memory_len else last, bidirectional=two)
    check("output", output, of["output"])
    check("next_output", next_output, of["next_output"])
    check("c_n", c_n, of["c_n"])
    loss = (output * of["upstream_output"]).sum() + (next_output * of["upstream_next_output"]).sum()
    (loss + (c_n * of["upstream_c_n"]).sum()).backward()
    for name, tensor in (("input", x), ("next_input", y), ("c_0", c_0)):
        check(f"grad {name}", tensor.grad, of[f"grad_{name}"])
    expected = dict(convert(config, named(of, "state.") | named(of, "grad.")).named_parameters())
    for name, parameter in layer.named_parameters():
        check(f"grad {name}", parameter.grad, expected[name].detach())


@every_oracle
def test_a_checkpoint_comes_back_as_it_was(path: Path) -> None:
    config, of = read(path)
    state, back = named(of, "state."), srupp_to_package(convert(config, named(of, "state.")))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], value) for key, value in state.items())


def test_what_does_not_fit_is_refused() -> None:
    state = srupp_to_package(SRUpp(5, 3, 2, attention_size=4))
    with pytest.raises(ValueError, match="needs an even width, the checkpoint has 3"):
        srupp_from_package(state, bidirectional=True)
    with pytest.raises(ValueError, match="layer_norm='pre', but the checkpoint has no layer_norm"):
        srupp_from_package(state, layer_norm="pre")
    with pytest.raises(ValueError, match="layer 1 of the checkpoint does not fit: weight_kv_l1"):
        srupp_from_package(state | {"rnn_lst.1.transform_module.linear2.weight": torch.zeros(3, 4)})
    with pytest.raises(ValueError, match="layer 0 is not of an SRUpp"):
        srupp_from_package(sru_to_package(SRU(3, 4)))
    with pytest.raises(ValueError, match="no key starts with 'rnn_lst.'"):
        srupp_from_package({})
    without = {name: value for name, value in state.items() if "alpha" not in name}
    with pytest.raises(ValueError, match="attention must be in every n-th layer"):
        srupp_from_package(without)
    with pytest.raises(ValueError, match="got proj_size=2"):
        srupp_to_package(SRUpp(5, 4, attention_size=4, proj_size=2))
