"""A compacted module as one safetensors file: its state dict, and its sizes as JSON. No code, no pickle.

The class of the model is not in the file: whoever loads it builds the model as it was, dense, and hands it over.
"""

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from torch import nn

from karui.compact.modules.compact import as_template
from karui.compact.modules.plan import Part, apply
from karui.compact.modules.report import Compaction, Layer
from karui.errors import UserError
from karui.files import atomic_write

FORMAT_VERSION = 1
_KEY = "karui.module"


def save_compacted(module: nn.Module, path: str | Path) -> None:
    """Write what `compact_module` returned; its numbers may have been trained further since.

    Raises UserError where the file cannot be written, or an argument of the traced forward is no JSON; ValueError for
    any other module.
    """
    from safetensors.torch import save

    found = getattr(module, "compaction", None)
    if not isinstance(found, Compaction):
        raise ValueError(f"save_compacted takes what compact_module returned, got {type(module).__name__}")  # noqa: TRY004
    for part in found.plan:
        if not part.graph:
            part.fixed = {}  # only a traced forward asks for them
    info = {"format_version": FORMAT_VERSION, **asdict(found)}
    try:
        text = json.dumps(info, sort_keys=True)
    except TypeError as error:
        raise UserError(
            f"an argument of the traced forward cannot be stored ({error}): call it with plain values"
        ) from error
    tensors = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in module.state_dict().items()}
    atomic_write(path, save(tensors, {_KEY: text}))


def load_compacted(path: str | Path, model: nn.Module) -> nn.Module:
    """Read a file of `save_compacted`.

    model: a model of the class and sizes that was compacted, with any weights; it is not changed.

    Raises UserError where the file is missing, damaged or of another version, or the model is not of that class.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            info = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}; check the spelling") from error
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"cannot read {path}: it is cut or was not written by save_compacted") from error
    version = info.get("format_version") if isinstance(info, dict) else None
    if version != FORMAT_VERSION:
        raise UserError(f"{path} has format version {version}, this karui reads {FORMAT_VERSION}")
    try:
        found = _compaction(info)
        template = as_template(model)
        bare = template is not model and any("0" in part.layers or part.graph for part in found.plan)
        small = apply(template if bare else model, found.plan)
        small = small[0] if bare else small  # type: ignore[index]
        missing = small.load_state_dict(tensors, strict=True)
        assert not missing.missing_keys
    except UserError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} does not fit this model: {reason}") from error
    small.compaction = found  # type: ignore[assignment]
    return small.eval()


def _compaction(info: dict[str, Any]) -> Compaction:
    names = {f.name for f in fields(Compaction)}
    given = {name: value for name, value in info.items() if name in names}
    given["layers"] = [Layer(**layer) for layer in given["layers"]]
    given["plan"] = [Part(**part) for part in given["plan"]]
    return Compaction(**given)
