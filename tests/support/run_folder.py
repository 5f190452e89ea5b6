"""A made-up run folder with everything the report can show, and a word that would run as a script if it could."""

import json
import math
from pathlib import Path
from typing import Any

SCRIPT = "<script>alert('words')</script>"
LINEAR = "L1 logistic regression, int8"


def metrics_lines(epochs: int = 4, steps: int = 100) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for epoch in range(epochs):
        for step in range(20, steps + 1, 20):
            done = epoch * steps + step
            line = {"epoch": epoch, "step": done, "split": "train", "loss": 0.2 + math.exp(-done / 90)}
            lines.append({**line, "penalty": 1e6 * math.exp(-done / 80), "lr": 4e-3, "seconds": done / 10})
        valid = {
            "nll": 0.3 + 0.2 / (epoch + 1),
            "accuracy": 0.88 - 0.1 / (epoch + 1),
            "words_kept": 9000 // 3**epoch,
        }
        line = {"split": "valid", "epoch": epoch, "step": (epoch + 1) * steps, "density": 0.1 ** (epoch + 1)}
        lines.append({**line, **valid, "seconds": (epoch + 1) * 10.0})
    return lines


def compact_file(values: str, artifact_bytes: int, accuracy: float | None) -> dict[str, Any]:
    rest = artifact_bytes - 1000
    return {
        "path": f"model-{values}.karui",
        "artifact_bytes": artifact_bytes,
        "values": values,
        "sizes": {"words": 900, "recurrent": rest // 3, "embedding": rest - rest // 3, "header": 100},
        "words_kept": 3,
        "valid_accuracy": 0.89,
        "test_accuracy": accuracy,
        "us_per_document": 61.24,
    }


def point(name: str, artifact_bytes: int, valid: float, test: float | None) -> dict[str, Any]:
    return {
        "name": name,
        "artifact_bytes": artifact_bytes,
        "valid_accuracy": valid,
        "test_accuracy": test,
        "us_per_document": 160.0,
        "settings": {},
    }


def make_run(folder: Path, *, subset: bool = True) -> Path:
    """Write every file of a finished, compacted and compared run, and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)

    def write(name: str, content: Any) -> None:
        (folder / name).write_text(json.dumps(content), encoding="utf-8")

    write("config.json", {"name": "news", "data": {"name": "ag_news"}, "note": SCRIPT})
    results = {"task": "classification", "data": "ag_news", "subset": subset, "recipe": "news", "seed": 7}
    write("results.json", {**results, "metrics": {"test_accuracy": 0.886}})
    lines = "\n".join(map(json.dumps, metrics_lines()))
    (folder / "metrics.jsonl").write_text(lines + "\n", encoding="utf-8")
    dense = {
        "artifact_bytes": 2_610_000,
        "valid_accuracy": 0.9,
        "test_accuracy": 0.887,
        "us_per_document": 410.0,
    }
    words = [
        {"word": "goal", "weight": 1.5, "class": "Sports"},
        {"word": SCRIPT, "weight": -2.5, "class": "Sports"},
        {"word": "shares", "weight": 2.0, "class": "Business"},
    ]
    files = [compact_file("fp32", 34_100, 0.886), compact_file("int8", 13_400, 0.8853)]
    write("compact.json", {"files": files, "dense": dense, "words": words})
    text = f"A goal & {SCRIPT} a 東京 goal"
    last = len(text) - 4
    spans = [[2, 6, 1.5], [last, last + 4, -0.75], [3, 5, 9.0], [40, 4000, 1.0]]
    write("examples.json", [{"text": text, "label": "Sports", "predicted": "Sports", "spans": spans}])
    points = [
        point(LINEAR, 2000, 0.87, 0.872),
        point(LINEAR, 9290, 0.899, 0.895),
        point(LINEAR, 20_000, 0.9, 0.871),
    ]
    write("baselines.json", {"seed": 0, "points": points, "notes": ["fastText: not installed"]})
    return folder
