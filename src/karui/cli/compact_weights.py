"""`karui compact` for images, pixels, music, adding and copy: the pruned weights as one sparse safetensors file."""

import json
from pathlib import Path
from typing import Any

from karui.cli.task_table import make_task, recipe_class
from karui.errors import UserError
from karui.files import atomic_write


def compact_weights_run(run: Path, output: Path, task_name: str, *, max_bytes: int | None) -> dict[str, Any]:
    """Write the file of a run, read it again and measure what it holds; returns what `page` shows.

    Raises:
        UserError: the run is not finished, the file would be larger than `max_bytes`, or it answers differently.
    """
    import torch
    from safetensors.torch import save

    from karui.compact.images import deliver
    from karui.compact.sequences import encode_masked, read_masked
    from karui.compact.sparse_tensors import decode_tensors
    from karui.recipes import base
    from karui.sparse import harden
    from karui.train.checkpoint import FINAL, check_matches, load_weights

    recipe: Any = base.load(recipe_class(task_name), run / "config.json")
    weights = load_weights(run)
    task = make_task(task_name, recipe)
    check_matches(weights, task.model.state_dict(), run / "checkpoints" / FINAL)
    task.model.load_state_dict(weights)
    masked = harden(task.model).eval()
    dense = {name: value.contiguous() for name, value in masked.state_dict().items()}
    if task_name == "images":
        made = deliver(masked, task.example)
        content, small = made.content, made.network
        small.load_state_dict(decode_tensors(content))
    else:
        content = encode_masked(masked)
        small = read_masked(content, task.model)
    if max_bytes is not None and len(content) > max_bytes:
        raise UserError(
            f"the file takes {len(content):,} bytes, more than {max_bytes:,}; nothing was written"
        )
    figures = []
    with torch.no_grad():
        for model in (masked, small):
            task.model = model
            figures.append(task.evaluate("valid"))
    for name, value in figures[0].items():
        if abs(figures[1][name] - value) > 1e-4 * max(1.0, abs(value)):
            raise UserError(
                f"the file answers otherwise than the run ({name} {figures[1][name]:.6g}, not {value:.6g}); "
                "nothing was written"
            )
    atomic_write(output, content)
    return {
        "run": str(run),
        "output": str(output),
        "artifact_bytes": len(content),
        "dense_bytes": len(save(dense)),
        "kept_params": sum(int((parameter != 0).sum()) for parameter in small.parameters()),
        "dense_params": sum(parameter.numel() for parameter in masked.parameters()),
        **{f"valid_{name}": value for name, value in figures[1].items()},
    }


def compact_weights_command(
    run: Path, output: Path, task_name: str, *, max_bytes: int | None, as_json: bool
) -> str:
    """Run it; return the line or lines to print.

    Raises:
        UserError: the output is named as a file of another kind, or as `compact_weights_run`.
    """
    if output.suffix == ".karui":
        raise UserError(
            f"{run} is a run of karui train {task_name}, whose file is no .karui file but its sparse weights; "
            f"give -o {output.with_suffix('.safetensors')}"
        )
    found = compact_weights_run(run, output, task_name, max_bytes=max_bytes)
    return json.dumps(found) if as_json else page(found)


def page(found: dict[str, Any]) -> str:
    """What a person reads."""
    shown = "   ".join(f"{name} {value:.4f}" for name, value in found.items() if name.startswith("valid_"))
    return (
        f"{found['output']}: {found['artifact_bytes']:,} bytes (dense {found['dense_bytes']:,}), "
        f"{found['kept_params']:,} of {found['dense_params']:,} numbers\n{shown}, as the run has it"
    )
