"""Checkpoints of other packages: what is inferred, what is refused, and files."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from karui.nn import GRU, LSTM, SRU
from karui.nn.convert import (
    from_torch,
    read_state_dict,
    sru_from_package,
    sru_to_package,
    state_from_package,
    state_to_package,
    to_torch,
)


def checkpoint(**options) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return sru_to_package(SRU(6, 4, 2, **options))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_torch_layers_come_and_go(kind: type[nn.RNNBase]) -> None:
    torch.manual_seed(2)
    theirs = kind(5, 4, 2, bidirectional=True, batch_first=True, dropout=0.2, dtype=torch.float64).eval()
    ours = from_torch(theirs)
    assert isinstance(ours, LSTM if kind is nn.LSTM else GRU)
    x = torch.randn(3, 7, 5, dtype=torch.float64)
    assert torch.equal(ours(x)[0], theirs(x)[0])
    assert not ours.training
    back = to_torch(ours)
    assert type(back) is kind
    assert torch.equal(back(x)[0], theirs(x)[0])
    assert back.weight_hh_l1_reverse.data_ptr() != ours.weight_hh_l1_reverse.data_ptr()


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")  # torch 2.13 says so
def test_torch_projection_and_no_bias() -> None:
    theirs = nn.LSTM(5, 4, bias=False, proj_size=2)
    x = torch.randn(7, 3, 5)
    assert torch.equal(from_torch(theirs)(x)[0], theirs(x)[0])


def test_only_matching_layers_are_converted() -> None:
    with pytest.raises(ValueError, match="torch.nn.LSTM or torch.nn.GRU, got RNN"):
        from_torch(nn.RNN(3, 4))
    with pytest.raises(ValueError, match="karui's LSTM or GRU, got LSTM"):
        to_torch(nn.LSTM(3, 4))


def test_state_round_trip_moves_the_direction_axis() -> None:
    c = torch.arange(2 * 3 * 8.0).view(2, 3, 8)
    hx = state_from_package(c, bidirectional=True)
    assert hx.shape == (4, 3, 4)
    assert torch.equal(hx[1, 0], c[0, 0, 4:])  # the reverse half of layer 0
    assert torch.equal(state_to_package(hx, bidirectional=True), c)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_files(tmp_path: Path, suffix: str) -> None:
    state = checkpoint()
    path = tmp_path / f"model{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    for source in (path, str(path)):
        layer = sru_from_package(source)
        assert torch.equal(layer.bias_l1, sru_from_package(state).bias_l1)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    with pytest.raises(Exception, match="[Ww]eights.only"):
        sru_from_package(tmp_path / "whole.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="must map names to tensors, got list"):
        read_state_dict(tmp_path / "list.pt")


def test_the_checkpoint_of_2017_is_v1_with_tanh() -> None:
    state = {
        k: v
        for k, v in checkpoint(variant="v1", activation="tanh").items()
        if k.endswith((".weight", ".bias"))
    }
    layer = sru_from_package(state)
    assert (layer.variant, layer.activation, layer.skip_scale) == ("v1", "tanh", 1.0)


def test_what_shapes_tell_is_inferred() -> None:
    options = {"input_rank": 2, "layer_norm": "pre", "has_skip_term": False, "bidirectional": True}
    layer = sru_from_package(checkpoint(**options), bidirectional=True)
    assert (layer.input_rank, layer.layer_norm, layer.has_skip_term) == (2, "pre", False)
    rescaled = SRU(4, 4, highway_bias=-1.0)
    with torch.no_grad():
        rescaled.bias_l0.add_(0.7)  # a trained bias says nothing about the scale
    assert abs(sru_from_package(sru_to_package(rescaled)).skip_scale - rescaled.skip_scale) < 1e-7


def test_a_projection_that_saves_nothing_is_multiplied_out() -> None:
    full = checkpoint()
    wide = sru_to_package(sru_from_package(full), version="3.0")
    P = torch.randn(6, 6)
    wide["rnn_lst.0.transform_module.0.weight"] = P
    wide["rnn_lst.0.transform_module.1.weight"] = wide.pop("rnn_lst.0.transform_module.weight") @ P.inverse()
    x = torch.randn(5, 2, 6)
    found, _ = sru_from_package(wide)(x)
    assert (found - sru_from_package(full)(x)[0]).abs().max() < 1e-4


def test_a_prefix_is_taken_off() -> None:
    state = {f"encoder.rnn.{name}": value for name, value in checkpoint().items()}
    assert sru_from_package(state, prefix="encoder.rnn.").num_layers == 2
    with pytest.raises(ValueError, match=r"no key starts with 'rnn_lst.'; .*\['encoder.rnn.'\]"):
        sru_from_package(state)


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({}, {"variant": "v1"}, "variant='v1' has no weight_c"),
        ({}, {"has_skip_term": False}, "has_skip_term=False does not fit a first layer of 4"),
        ({}, {"layer_norm": "pre"}, "layer_norm='pre', but the checkpoint has no layer_norm"),
        ({"rnn_lst.0.weight": torch.zeros(6, 17)}, {}, "expected 3 or 4 blocks of 4"),
        ({"rnn_lst.1.weight": torch.zeros(5, 12)}, {}, "layer 1 reads 5 features, layer 0 gives 4"),
        ({"rnn_lst.1.weight_c": torch.zeros(3)}, {}, "weight_c .* differs from the bias"),
        ({"rnn_lst.1.scale_x": torch.full((1,), 1.5)}, {}, None),
        ({"rnn_lst.2.custom_m.w": torch.zeros(3)}, {}, "layer 2 needs a weight and a bias"),
        ({"input_to_hidden.weight": torch.zeros(4, 6)}, {}, "proj_input_to_hidden_first"),
        ({"rnn_lst.1.weight": torch.zeros(4, 16)}, {}, "gate blocks .* do not fit"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, arguments: dict, message: str | None) -> None:
    state = checkpoint(rescale=False) | change
    if message is None:
        assert sru_from_package(state, **arguments).skip_scale == 1.5
        return
    with pytest.raises(ValueError, match=message):
        sru_from_package(state, **arguments)


def test_odd_widths_have_one_direction() -> None:
    with pytest.raises(ValueError, match="needs an even width, the checkpoint has 3"):
        sru_from_package(sru_to_package(SRU(5, 3)), bidirectional=True)


def test_what_the_package_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="got proj_size=2"):
        sru_to_package(SRU(3, 4, proj_size=2))
    with pytest.raises(ValueError, match="version must be one of"):
        sru_to_package(SRU(3, 4), version="2017")
