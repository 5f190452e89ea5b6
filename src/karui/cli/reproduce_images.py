"""`karui reproduce sparse-images`: image networks, dense and sparse: trained, compacted into a file, tested."""

import json
from pathlib import Path
from typing import Any

from karui.cli.reproduce_runs import FinishedRun, details_of, times_of, write_run
from karui.files import atomic_write

TABLE = "sparse-images"
FOLDER = "sparse_images"
"""Folder of the records below that of all results."""

NETWORK_FILE = "network.safetensors"


def record(run: FinishedRun, results: Path) -> dict[str, Any]:
    """Write file and record of a finished run; return what a person is told.

    Raises:
        UserError: the compacted network answers otherwise.
    """
    recipe = run.recipe
    metrics = {
        **delivered_metrics(recipe, run.out),
        "valid_error": round(100 * (1 - run.found["metrics"]["valid_accuracy"]), 4),
        **times_of(run),
        "flops_curve": flops_curve(run.out / "metrics.jsonl"),
    }
    model, method = network_name(recipe.model), recipe.sparse.method
    details = details_of(run, "threads", "accelerator", model=model, method=method)
    return write_run(run, results / FOLDER, task="images", metrics=metrics, details=details)


def delivered_metrics(recipe: Any, out: Path) -> dict[str, Any]:
    """Compact the network of a run into `network.safetensors`, read that file again, and test what it holds."""
    import torch
    from safetensors.torch import save

    from karui.cli.task_table import make_task
    from karui.compact.images import count_flops, deliver
    from karui.compact.sparse_tensors import decode_tensors
    from karui.sparse import density
    from karui.tasks.images import dense_network
    from karui.train.checkpoint import load_weights

    task = make_task("images", recipe)
    task.model.load_state_dict(load_weights(out))
    made = deliver(task.model.eval(), task.example)
    kept = density(task.model) if recipe.sparse.method != "none" else 1.0
    path = out / NETWORK_FILE
    atomic_write(path, made.content)
    made.network.load_state_dict(decode_tensors(path.read_bytes(), where=str(path)))
    task.model = made.network
    with torch.no_grad():
        test = task.evaluate("test")
    dense = dense_network(recipe.data, recipe.model, task.example)
    dense_flops, _ = count_flops(dense.eval(), task.example)
    return {
        "test_error": round(100 * (1 - test["accuracy"]), 4),
        "test_nll": test["nll"],
        "architecture": made.architecture,
        "kept_params": made.kept_params,
        "dense_params": sum(parameter.numel() for parameter in dense.parameters()),
        "density": kept,
        "flops_ratio": made.flops / dense_flops,
        "sparse_flops_ratio": made.sparse_flops / dense_flops,
        "artifact_bytes": path.stat().st_size,
        "dense_bytes": len(save({name: value.contiguous() for name, value in dense.state_dict().items()})),
        **_asked(recipe.sparse),
    }


def _asked(sparse: Any) -> dict[str, Any]:
    """What the network was to come to, beside what it came to."""
    if sparse.target is not None:
        return {f"target_{sparse.target.kind}": sparse.target.value}
    return {"target_layer_densities": list(sparse.layer_densities)} if sparse.layer_densities else {}


def flops_curve(log: Path) -> list[dict[str, float]]:
    """FLOPs over dense ones at each evaluation, expected by the gates and deployed; and the gates' expected density."""
    lines = map(json.loads, log.read_text(encoding="utf-8").splitlines())
    return [
        {
            "epoch": line["epoch"] + 1,
            "expected": line["expected_flops_share"],
            "deployed": line["flops_share"],
            **({"expected_density": line["expected_density"]} if "expected_density" in line else {}),
            "valid_error": round(100 * (1 - line["accuracy"]), 4),
        }
        for line in lines
        if line["split"] == "valid" and "flops_share" in line
    ]


def network_name(model: Any) -> str:
    """What a network is called: lenet-5, wrn-28-10, with its units where they are not the published ones."""
    if model.network == "wide-resnet":
        return f"wrn-{model.depth}-{model.width}"
    return "-".join([model.network, *(f"{units}" for units in model.units)]) if model.units else model.network


def line_of(made: dict[str, Any]) -> str:
    """What a person reads about one run."""
    metrics = made["metrics"]
    shape = "-".join(map(str, metrics["architecture"]))
    return (
        f"{made['row']} seed {made['seed']}: {metrics['test_error']:.2f} % error, {shape}, "
        f"{metrics['artifact_bytes']:,} of {metrics['dense_bytes']:,} bytes, "
        f"{metrics['flops_ratio']:.1%} of the FLOPs, {metrics['train_minutes']:.1f} min"
    )
