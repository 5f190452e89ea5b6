"""What the literature says of the output layers, and what becomes of it in our records.

Every figure and every verdict is computed here from the records; nothing is typed in but what others have written.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from karui.report.comparison import FLAT, FULL, SAMPLED, TITLES, Part

EQUAL = 1.03
"""Perplexities that differ by no more than this factor are called equal."""

FLAT_STEP = 1.3
"""A step that takes no more than this factor longer is called independent of the number of words."""

CONSISTENT = ("importance-target", "sampled", "nce")
FACTORISED = ("huffman", "class", "adaptive")
AT_TIME, AT_TOKENS = "perplexity_at_time", "perplexity_at_tokens"

Rows = Mapping[tuple[str, int], Mapping[str, Any]]


class Finding(NamedTuple):
    """What was measured, in words, and for each figure whether the claim holds in it; empty: it says neither."""

    measured: str
    holds: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Claim:
    """A sentence of others, where it stands, and how our records are asked about it."""

    said: str
    source: str
    ask: Callable[[Sequence[Part], Rows], list[Finding]]

    def to_markdown(self, parts: Sequence[Part], rows: Rows) -> str | None:
        """The claim and the findings as one item of a list; None where no record speaks to it."""
        findings = self.ask(parts, rows)
        if not findings:
            return None
        verdict = verdict_of([one for finding in findings for one in finding.holds])
        measured = "; ".join(finding.measured for finding in findings)
        return f"- *{self.said}* ({self.source}) **{verdict}** Here: {measured}."


def verdict_of(holds: Sequence[bool]) -> str:
    """A few words over all figures."""
    if not holds:
        return "Measured."
    return "Holds." if all(holds) else "Holds in part." if any(holds) else "Does not hold."


def texts(parts: Sequence[Part]) -> list[Part]:
    """The parts that are texts."""
    return [part for part in parts if part.is_text]


def times(ratio: float) -> str:
    """A ratio: 0.98, 1.4, 16, 1,230."""
    if ratio >= 99.5:
        return f"{float(f'{ratio:.3g}'):,.0f}"
    return f"{ratio:.0f}" if ratio >= 9.95 else f"{ratio:.2f}"


def listed(names: Sequence[str]) -> str:
    """Names in a row: a, b and c."""
    shown = [TITLES[name] for name in names]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _growth(rows: Rows, methods: Sequence[str], limit: Callable[[int, int], float]) -> list[Finding]:
    """How much longer a step takes at the most classes of the recorded benchmark than at the fewest."""
    groups: dict[tuple[int, int], list[tuple[str, float]]] = {}
    for method in methods:
        sizes = sorted(classes for name, classes in rows if name == method)
        if len(sizes) > 1:
            few, many = sizes[0], sizes[-1]
            ratio = rows[method, many]["step_ms"] / rows[method, few]["step_ms"]
            groups.setdefault((few, many), []).append((method, ratio))
    return [
        Finding(
            f"a step at {many:,} words over one at {few:,}: {_figures(found)}",
            tuple(ratio <= limit(few, many) for _, ratio in found),
        )
        for (few, many), found in groups.items()
    ]


def _figures(found: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{TITLES[method]} {times(ratio)}" for method, ratio in found)


def _beside(
    parts: Sequence[Part],
    methods: Sequence[str],
    other: str,
    keys: Sequence[str],
    holds: Callable[[float], bool] | None,
) -> list[Finding]:
    """Perplexities over that of another method, one finding a text and budget."""
    findings = []
    for part in texts(parts):
        for key in keys:
            found = [(m, ratio) for m in methods if (ratio := part.ratio(m, other, key)) is not None]
            when = "in equal time" if key == AT_TIME else "after equal tokens"
            if found:
                text = f"{part.name} {when}, perplexity over that of {TITLES[other]}: {_figures(found)}"
                findings.append(Finding(text, tuple(holds(ratio) for _, ratio in found) if holds else ()))
    return findings


def _ratios(
    methods: Sequence[str], other: str, keys: Sequence[str], holds: Callable[[float], bool]
) -> Callable[[Sequence[Part], Rows], list[Finding]]:
    """A question about perplexities alone."""
    return lambda parts, _: _beside(parts, methods, other, keys, holds)


def _negative(parts: Sequence[Part], rows: Rows) -> list[Finding]:
    del rows
    found = []
    for part in texts(parts):
        bare, corrected = (
            part.value("negative", "perplexity_as_softmax"),
            part.value("negative", "perplexity_corrected"),
        )
        if bare and corrected:
            text = (
                f"on {part.name} softmax(s) has {times(bare / corrected)} times the perplexity of softmax(s + log q), "
                "on the same words"
            )
            found.append(Finding(text, (bare > EQUAL * corrected,)))
    return found


def _adaptive(parts: Sequence[Part], rows: Rows) -> list[Finding]:
    del rows
    found = _beside(parts, ["adaptive"], FULL, [AT_TOKENS], lambda ratio: ratio <= EQUAL)
    for part in texts(parts):
        faster = part.ratio(FULL, "adaptive", "step_ms")
        if faster:
            text = f"a step of the model on {part.name} takes {TITLES[FULL]} {times(faster)} times as long"
            found.append(Finding(text, (faster >= 2.0,)))
    return found


def _nce(parts: Sequence[Part], rows: Rows) -> list[Finding]:
    del rows
    found = _beside(parts, ["nce"], "importance-target", [AT_TOKENS], lambda ratio: ratio > EQUAL)
    for part in texts(parts):
        ranked = [method for method, _ in part.ranked(AT_TIME)]
        if "nce" in ranked:
            text = f"in equal time it is number {ranked.index('nce') + 1} of {len(ranked)} on {part.name}"
            found.append(Finding(text))
    return found


def _normaliser(parts: Sequence[Part], rows: Rows) -> list[Finding]:
    """Root mean square of log Z: its distance from 0."""
    del rows
    found = []
    for part in texts(parts):
        sizes = {
            method: math.hypot(mean, spread)
            for method in ("self-normalized", "nce", FULL)
            if (mean := part.value(method, "log_z_mean")) is not None
            and (spread := part.value(method, "log_z_sd")) is not None
        }
        if len(sizes) > 1:
            text = f"{part.name}, root mean square of log Z: "
            text += ", ".join(f"{TITLES[method]} {size:.2f}" for method, size in sizes.items())
            near = tuple(size < 1.0 for method, size in sizes.items() if method != FULL)
            found.append(Finding(text, near))
    return found + _beside(parts, ["self-normalized"], FULL, [AT_TOKENS], None)


def _pays(parts: Sequence[Part], rows: Rows) -> list[Finding]:
    del rows
    found = []
    for part in texts(parts):
        full = part.value(FULL, AT_TIME)
        others = [(m, value) for m, value in part.ranked(AT_TIME) if m != FULL]
        if full and others:
            better = [method for method, value in others if value < full]
            best, value = others[0]
            text = (
                f"{len(better)} of {len(others)} methods are below {TITLES[FULL]} on {part.name} in equal time, "
                f"the best, {TITLES[best]}, at {times(value / full)} times its perplexity"
            )
            found.append(Finding(text, (bool(better),)))
    return found


def _memory(parts: Sequence[Part], rows: Rows) -> list[Finding]:
    del rows
    found = []
    for part in parts:
        ratios = {m: r for m in SAMPLED if (r := part.ratio(FULL, m, "peak_mb")) is not None}
        if ratios and not part.is_text:
            least, most = min(ratios.values()), max(ratios.values())
            text = (
                f"at {part.classes:,} words {TITLES[FULL]} with Adam needs {times(least)} to {times(most)} times "
                "the memory of the sampled layers with row-wise Adagrad"
            )
            found.append(Finding(text, (least >= 2.0,)))
    return found


def _queries(parts: Sequence[Part], rows: Rows) -> list[Finding]:
    del rows
    found = []
    for part in parts:
        ratios = [(m, ratio) for m in FACTORISED if (ratio := part.ratio(FULL, m, "query_ms")) is not None]
        if ratios:
            text = f"{part.name}, {TITLES[FULL]}'s time over theirs: {_figures(ratios)}"
            found.append(Finding(text, tuple(ratio > 1.0 for _, ratio in ratios)))
    return found


CLAIMS = (
    Claim(
        "Importance sampling, NCE, negative sampling and BlackOut cost O(k) a position, not O(V).",
        "the textbook chapter, section 4.3",
        lambda _, rows: _growth(rows, SAMPLED, lambda _few, _many: FLAT_STEP),
    ),
    Claim(
        "A Huffman tree costs H log V a position, class softmax H sqrt(V).",
        "the same; Goodman 2001",
        lambda _, rows: [
            *_growth(rows, ["huffman"], lambda few, many: FLAT_STEP * math.log(many) / math.log(few)),
            *_growth(rows, ["class"], lambda few, many: FLAT_STEP * math.sqrt(many / few)),
        ],
    ),
    Claim(
        "Approximations pay: with the same time they end below the full softmax.",
        "the chapter's reason",
        _pays,
    ),
    Claim(
        "Sampled softmax with hits kept, importance sampling with the target and NCE learn the same distribution as "
        "the full softmax.",
        "consistency; Ma and Collins 2018, Gao et al. 2021",
        _ratios(CONSISTENT, FULL, [AT_TOKENS], lambda ratio: ratio <= EQUAL),
    ),
    Claim(
        "Negative sampling does not learn p; its scores plus log q do.",
        "Mikolov et al. 2013; Melamud, Dagan, Goldberger 2017",
        _negative,
    ),
    Claim(
        "BlackOut has a small bias.",
        "Ji et al. 2016; at most a tenth of the perplexity here",
        _ratios(["blackout"], FULL, [AT_TOKENS], lambda ratio: ratio <= 1.10),
    ),
    Claim(
        "Trees are 1.1 to 1.5 times worse than NCE.",
        "faster-rnnlm",
        _ratios(
            ["huffman"], "nce", [AT_TOKENS, AT_TIME], lambda ratio: 1.05 <= ratio < 1.55
        ),  # to one decimal
    ),
    Claim(
        "Adaptive softmax has the quality of the full softmax in less than half of the time.",
        "Grave et al. 2017",
        _adaptive,
    ),
    Claim(
        "Sampling is clearly worse than the full softmax.",
        "Grave et al. 2017; the opposite: Jozefowicz et al. 2016",
        _ratios(["sampled"], FULL, [AT_TOKENS, AT_TIME], lambda ratio: ratio > EQUAL),
    ),
    Claim("NCE is behind importance sampling.", "Jozefowicz et al. 2016; equal: Gao et al. 2021", _nce),
    Claim(
        "Self-normalised softmax and NCE bring log Z near 0.",
        "Devlin et al. 2014; Mnih and Teh 2012",
        _normaliser,
    ),
    Claim(
        "Sampled softmax with hits kept is as good as importance sampling with the target.",
        "open in the literature",
        _ratios(["sampled"], "importance-target", [AT_TOKENS, AT_TIME], lambda ratio: ratio <= EQUAL),
    ),
    Claim("Rows with a rule of their own need less than half of the memory.", "Lerer et al. 2019", _memory),
    Claim(
        "Factorised layers answer an exact query sooner than a table of all words.",
        "Grave et al. 2017",
        _queries,
    ),
)
"""In the order of the page."""


def winners(part: Part) -> list[str]:
    """Sentences that name who wins in a part: perplexity, step, memory, query."""
    out = []
    where = f"**{part.name}**, {part.classes:,} words"
    if part.is_text:
        seconds, tokens = part.settings["seconds"], part.settings["tokens"]
        for key, budget in (
            (AT_TIME, f"after {seconds:g} s of training"),
            (AT_TOKENS, f"after {tokens:,} tokens"),
        ):
            ranked = part.ranked(key)
            if len(ranked) > 1:
                out.append(_first(part, key, budget, ranked))
    costs = (
        ("step_ms", "the fastest step", "ms"),
        ("peak_mb", "the least memory", "MB"),
        ("query_ms", "the fastest exact query", "ms"),
    )
    for key, what, unit in costs:
        ranked = part.ranked(key)
        if len(ranked) > 1:
            (best, value), last = ranked[0], ranked[-1]
            out.append(
                f"{what} is that of {TITLES[best]}, {value:,.3g} {unit}; the other end is {TITLES[last[0]]} with "
                f"{times(last[1] / value)} times as much"
            )
    return [f"{where}: {out[0]}.", *(f"{text[0].upper()}{text[1:]}." for text in out[1:])] if out else []


def _first(part: Part, key: str, budget: str, ranked: Sequence[tuple[str, float]]) -> str:
    (best, value), (second, second_value) = ranked[0], ranked[1]
    level = [method for method, other in ranked[1:] if other <= EQUAL * value]
    text = f"{budget} {TITLES[best]} has the lowest test perplexity, {value:.1f}"
    if level:
        text += f", and {listed(level)} {'is' if len(level) == 1 else 'are'} within {100 * (EQUAL - 1):.0f} %"
    else:
        text += f", before {TITLES[second]} with {second_value:.1f}"
    full = part.value(FULL, key)
    if best != FULL and full is not None:
        text += f"; {TITLES[FULL]} stands at {full:.1f}, {times(full / value)} times as much"
    flat = [method for method, _ in ranked if method in FLAT]
    if flat and best not in FLAT:
        text += f"; the best layer with one table is {TITLES[flat[0]]}"
    return text
