"""One row of the comparison of output layers: a method trained on a text by the clock, or timed alone."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from karui.errors import UserError

FOLDER = "output_comparison"
TASK = "output-comparison"
TOP = 10
STATISTICS_TOKENS = 1024
"""Validation tokens whose log Z is looked at."""

Say = Callable[[str], None]


def record_path(results: Path, row: Any) -> Path:
    """Return where the record of a row lies below the results folder."""
    return results / FOLDER / f"{row.name}.json"


def make_row(row: Any, results: Path, say: Say) -> dict[str, Any]:
    """Train or time the method of a row and write its record; return the record's metrics.

    Raises:
        UserError: the text cannot be had, or the step needs more memory than is free.
    """
    from karui.recipes.output_comparison import TextComparison, settings_of
    from karui.report.records import write_record

    is_text = isinstance(row.comparison, TextComparison)
    metrics, details = _on_text(row, say) if is_text else _alone(row)
    (results / FOLDER).mkdir(parents=True, exist_ok=True)
    data, subset = details.pop("data"), details.pop("subset")
    write_record(
        results / FOLDER,
        task=TASK,
        data=data,
        subset=subset,
        recipe=f"{TASK}-{row.comparison.name}",
        seed=row.seed,
        metrics=metrics,
        details={"method": row.method, "settings": settings_of(row), **details},
        name=row.name,
    )
    return metrics


def _alone(row: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Time the layer in a process of its own, on all threads."""
    import torch

    from karui.tasks import output_peers
    from karui.tasks.output_process import measure_apart, megabytes_free

    wanted = row.comparison
    threads = torch.get_num_threads()
    shape = output_peers.Shape(wanted.classes, wanted.hidden, wanted.positions, wanted.num_samples, threads)
    needed, free = output_peers.megabytes_needed(row.method, shape), megabytes_free()
    if free is not None and needed > free:
        raise UserError(
            f"{row.name} needs about {needed / 1e3:.1f} GB, {free / 1e3:.1f} GB are free; close other programs"
        )
    output_peers.check_numbers([row.method], shape)
    measured = measure_apart(row.method, shape, repeats=wanted.repeats, seconds=wanted.seconds)
    counts = measured.pop("counts")
    del measured["method"]
    return measured, {"data": counts, "subset": False, "threads": threads}


def _on_text(row: Any, say: Say) -> tuple[dict[str, Any], dict[str, Any]]:
    """Choose the learning rates by short trials, train to equal time and to equal tokens, look at the layer."""
    from karui.tasks.language import load_corpus
    from karui.tasks.output_process import PeakMemory
    from karui.train.timed import Budget

    wanted = row.comparison
    corpus = load_corpus(wanted.data)
    memory, peaks = PeakMemory(), []
    memory()

    def trial(factor: float) -> float | None:
        """Validation perplexity of a short run; the memory is that of the first one's training steps."""
        is_first = not peaks
        budget = Budget(wanted.trial_seconds, wanted.trial_tokens, opens_test=False)
        looks = (lambda _: peaks.append(memory())) if is_first else (lambda _: None)
        end = _train(row, corpus, factor, budget, after_steps=looks)[1].end
        valid = end and end["valid"]
        shown = "diverged" if valid is None else f"validation perplexity {valid:.2f}"
        say(f"{row.name}  learning rates x {factor:.3g}  {shown}")
        return valid

    factor, trials = choose_factor(wanted.factors, wanted.extensions, trial)
    timed_task, timed = _train(row, corpus, factor, Budget(wanted.seconds, marks=wanted.marks), say=say)
    limit = Budget(examples=wanted.tokens, marks=wanted.marks, most_seconds=wanted.most_seconds)
    read_task, read = _train(row, corpus, factor, limit, say=say)
    metrics = {
        "classes": len(corpus.words),
        "parameters": sum(parameter.numel() for parameter in timed_task.model.parameters()),
        "step_ms": round(1e3 * statistics.median([*timed.step_seconds, *read.step_seconds]), 3),
        "peak_mb": round(max(peaks), 1),
        "perplexity_at_time": timed.end and timed.end["test"],
        "tokens_at_time": timed.end and timed.end["examples"],
        "perplexity_at_tokens": read.end and read.end["test"],
        "cpu_seconds_at_tokens": read.end and read.end["cpu_seconds"],
        **_look(row, timed_task if timed.examples >= read.examples else read_task, corpus),
    }
    reasons = {"perplexity_at_time": why_none(timed), "perplexity_at_tokens": why_none(read)}
    return metrics, {
        "data": corpus.name,
        "subset": corpus.subset,
        "factor": round(factor, 4),
        "trials": trials,
        "curve": timed.curve,
        "curve_at_tokens": read.curve,
        "reasons": {name: reason for name, reason in reasons.items() if reason},
    }


