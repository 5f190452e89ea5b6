"""State dicts with many zeros: every number comes back, the smallest form is taken, odd bytes are one line."""

import json
import struct

import pytest
import torch
from safetensors.torch import load

from karui.compact.sparse_tensors import decode_tensors, encode_tensors
from karui.errors import UserError


def sparse(count: int, kept: float, *, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(count, generator=generator)
    return values * (torch.rand(count, generator=generator) < kept)  # leaves minus zero of the negative ones


def header(content: bytes) -> dict:
    [length] = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length])


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.05, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("shape", [(4000,), (40, 100), (10, 4, 10, 10)])
def test_every_number_comes_back(kept, shape):
    tensor = sparse(4000, kept).view(shape)
    [(name, found)] = decode_tensors(encode_tensors({"layer.weight": tensor})).items()
    assert name == "layer.weight"
    assert found.shape == shape
    assert torch.equal(found, tensor)


ODD = {
    "no numbers": torch.zeros(0, 3),
    "one number": torch.tensor(0.0),
    "minus zero": torch.tensor([0.0, -0.0] * 40),
    "the last one": torch.tensor([0.0] * 999 + [1.0]),
    "gaps of 255 and 256": torch.tensor([0.0] * 255 + [1.0] + [0.0] * 256 + [2.0] + [0.0] * 1000),
    "not a number": torch.tensor([float("nan"), 0.0, float("-inf")] + [0.0] * 50),
}


@pytest.mark.parametrize("tensor", ODD.values(), ids=ODD.keys())
def test_odd_tensors(tensor):
    found = decode_tensors(encode_tensors({"odd": tensor}))["odd"]
    assert found.shape == tensor.shape
    assert torch.allclose(found, tensor, rtol=0.0, atol=0.0, equal_nan=True)


def test_whole_numbers_and_layouts_are_kept():
    state = {
        "index": torch.arange(7),
        "half": torch.ones(3, dtype=torch.float16),
        "turned": sparse(600, 0.1).view(20, 30).t(),
    }
    found = decode_tensors(encode_tensors(state))
    assert {name: value.dtype for name, value in found.items()} == {n: v.dtype for n, v in state.items()}
    assert all(torch.equal(found[name], state[name]) for name in state)
    assert encode_tensors(state) == encode_tensors(dict(reversed(state.items())))


@pytest.mark.parametrize(("kept", "form"), [(0.02, ".gaps"), (0.5, ".mask"), (0.99, "")])
def test_the_smallest_form_is_taken(kept, form):
    tensor = sparse(20_000, kept)
    names = set(load(encode_tensors({"w": tensor})))
    assert names == ({f"w{form}", "w.values"} if form else {"w"})
    kept_numbers = int((tensor != 0).sum())
    bound = {".gaps": 5.1 * kept_numbers, ".mask": 4 * kept_numbers + 2500, "": 80_000}[form]
    assert len(encode_tensors({"w": tensor})) < bound + 400


def changed(**values) -> bytes:
    """A small file with another header."""
    content = encode_tensors({"w": sparse(400, 0.05)})
    [length] = struct.unpack("<Q", content[:8])
    head = header(content)
    head["__metadata__"] |= values
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


BAD = {
    "nothing": b"",
    "words": b"these are no tensors at all",
    "cut": encode_tensors({"w": sparse(400, 0.05)})[:-3],
    "another name": changed(sparse_tensors=json.dumps({"v": [400]})),
    "too few numbers": changed(sparse_tensors=json.dumps({"w": [100]})),
    "too many numbers": changed(sparse_tensors=json.dumps({"w": [1 << 40]})),
    "a negative size": changed(sparse_tensors=json.dumps({"w": [-1, -400]})),
    "no sizes": changed(sparse_tensors="{"),
    "sizes of a kind": changed(sparse_tensors=json.dumps({"w": ["400"]})),
    "a list": changed(sparse_tensors="[1]"),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD.keys())
def test_odd_bytes_are_one_line(content):
    with pytest.raises(UserError, match=r"net.safetensors is no file of sparse tensors \(") as raised:
        decode_tensors(content, where="net.safetensors")
    assert "\n" not in str(raised.value)


def test_a_name_that_looks_like_a_part_is_refused():
    with pytest.raises(ValueError, match="must not be called 'w.values'"):
        encode_tensors({"w.values": torch.zeros(3)})
