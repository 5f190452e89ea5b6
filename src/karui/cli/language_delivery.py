"""What a sparse language model comes to: its file, the test part read by that file, weights and FLOPs."""

from pathlib import Path
from typing import Any


def delivered_metrics(recipe: Any, out: Path) -> dict[str, Any]:
    """Compact a finished run into `model.karui` beside it, as `karui compact` does, and measure that file.

    `kept_params` are numbers of the masked model that are not zero, biases included; `compression` is weights of
    matrices over those of them that are kept; `flops_ratio` the share of the multiplications of a token that are left,
    in recurrent matrices and output table (a lookup takes none); `dense_bytes` the fp32 file with every weight kept;
    `architecture` words that are read, then units of each layer.
    """
    from karui.cli.compact_language import compact_language_run
    from karui.cli.eval_language import evaluate_language
    from karui.cli.language_runs import open_language_run, spec_of
    from karui.runtime.language_format import encode_language_model
    from karui.runtime.model import load_language_model
    from karui.sparse import dense_copy
    from karui.sparse.flops import FlopCount

    path = out / "model.karui"
    made = compact_language_run(out, path, values="auto", max_bytes=None, tolerance=None, provenance=False)
    file, data = load_language_model(path.read_bytes()), recipe.data
    tested = evaluate_language(path, artifact=file, data=data.name, split="test", text=data.text)
    trained, _ = open_language_run(out, masked=False)
    dense = dense_copy(trained.model)
    trained.mask()
    weights = list(trained.model.parameters())
    matrices = [weight for weight in weights if weight.dim() > 1]
    flops = FlopCount.of_step(dense)
    shape = made["shape"]["compact"]
    return {
        "test_ppl": tested["perplexity"],
        "architecture": [shape["words_read"], *shape["hidden_sizes"]],
        "words_kept": shape["words_read"],
        "kept_params": _kept(weights),
        "dense_params": sum(weight.numel() for weight in weights),
        "compression": sum(weight.numel() for weight in matrices) / max(1, _kept(matrices)),
        "flops_ratio": flops.deployed(trained.model) / flops.dense,
        "artifact_bytes": made["artifact_bytes"],
        "values": made["values"],
        "dense_bytes": len(encode_language_model(spec_of(trained, dense), values="fp32")),
    }


def _kept(weights: list[Any]) -> int:
    """Numbers that are not zero."""
    return sum(int((weight != 0).sum()) for weight in weights)
