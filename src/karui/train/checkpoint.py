"""Checkpoints without pickle: one safetensors file, whose metadata carries the counters as JSON.

One file is one atomic step: it is written to a temporary name, synced and renamed, so that a run killed at
any moment leaves the previous checkpoint or the new one. Layout of a run's `checkpoints/`:

    last.safetensors    everything a resumed run needs (model, optimizer, average, random state, counters)
    best.safetensors    weights of the best epoch so far, under the model's own names
    final.safetensors   the weights the run returns, under the model's own names; written once, at the end
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from karui.errors import UserError
from karui.files import atomic_write

FORMAT_VERSION = 1
LAST, BEST, FINAL = "last.safetensors", "best.safetensors", "final.safetensors"
# One metadata key: safetensors does not fix the order of several, and equal runs must give equal bytes.
_KEY = "karui"


def write_file(path: Path, tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> None:
    """Write tensors and JSON-able `info` as one atomic step; the caller's tensors may share memory.

    Raises:
        UserError: the file cannot be written (full disk, permissions); what was at `path` is untouched.
    """
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    text = json.dumps({"format_version": FORMAT_VERSION, **info}, sort_keys=True)
    try:
        atomic_write(path, save(copies, {_KEY: text}))
    except UserError as error:
        kept = "; the one before it is intact, continue with --resume" if path.exists() else ""
        raise UserError(f"{error}{kept}") from error


def read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors (on the CPU) and info of a file written by `write_file`.

    Raises:
        UserError: the file is missing, cut, or was not written by karui.
    """
    try:
        with safe_open(path, framework="pt") as file:
            info = json.loads((file.metadata() or {})[_KEY])
            version = info["format_version"]
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError as error:
        raise UserError(f"there is no checkpoint {path}; check the run folder") from error
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        reason = "it is cut or was not written by karui"
        raise UserError(f"cannot read the checkpoint {path}: {reason}; train again without it") from error
    if version != FORMAT_VERSION:
        raise UserError(
            f"the checkpoint {path} has format version {version}, this karui reads {FORMAT_VERSION}; "
            "use the version of karui that wrote it"
        )
    return tensors, info


def load_weights(run_dir: Path | str) -> dict[str, Tensor]:
    """Return the weights a finished run chose (`checkpoints/final.safetensors`), by the model's own names.

    Raises:
        UserError: the run is not finished, or the file is damaged.
    """
    path = Path(run_dir) / "checkpoints" / FINAL
    if not path.exists():
        raise UserError(
            f"{run_dir} holds no finished run; let `karui train ... --out {run_dir} --resume` finish"
        )
    return read_file(path)[0]


def check_matches(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    """Compare names and shapes of a checkpoint with those of the model.

    Cuts of sparse weights may be missing: a file written before there were any has none.

    Raises:
        UserError: naming the first tensor that is missing, unknown or of another shape.
    """
    for name, tensor in expected.items():
        if name not in found and name.endswith(".cut"):
            continue
        if name not in found:
            raise UserError(f"{path} holds no tensor {name!r} of this model; it belongs to another model")
        if found[name].shape != tensor.shape:
            raise UserError(
                f"{path}: {name} has shape {tuple(found[name].shape)}, this model needs "
                f"{tuple(tensor.shape)}; it belongs to another model"
            )
    for name in found:
        if name not in expected:
            raise UserError(
                f"{path} holds {name!r}, which this model does not have; it belongs to another model"
            )


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors named `prefix/name`."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def below_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors named `prefix/...`, without the prefix; the inverse of `with_prefix`."""
    start = f"{prefix}/"
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def flatten(tree: Any, name: str = "") -> tuple[Any, dict[str, Tensor]]:
    """Split a nested state (an optimizer's) into a JSON-able tree and its tensors by name.

    Raises:
        TypeError: a value is neither tensor, container, number, string nor None.
    """
    if isinstance(tree, Tensor):
        return {"tensor": name}, {name: tree}
    if tree is None or isinstance(tree, bool | int | float | str):
        return {"value": tree}, {}
    if isinstance(tree, dict):
        kind, pairs = "dict", list(tree.items())
    elif isinstance(tree, list | tuple):
        kind, pairs = type(tree).__name__, list(enumerate(tree))
    else:
        raise TypeError(f"cannot keep a {type(tree).__name__} in a checkpoint ({name})")
    items, tensors = [], {}
    for key, value in pairs:
        branch, found = flatten(value, f"{name}.{key}" if name else str(key))
        items.append([key, branch])
        tensors |= found
    return {kind: items}, tensors


def unflatten(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Rebuild what `flatten` split."""
    ((kind, content),) = tree.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "value":
        return content
    values = {key: unflatten(branch, tensors) for key, branch in content}
    if kind == "dict":
        return values
    return tuple(values.values()) if kind == "tuple" else list(values.values())


def random_state() -> dict[str, Tensor]:
    """Return the state of torch's global generators: the CPU's and, where used, those of CUDA devices."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states |= {f"cuda{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def set_random_state(states: Mapping[str, Tensor]) -> None:
    """Restore what `random_state` returned."""
    torch.set_rng_state(states["cpu"])
    for name, state in states.items():
        if name != "cpu":
            torch.cuda.set_rng_state(state, int(name.removeprefix("cuda")))
