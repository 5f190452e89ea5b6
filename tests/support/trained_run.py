"""A run folder trained on a few made-up reviews, for the verbs that read one."""

import random
from pathlib import Path

from karui.cli.main import main

GOOD, BAD = ("lovely", "superb", "moving", "witty"), ("dull", "awful", "boring", "flat")
PLAIN = ("the", "film", "was", "a", "story", "about", "people", "in", "part", "two")


def write_reviews(path: Path, *, count: int, seed: int, labels: tuple[str, str] = ("bad", "good")) -> None:
    """Write `count` reviews as CSV with the columns text and label; half of them of each label."""
    source = random.Random(seed)
    lines = ["text,label"]
    for i in range(count):
        words = source.choices(PLAIN, k=source.randint(2, 12))
        words.insert(source.randint(0, len(words)), source.choice((BAD, GOOD)[i % 2]))
        lines.append(f"{' '.join(words)},{labels[i % 2]}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def train_on_reviews(folder: Path, *options: str) -> Path:
    """Write train.csv and test.csv below `folder`/data and train; return the run folder `folder`/run."""
    data, run = folder / "data", folder / "run"
    data.mkdir()
    write_reviews(data / "train.csv", count=160, seed=0)
    write_reviews(data / "test.csv", count=40, seed=1)
    sizes = ("--set=model.embedding_dim=4", "--set=model.hidden_size=3", "--set=train.threads=1")
    settings = ("--epochs=12", "--set=train.lr=0.03", "--set=data.batch_size=16", *sizes)
    command = ["train", "classify", f"--data={data}", f"--out={run}", "--quiet", *settings, *options]
    assert main(command) == 0
    return run