def choose_factor(
    factors: Sequence[float], extensions: int, trial: Callable[[float], float | None]
) -> tuple[float, list[dict[str, Any]]]:
    """Try the factors, rising, and return the best one and all trials, rising too.

    trial: returns a score, lower is better; None: diverged, which is worse than any. While the best is the smallest or
    the largest, one beyond it is tried, at the distance of its neighbour, up to `extensions` times; where all diverged,
    a smaller one.
    """
    scores = {factor: trial(factor) for factor in factors}
    for left in range(extensions, -1, -1):
        tried = sorted(scores)
        best = min(tried, key=lambda factor: (scores[factor] is None, scores[factor] or math.inf, factor))
        if not left or len(tried) == 1 or best not in (tried[0], tried[-1]):
            break
        beyond = best * best / (tried[1] if best == tried[0] else tried[-2])
        scores[beyond] = trial(beyond)
    return best, [{"factor": round(factor, 4), "valid": scores[factor]} for factor in sorted(scores)]


def why_none(result: Any) -> str | None:
    """Say why a run by the clock has no score; None where it has one."""
    if result.too_long is not None:
        return f"would take {result.too_long / 60:.0f} minutes"
    if result.diverged is not None:
        at = result.diverged
        return f"the loss was no longer finite after {at['cpu_seconds']:.0f} s and {at['examples']:,} tokens"
    return "the perplexity is too large for a number" if result.end["test"] is None else None


def _train(
    row: Any,
    corpus: Any,
    factor: float,
    budget: Any,
    *,
    say: Say = lambda _: None,
    after_steps: Callable[[int], Any] = lambda _: None,
) -> tuple[Any, Any]:
    """Train the row's method at a multiple of the learning rates; return the task and what the clock saw."""
    from dataclasses import replace

    from karui.tasks.language import LanguageTask, carried_nll, perplexity
    from karui.train.timed import train_timed

    wanted = row.comparison
    model = replace(wanted.model, output=row.method)
    train = replace(wanted.train, lr=wanted.train.lr * factor, sparse_lr=wanted.train.sparse_lr * factor)
    task: Any = LanguageTask(wanted.data, model, seed=row.seed, corpus=corpus)
    limits = {"valid": wanted.valid_tokens or None, "test": wanted.test_tokens or None}

    def score(split: str) -> float:
        return perplexity(carried_nll(task.model, corpus.split(split)[: limits[split]], corpus.eos))

    def told(entry: dict[str, Any]) -> None:
        valid = "not finite" if entry["valid"] is None else f"{entry['valid']:.2f}"
        say(f"{row.name}  {entry['cpu_seconds']:.0f} s  {entry['examples']:,} tokens  perplexity {valid}")

    result = train_timed(
        task,
        train,
        budget,
        examples_of=lambda batch: batch.targets.numel(),
        score=score,
        say=told,
        after_steps=after_steps,
    )
    return task, result


def _look(row: Any, task: Any, corpus: Any) -> dict[str, Any]:
    """Return the time of an exact query and the normaliser of the scores, on hidden vectors of the validation text."""
    import torch

    from karui.train.device import repeatable

    layer = task.model.output
    task.model.eval()
    with repeatable(row.comparison.train, torch.device("cpu")), torch.no_grad():
        tokens = torch.from_numpy(corpus.valid[: STATISTICS_TOKENS + 1]).long()
        hidden = task.model(tokens[:-1, None])[0][:, 0]
        k = min(TOP, layer.n_classes)
        spent = []
        for position in range(row.comparison.queries + 1):
            vector = hidden[position % len(hidden)][None]
            begin = time.process_time()
            layer.topk(vector, k)
            spent.append(time.process_time() - begin)
        log_z = layer.log_z(hidden)
        found = {
            "query_ms": round(1e3 * statistics.median(spent[1:]), 4),  # the first one warms up
            "log_z_mean": round(float(log_z.mean()), 4),
            "log_z_sd": round(float(log_z.std(correction=0)), 4),
        }
        if row.method == "negative":
            found |= _bare_scores(layer, hidden, tokens[1:])
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _bare_scores(layer: Any, hidden: Any, target: Any) -> dict[str, float]:
    """Return the perplexity of negative sampling with and without the log of its noise, on the same words."""
    from torch.nn import functional as F

    from karui.tasks.language import perplexity

    total = 0.0
    for rows, ids in zip(hidden.split(64), target.split(64), strict=True):
        scores = F.linear(rows, layer.weight, layer.bias)
        total += float(F.cross_entropy(scores, ids, reduction="sum"))
    return {
        "perplexity_as_softmax": round(perplexity(total / len(target)), 4),
        "perplexity_corrected": round(perplexity(float(layer.nll(hidden, target))), 4),
    }
