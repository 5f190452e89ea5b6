"""Throws altered artifacts at the reader: each must be refused, or load and answer with finite numbers.

`python -m tests.support.fuzz_reader tests/golden/*.karui --count 100000 --seed 0` runs it for real, best on a core
built with the address sanitizer: `pip install --no-deps --target DIR -Ccmake.define.KARUI_SANITIZE=ON .`, then
`LD_PRELOAD="libasan.so libstdc++.so.6" ASAN_OPTIONS=detect_leaks=0 PYTHONPATH=DIR:SITE_PACKAGES python -S -m ...`.
One JSON line tells how many were refused, loaded, and wrong.
"""

import argparse
import json
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from karui.errors import ArtifactError
from karui.runtime.format import varint
from karui.runtime.model import Classifier, LanguageModel, load

TEXTS = ["", "A quiet, funny film! Don't call it dull. bad boring good great ß 漢", "good " * 40]
HEADER_BYTES = 40  # where most lengths and sizes lie


def mutations(data: bytes, rng: np.random.Generator, count: int) -> Iterator[tuple[bytes, bool]]:
    """Altered copies of a file, and whether the checksum was put right afterwards (every second one)."""
    made = 0
    while made < count:
        altered = _alter(bytearray(data), rng)
        for _ in range(int(rng.integers(0, 3)) if rng.random() < 0.3 else 0):
            altered = _alter(altered, rng)
        fixed = made % 2 == 1
        if fixed and len(altered) > 8:
            altered[-4:] = zlib.crc32(altered[:-4]).to_bytes(4, "little")
        if altered != data:
            made += 1
            yield bytes(altered), fixed


def _alter(data: bytearray, rng: np.random.Generator) -> bytearray:
    """One change: cut, bit flip, byte set, header field enlarged, bytes put in, taken out, or repeated."""
    if len(data) < 10:
        return data + bytes(1)
    place = int(rng.integers(0, len(data) - 4))
    early = int(rng.integers(4, min(HEADER_BYTES, len(data) - 4)))
    what = int(rng.integers(0, 8))
    if what == 0:
        return data[:place]
    if what == 1:
        data[place] ^= 1 << int(rng.integers(0, 8))
    elif what == 2:
        data[place] = int(rng.choice([0, 1, 127, 128, 255, int(rng.integers(0, 256))]))
    elif what == 3:
        data[early] = int(rng.integers(0, 256))
    elif what == 4:  # a number of up to 32 bits in place of a byte; the plain part is told that it has grown
        number = varint(int(rng.integers(0, 1 << int(rng.integers(1, 33)))))
        data[early : early + 1] = number
        if data[5] + len(number) - 1 < 128 and rng.random() < 0.5:
            data[5] += len(number) - 1
    elif what == 5:
        data[place:place] = rng.bytes(int(rng.integers(1, 9)))
    elif what == 6:
        del data[place : place + int(rng.integers(1, 9))]
    else:
        data[place:place] = data[early : early + int(rng.integers(1, 30))]
    return data


def verdict(data: bytes) -> str:
    """ "refused" or "loaded"; anything else than a clear refusal or finite answers raises."""
    try:
        model = load(data)
        if isinstance(model, LanguageModel):
            _use_language_model(model)
            return "loaded"
        assert isinstance(model, Classifier)
        probabilities = model.predict_proba(TEXTS)
        if len(model.words) <= 1000:
            model.contributions(TEXTS[1])
        model.logits(model.words[:50])
    except ArtifactError as error:
        if "\n" in str(error):
            raise ValueError(f"more than one line: {error}") from error
        return "refused"
    if not (np.isfinite(probabilities).all() and np.allclose(probabilities.sum(axis=1), 1, atol=1e-3)):
        raise ValueError(f"answers are no probabilities: {probabilities}")
    return "loaded"


def _use_language_model(model: LanguageModel) -> None:
    """Every way to ask it; `ValueError` unless the answers are probabilities."""
    scores = [model.perplexity(text.split(".")) for text in TEXTS]
    stream = model.stream().feed_text(TEXTS[1]).feed(model.words[0])
    log_probs = stream.log_probs().astype(np.float64)
    if not (abs(np.exp(log_probs).sum() - 1) <= 1e-3 and (log_probs <= 1e-4).all()):
        raise ValueError(f"answers are no probabilities: {log_probs}")
    k = min(5, len(model))
    best = [share for _, share in stream.copy().topk(k)]
    if not np.allclose(best, np.sort(np.exp(log_probs))[::-1][:k], atol=1e-4):
        raise ValueError(f"the best words are not: {best}")
    model.sample(TEXTS[1], tokens=3, top_k=k)
    if any(np.isnan(score.log_prob) for score in scores):
        raise ValueError(f"scores are no numbers: {scores}")


def main(arguments: list[str]) -> int:
    """Run mutations of the given files in turn; prints one JSON line; 1 if any was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--count", type=int, default=100_000, help="mutations in all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    result = {
        "mutations": 0,
        "refused": 0,
        "loaded": 0,
        "stale_checksum_loaded": 0,
        "wrong": 0,
        "slowest_s": 0.0,
    }
    begin = time.perf_counter()
    for number, path in enumerate(options.files):
        rng = np.random.default_rng([options.seed, number])
        share = options.count // len(options.files) + (number < options.count % len(options.files))
        for data, fixed in mutations(path.read_bytes(), rng, share):
            started = time.perf_counter()
            try:
                outcome = verdict(data)
            except Exception as error:  # noqa: BLE001 - any other exception is the finding
                outcome = "wrong"
                sys.stderr.write(f"{path}: {type(error).__name__}: {error}; file {data.hex()}\n")
            result["mutations"] += 1
            result[outcome] += 1
            result["stale_checksum_loaded"] += outcome == "loaded" and not fixed
            result["slowest_s"] = max(result["slowest_s"], round(time.perf_counter() - started, 4))
    result["seconds"] = round(time.perf_counter() - begin, 1)
    sys.stdout.write(
        json.dumps(result | {"seed": options.seed, "files": [path.name for path in options.files]}) + "\n"
    )
    return int(bool(result["wrong"] or result["stale_checksum_loaded"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
