"""`karui predict` for language models: what comes after each line, or how probable the line is."""

import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from karui.runtime.language import LanguageModel

LN_10 = math.log(10.0)


def language_answers(
    model: "LanguageModel", texts: Iterator[str], *, top: int, score: bool, as_json: bool
) -> Iterator[str]:
    """One line for each text, which is read by itself: the `top` next tokens, or with `score` the text's figures."""
    for text in texts:
        if score:
            yield _score(model, text, as_json=as_json)
            continue
        found = model.next(text, min(top, len(model)))
        if as_json:
            words = [{"token": token, "probability": round(share, 7)} for token, share in found]
            yield json.dumps({"next": words}, ensure_ascii=False)
        else:
            yield "\t".join(f"{token}={share:.6f}" for token, share in found)


def _score(model: "LanguageModel", text: str, *, as_json: bool) -> str:
    """Log-probability to base 10 of a line and its end, perplexity, tokens, and those that are not in the word list."""
    found = model.score(text)
    oovs = sum(not token.is_known for token in found.tokens)
    log10, perplexity = found.log_prob / LN_10, math.exp(min(700.0, -found.log_prob / len(found.tokens)))
    if as_json:
        tokens = [
            {"token": token, "log10_prob": _finite(log_prob / LN_10), "is_known": is_known}
            for token, log_prob, is_known in found.tokens
        ]
        record: dict[str, Any] = {"log10_prob": _finite(log10), "tokens": tokens, "oovs": oovs}
        return json.dumps(record, ensure_ascii=False)
    return f"{log10:.4f}\tperplexity={perplexity:.2f}\ttokens={len(found.tokens)}\toovs={oovs}"


def _finite(value: float) -> float | None:
    """JSON has no infinity: null."""
    return round(value, 7) if math.isfinite(value) else None
