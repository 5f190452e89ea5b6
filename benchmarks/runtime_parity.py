"""Labels of the runtime beside those of PyTorch on every test document of a run, for fp32 and int8 files.

Run it from the root of the repository on a finished run folder; it writes one record:

    python benchmarks/runtime_parity.py runs/imdb-20kb-seed0 --out results/runtime_parity_imdb.json

The exit code is 0 only where the fp32 file gives the label of the masked PyTorch model on every document and int8
costs at most 0.3 points of accuracy.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

import karui
from karui.cli.runs import open_run
from karui.compact.convert import to_spec
from karui.compact.figures import predictions
from karui.compact.shrink import shrink
from karui.report import write_record
from karui.runtime.format import encode
from karui.tasks.classification import load_data

ALLOWED_LOSS = 0.003


def main() -> None:
    """Compare, print, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("results/runtime_parity.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    trained = open_run(arguments.run)
    splits = load_data(trained.recipe.data)
    test = splits.test
    masked = trained.masked()
    expected = trained.answers(masked)(test.texts)
    labels, truth = predictions(expected), np.asarray(test.labels)
    metrics: dict[str, float] = {"documents": len(truth), "masked_accuracy": float((labels == truth).mean())}
    spec = shrink(to_spec(masked, trained.words, trained.labels, max_tokens=trained.max_tokens))
    for values in ("fp32", "fp16", "int8"):
        data = encode(spec, values=values)
        logits = karui.load(data).logits(test.texts)
        found = predictions(logits)
        metrics[f"{values}_bytes"] = len(data)
        metrics[f"{values}_accuracy"] = float((found == truth).mean())
        metrics[f"{values}_same_label"] = int((found == labels).sum())
        metrics[f"{values}_max_logit_error"] = float(np.abs(logits - expected).max())
    for name, value in metrics.items():
        print(f"{name}: {value}")
    write_record(
        arguments.out.parent,
        task="runtime-parity",
        data=trained.recipe.data.name,
        subset=bool(splits.subset),
        recipe=trained.recipe.name,
        seed=trained.recipe.train.seed,
        metrics=metrics,
        name=arguments.out.stem,
    )
    same = metrics["fp32_same_label"] == metrics["documents"]
    cheap = metrics["int8_accuracy"] >= metrics["fp32_accuracy"] - ALLOWED_LOSS
    raise SystemExit(not (same and cheap))


if __name__ == "__main__":
    main()
