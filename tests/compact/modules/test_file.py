"""A compacted module in a file: its own state dict, and sizes without code."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import fx, nn

from karui.compact import compact_module, load_compacted, save_compacted
from karui.errors import UserError
from tests.compact.modules.test_recurrent import IDS, LENGTHS, Tagger
from tests.compact.modules.user_models import Chain, ConvNet, drop_columns, prune, randomise


def models():
    chain = randomise(Chain(40, 12, 3))
    drop_columns(chain.layers[0], *range(20))
    drop_columns(chain.layers[1], 1)
    conv = randomise(ConvNet(flatten="view"))
    drop_columns(conv.conv2, 1)
    with torch.no_grad():
        conv.fc1.weight.view(12, 8, -1)[:, 3] = 0.0
    return {
        "chain": (chain, Chain(40, 12, 3), (torch.randn(2, 40),)),
        "graph": (conv, ConvNet(flatten="view"), (torch.randn(2, 1, 10, 10),)),
        "uneven": (prune(randomise(Tagger()), 0.5), Tagger(), (IDS, LENGTHS)),
        "one layer": (prune(randomise(nn.LSTM(30, 8, 2)), 0.7), nn.LSTM(30, 8, 2), (torch.randn(3, 2, 30),)),
    }


@pytest.mark.parametrize("name", ["chain", "graph", "uneven", "one layer"])
def test_saved_and_loaded(name, tmp_path):
    model, fresh, example = models()[name]
    small = compact_module(model, *example)
    path = tmp_path / "small.safetensors"
    save_compacted(small, path)
    before = {key: tensor.clone() for key, tensor in fresh.state_dict().items()}
    again = load_compacted(path, fresh)
    assert all(torch.equal(before[key], tensor) for key, tensor in fresh.state_dict().items())
    for one, other in zip(again.state_dict().items(), small.state_dict().items(), strict=True):
        assert one[0] == other[0]
        assert torch.equal(one[1], other[1])
    for ours, theirs in zip(_flat(again(*example)), _flat(small(*example)), strict=True):
        assert torch.equal(ours, theirs)
    assert isinstance(again, fx.GraphModule) == (name == "graph")
    assert again.compaction == small.compaction
    save_compacted(again, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def _flat(value):
    return [value] if isinstance(value, torch.Tensor) else [t for part in value for t in _flat(part)]


def test_the_file_is_smaller_and_an_ordinary_state_dict(tmp_path):
    model, _, example = models()["chain"]
    small = compact_module(model, *example)
    path = tmp_path / "small.safetensors"
    save_compacted(small, path)
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == set(small.state_dict())
    torch.save(small.state_dict(), tmp_path / "small.pt")
    twin = load_compacted(path, model)
    twin.load_state_dict(torch.load(tmp_path / "small.pt", weights_only=True))


def test_a_compacted_model_trains_on():
    model, _, example = models()["chain"]
    small = compact_module(model, *example).train()
    small(*example).sum().backward()
    assert all(parameter.grad is not None for parameter in small.parameters())


def test_other_models_and_damaged_files_are_refused(tmp_path):
    model, fresh, example = models()["graph"]
    path = tmp_path / "small.safetensors"
    save_compacted(compact_module(model, *example), path)
    with pytest.raises(UserError, match="is not the one that was compacted"):
        load_compacted(path, ConvNet(flatten="flatten"))
    with pytest.raises(UserError, match="small.safetensors does not fit|has no module|is not the one"):
        load_compacted(path, Chain(3, 2))
    with pytest.raises(ValueError, match="takes what compact_module returned"):
        save_compacted(fresh, path)
    with pytest.raises(UserError, match="there is no file"):
        load_compacted(tmp_path / "none", fresh)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="cut or was not written"):
        load_compacted(cut, fresh)
    save_file({"a": torch.ones(1)}, cut)
    with pytest.raises(UserError, match="cut or was not written"):
        load_compacted(cut, fresh)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda info: info | {"format_version": 9}, "format version 9"),
        (lambda info: _with_layer(info, kind="os.system"), "no layer can be made"),
        (lambda info: _with_layer(info, rows=-1), "no layer can be made"),
        (lambda info: _with_layer(info, rows=True), "no layer can be made"),
        (lambda info: _with_layer(info, dtype="nn"), "dtype"),
        (lambda info: info | {"plan": [{"prefix": "", "unknown": 1}]}, "does not fit"),
        (lambda info: info | {"plan": 7}, "does not fit"),
        (lambda info: [info], "format version None"),
    ],
)
def test_hostile_sizes_are_refused(change, says, tmp_path):
    model, fresh, example = models()["chain"]
    path = tmp_path / "small.safetensors"
    save_compacted(compact_module(model, *example), path)
    with safe_open(path, framework="pt") as file:
        info = json.loads(file.metadata()["karui.module"])
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a dict
    save_file(tensors, path, {"karui.module": json.dumps(change(info))})
    with pytest.raises(UserError, match=says):
        load_compacted(path, fresh)


def _with_layer(info, **changes):
    info["plan"][0]["layers"]["layers.0"].update(changes)
    return info
