import errno
import json
import struct
from pathlib import Path

import pytest
import torch
from torch import nn

from karui.errors import UserError
from karui.train import checkpoint


def trained(optimizer_class, **options):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = optimizer_class(
        [{"params": [model.weight], "lr": 0.02}, {"params": [model.bias]}], lr=0.01, **options
    )
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.ones(4, 3)).square().sum().backward()
        optimizer.step()
    return model, optimizer


@pytest.mark.parametrize(
    ("optimizer_class", "options"),
    [
        (torch.optim.Adam, {"fused": True}),
        (torch.optim.AdamW, {"amsgrad": True}),
        (torch.optim.SGD, {"momentum": 0.9}),
        (torch.optim.Adagrad, {}),
        (torch.optim.LBFGS, {}),
    ],
)
def test_state_of_an_optimizer_comes_back(tmp_path, optimizer_class, options):
    if (
        optimizer_class is torch.optim.LBFGS
    ):  # no groups, and a closure: its nested state is what matters here
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        optimizer = torch.optim.LBFGS(model.parameters())

        def closure():
            optimizer.zero_grad()
            loss = model(torch.ones(4, 3)).square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
    else:
        model, optimizer = trained(optimizer_class, **options)
    state = optimizer.state_dict()
    tree, tensors = checkpoint.flatten(state, "optimizer")
    checkpoint.write_file(tmp_path / "a.safetensors", tensors, {"optimizer": tree})
    found, info = checkpoint.read_file(tmp_path / "a.safetensors")
    assert_same(checkpoint.unflatten(info["optimizer"], found), state)


def assert_same(found, wanted):
    assert type(found) is type(wanted)
    if isinstance(wanted, torch.Tensor):
        assert found.dtype == wanted.dtype
        assert torch.equal(found, wanted)
    elif isinstance(wanted, dict):
        assert list(found) == list(wanted)
        for key in wanted:
            assert_same(found[key], wanted[key])
    elif isinstance(wanted, list | tuple):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other)
    else:
        assert found == wanted


def test_unknown_value_in_a_state_is_refused():
    with pytest.raises(TypeError, match=r"cannot keep a object in a checkpoint \(a\.b\)"):
        checkpoint.flatten({"a": {"b": object()}})


def test_equal_tensors_give_equal_bytes_and_shared_memory_is_allowed(tmp_path):
    weight = torch.arange(6.0).view(2, 3)
    for name in ("a", "b"):
        checkpoint.write_file(
            tmp_path / name, {"w": weight, "tied": weight, "t": weight.t()}, {"x": 1, "y": 2}
        )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    tensors, info = checkpoint.read_file(tmp_path / "a")
    assert torch.equal(tensors["t"], weight.t())
    assert info == {"format_version": 1, "x": 1, "y": 2}


def test_random_numbers_continue(tmp_path):
    torch.manual_seed(3)
    torch.rand(5)
    checkpoint.write_file(tmp_path / "a", checkpoint.random_state(), {})
    wanted = torch.rand(4)
    torch.manual_seed(0)
    checkpoint.set_random_state(checkpoint.read_file(tmp_path / "a")[0])
    assert torch.equal(torch.rand(4), wanted)


def whole_file(tmp_path):
    path = tmp_path / "last.safetensors"
    checkpoint.write_file(path, {"w": torch.ones(50)}, {"kind": "checkpoint"})
    return path, path.read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.99])
def test_cut_checkpoint_is_one_line(tmp_path, share):
    path, data = whole_file(tmp_path)
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(
        UserError, match=r"cannot read the checkpoint .*last\.safetensors: it is cut"
    ) as error:
        checkpoint.read_file(path)
    assert "\n" not in str(error.value)


def alien_files():
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    yield "other program", struct.pack("<Q", len(header)) + header + bytes(4)
    yield "text", b"not a checkpoint at all, just some text of enough length"
    yield "huge header", struct.pack("<Q", 2**62) + b"{}"
    for text in ('"karui": "nonsense"', '"karui": "[1, 2]"', '"karui": "{}"'):
        header = b'{"__metadata__": {' + text.encode() + b"}}"
        yield text, struct.pack("<Q", len(header)) + header


@pytest.mark.parametrize("data", [data for _, data in alien_files()], ids=[name for name, _ in alien_files()])
def test_alien_checkpoint_is_one_line(tmp_path, data):
    path = tmp_path / "last.safetensors"
    path.write_bytes(data)
    with pytest.raises(UserError, match="it is cut or was not written by karui"):
        checkpoint.read_file(path)


def test_missing_and_newer_checkpoint(tmp_path):
    with pytest.raises(UserError, match="there is no checkpoint"):
        checkpoint.read_file(tmp_path / "none.safetensors")
    path, data = whole_file(tmp_path)
    path.write_bytes(data.replace(b'format_version\\": 1', b'format_version\\": 7'))
    with pytest.raises(UserError, match="has format version 7, this karui reads 1"):
        checkpoint.read_file(path)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"a": torch.zeros(2)}, "holds no tensor 'b'"),
        ({"a": torch.zeros(2), "b": torch.zeros(4)}, r"b has shape \(4,\), this model needs \(3,\)"),
        (
            {"a": torch.zeros(2), "b": torch.zeros(3), "c": torch.zeros(1)},
            "holds 'c', which this model does not",
        ),
    ],
)
def test_tensors_of_another_model_are_named(found, message):
    expected = {"a": torch.zeros(2), "b": torch.zeros(3)}
    with pytest.raises(UserError, match=message):
        checkpoint.check_matches(found, expected, Path("last.safetensors"))


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "permission denied")]
)
def test_unwritable_checkpoint_is_one_line_and_the_old_one_stays(tmp_path, monkeypatch, number, reason):
    path, data = whole_file(tmp_path)

    def fail(self, content):
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(number, "no", str(self))

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(UserError, match=f"{reason}.*the one before it is intact, continue with --resume"):
        checkpoint.write_file(path, {"w": torch.zeros(50)}, {})
    monkeypatch.undo()
    assert path.read_bytes() == data
    assert [file.name for file in tmp_path.iterdir()] == ["last.safetensors"]


def test_weights_of_an_unfinished_run_are_refused(tmp_path):
    with pytest.raises(UserError, match="holds no finished run"):
        checkpoint.load_weights(tmp_path)
