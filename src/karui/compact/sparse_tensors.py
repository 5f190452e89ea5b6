"""A state dict as one safetensors file in which a tensor with many zeros takes less: what is kept, and where it stands.

A floating tensor `name` of n numbers, k of them not zero, is written in the smallest of three ways:

| held as | tensors in the file | bytes |
|---|---|---|
| itself | `name` | 4 n |
| a mask | `name.mask` uint8, 8 numbers a byte, the first the lowest bit; `name.values` (k,) | n / 8 + 4 k |
| gaps | `name.gaps` uint8, the zeros in front of each kept number, 255 = 255 more; `name.values` (k,) | about 5 k |

Shapes of the last two stand in the metadata. Nothing is rounded; minus zero, which a mask leaves of a negative weight,
is zero.
"""

import json
import math
import struct
from collections.abc import Mapping

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from karui.errors import UserError

_KEY = "sparse_tensors"
MASK, GAPS, VALUES = ".mask", ".gaps", ".values"
MAX_NUMBERS = 1 << 31
_LENGTH = 8  # bytes of the header's length


def encode_tensors(state: Mapping[str, Tensor]) -> bytes:
    """Bytes of a file that holds the tensors; equal tensors give equal bytes.

    Raises:
        ValueError: a name ends as the parts of a tensor do.
    """
    tensors: dict[str, Tensor] = {}
    shapes: dict[str, list[int]] = {}
    for name in sorted(state):
        if name.endswith((MASK, GAPS, VALUES)):
            raise ValueError(
                f"a tensor must not be called {name!r}: {MASK}, {GAPS} and {VALUES} are parts of one"
            )
        tensor = state[name].detach().cpu().contiguous()
        parts = _parts(tensor) if tensor.dtype == torch.float32 else None
        if parts is None:
            tensors[name] = tensor.clone()
        else:
            tensors |= {f"{name}{ending}": part for ending, part in parts.items()}
            shapes[name] = list(tensor.shape)
    return save(tensors, {_KEY: json.dumps(shapes, sort_keys=True, separators=(",", ":"))})


def decode_tensors(content: bytes, *, where: str = "the file") -> dict[str, Tensor]:
    """The state dict that `encode_tensors` was given.

    Raises:
        UserError: these are no such bytes; `where` is named.
    """
    try:
        tensors = load(content)
        shapes = json.loads(_metadata(content)[_KEY])
        state = {name: value for name, value in tensors.items() if not name.endswith((MASK, GAPS, VALUES))}
        for name, shape in shapes.items():
            values = tensors[f"{name}{VALUES}"].numpy()
            count = math.prod(shape)
            if not 0 <= count <= MAX_NUMBERS or min(shape, default=1) < 0:
                raise ValueError(f"{name} has the shape {shape}")
            flat = np.zeros(count, np.float32)
            flat[_positions(tensors, name, count, len(values))] = values
            state[name] = torch.from_numpy(flat).view(shape)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{where} is no file of sparse tensors ({type(error).__name__}: {error})") from error
    return state


def _parts(tensor: Tensor) -> dict[str, Tensor] | None:
    """The tensor in parts, where that is smaller."""
    flat = tensor.view(-1).numpy()
    positions = np.flatnonzero(flat)
    gaps, mask_bytes = _gaps(positions), -(-flat.size // 8)
    if 4 * len(positions) + min(len(gaps), mask_bytes) >= 4 * flat.size:
        return None
    values = torch.from_numpy(flat[positions])
    if len(gaps) <= mask_bytes:
        return {GAPS: torch.from_numpy(gaps), VALUES: values}
    kept = np.zeros(flat.size, bool)
    kept[positions] = True
    return {MASK: torch.from_numpy(np.packbits(kept, bitorder="little")), VALUES: values}


def _gaps(positions: np.ndarray) -> np.ndarray:
    """Zeros in front of each kept position, in bytes: 255 as often as it goes, then the rest."""
    gaps = np.diff(positions, prepend=-1) - 1
    ends = np.cumsum(gaps // 255 + 1)
    coded = np.full(int(ends[-1]) if len(ends) else 0, 255, np.uint8)
    coded[ends - 1] = gaps % 255
    return coded


def _positions(tensors: Mapping[str, Tensor], name: str, count: int, kept: int) -> np.ndarray:
    if f"{name}{MASK}" in tensors:
        mask = tensors[f"{name}{MASK}"].numpy()
        if len(mask) != -(-count // 8):
            raise ValueError(f"{name}{MASK} has {len(mask)} bytes for {count} numbers")
        found = np.flatnonzero(np.unpackbits(mask, count=count, bitorder="little"))
    else:
        coded = tensors[f"{name}{GAPS}"].numpy().astype(np.int64)
        # A byte below 255 ends a gap and stands for one kept number.
        found = (np.cumsum(coded + (coded < 255)) - 1)[coded < 255]
        if len(coded) and (coded[-1] == 255 or found[-1] >= count):
            raise ValueError(f"{name}{GAPS} leads out of the tensor")
    if len(found) != kept:
        raise ValueError(f"{name} has {kept} values at {len(found)} places")
    return found


def _metadata(content: bytes) -> dict[str, str]:
    [length] = struct.unpack("<Q", content[:_LENGTH])
    return json.loads(content[_LENGTH : _LENGTH + length])["__metadata__"]
