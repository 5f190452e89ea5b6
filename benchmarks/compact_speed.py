"""Time of compacted networks against the dense ones they come from, beside the ratio of their FLOPs.

Run it from the root of the repository; it writes one record:

    python benchmarks/compact_speed.py --out results/compact_speed.json

LeNet-300-100 against the network that `compact_module` makes of it with 266-88-33 live units; the classifier of film
reviews of a record of `karui reproduce sparse-imdb` against one of the sizes that were left of it, its architecture, in
PyTorch and as .karui files in the reader. Speed depends on shapes alone, so weights are random. One thread, networks in
turn, the least of all repeats; a quotient is the ratio of times over the ratio of FLOPs of the matrix products.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import karui
from karui.compact import compact_module
from karui.compact.convert import to_spec
from karui.report import write_record
from karui.runtime.format import encode
from karui.sparse.flops import FlopCount
from karui.tasks.image_models import lenet_300_100
from karui.tasks.text_classifier import TextClassifier

LEAST, MOST = 0.5, 2.0
"""Of a quotient: faster by the ratio of FLOPs within a factor of two."""

LIVE = (266, 88, 33)
IMAGES = (100, 400, 1000)
"""Batches of images. With 100 the dense network already waits for memory and calls as long as it multiplies."""
JUDGED_IMAGES = 400
TEXTS, LENGTH = 64, 234
"""Reviews of a batch, and words of each: the mean of IMDb's, cut at 900."""
ROW = "imdb-imdb-voc-2-seed0"


def least_ms(passes: Mapping[str, Callable[[], Any]], *, repeats: int) -> dict[str, float]:
    """Milliseconds of each pass: taken in turn, the least of the repeats."""
    best = dict.fromkeys(passes, float("inf"))
    for repeat in range(repeats + 3):
        for name, run in passes.items():
            start = time.perf_counter()
            run()
            if repeat >= 3:
                best[name] = min(best[name], 1e3 * (time.perf_counter() - start))
    return best


def figures(flops: Mapping[str, float], times: Mapping[str, float], *, digits: int = 4) -> dict[str, Any]:
    """FLOPs and milliseconds of both networks, the two ratios, and their quotient."""
    flops_ratio, time_ratio = flops["dense"] / flops["compact"], times["dense"] / times["compact"]
    quotient = time_ratio / flops_ratio
    return {
        "dense_flops": flops["dense"],
        "compact_flops": flops["compact"],
        "dense_ms": round(times["dense"], digits),
        "compact_ms": round(times["compact"], digits),
        "flops_ratio": round(flops_ratio, 3),
        "time_ratio": round(time_ratio, 3),
        "quotient": round(quotient, 3),
        "within": LEAST <= quotient <= MOST,
    }


def masked_lenet(live: tuple[int, ...]) -> torch.nn.Module:
    """LeNet-300-100 with random weights, of which so many inputs of each layer are not zero."""
    network = lenet_300_100(784, 10)
    layers = [layer for layer in network if isinstance(layer, torch.nn.Linear)]
    with torch.no_grad():
        for layer, kept in zip(layers, live, strict=True):
            dead = torch.randperm(layer.in_features)[kept:]
            layer.weight[:, dead] = 0.0
    return network.eval()


def measure_lenet(*, repeats: int) -> dict[str, Any]:
    """LeNet-300-100 and what is left of it, by the size of the batch."""
    torch.manual_seed(0)
    dense, example = lenet_300_100(784, 10).eval(), torch.rand(1, 1, 28, 28)
    small = compact_module(masked_lenet(LIVE), example)
    flops = {"dense": FlopCount(dense, example).dense, "compact": FlopCount(small, example).dense}
    found = {}
    for batch in IMAGES:
        images = torch.rand(batch, 1, 28, 28)
        times = least_ms(
            {"dense": lambda x=images: dense(x), "compact": lambda x=images: small(x)}, repeats=repeats
        )
        found[f"batch {batch}"] = figures(flops, times)
    return {"architecture": list(LIVE), "judged": f"batch {JUDGED_IMAGES}", **found}


def measure_reviews(record: Mapping[str, Any], *, repeats: int) -> dict[str, Any]:
    """The classifier of a record and what was left of it, in PyTorch and in the reader."""
    settings = record["settings"]["model"]
    words, columns, *units = record["metrics"]["architecture"]
    sizes = {
        "dense": (
            record["settings"]["data"]["max_words"],
            settings["embedding_dim"],
            settings["hidden_size"],
        ),
        "compact": (words, columns, max(units)),
    }
    random = np.random.default_rng(0)
    models, ids, readers, flops = {}, {}, {}, {}
    lengths = torch.full((TEXTS,), LENGTH)
    for name, (n_words, embedding_dim, hidden_size) in sizes.items():
        torch.manual_seed(0)
        models[name] = TextClassifier(
            n_words, 2, recurrent=settings["recurrent"], embedding_dim=embedding_dim, hidden_size=hidden_size
        ).eval()
        frequencies = 1.0 / np.arange(1, sizes["dense"][0] + 1)
        drawn = random.choice(sizes["dense"][0], (TEXTS, LENGTH), p=frequencies / frequencies.sum()) + 1
        drawn[drawn > n_words] = 0  # pruned words share a row
        ids[name] = torch.from_numpy(drawn)
        flops[name] = FlopCount(models[name], ids[name], lengths).dense
        with torch.no_grad():
            models[name].embedding.weight[1:].normal_()
        spec = to_spec(models[name], [f"w{i}" for i in range(n_words)], ["negative", "positive"])
        readers[name] = karui.load(encode(spec, values="fp32"))
    eager = {name: (lambda m=models[name], x=ids[name]: m(x, lengths)) for name in sizes}
    rows = {name: [row.astype(np.int32) for row in ids[name].numpy()] for name in sizes}
    reader = {name: (lambda r=readers[name], x=rows[name]: r.logits_ids(x)) for name in sizes}
    return {
        "record": record["recipe"],
        "architecture": record["metrics"]["architecture"],
        "torch": figures(flops, least_ms(eager, repeats=repeats)),
        "reader": figures(flops, least_ms(reader, repeats=repeats)),
    }


def main() -> None:
    """Measure, print and record; exit code 1 where a judged quotient is out of bounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/compact_speed.json"))
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--record", type=Path, default=Path(f"results/sparse_imdb/{ROW}.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    record = json.loads(arguments.record.read_text(encoding="utf-8"))
    with torch.no_grad():
        lenet = measure_lenet(repeats=arguments.repeats)
        reviews = measure_reviews(record, repeats=arguments.repeats)
    for name, entry in (("LeNet-300-100", lenet), ("IMDb", reviews)):
        for part, value in entry.items():
            print(f"{name} {part}: {value}")
    write_record(
        arguments.out.parent,
        task="inference",
        data="random images, random Zipf-like reviews",
        subset=False,
        recipe="compact-speed",
        seed=0,
        metrics={"least": LEAST, "most": MOST, "threads": 1, "lenet-300-100": lenet, "imdb": reviews},
        name=arguments.out.stem,
    )
    judged = [lenet[lenet["judged"]], reviews["torch"], reviews["reader"]]
    raise SystemExit(not all(entry["within"] for entry in judged))


if __name__ == "__main__":
    main()
