"""`report.html`: one page about one run, complete in itself. Every text that comes from data is escaped."""

import html
import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from karui.files import atomic_write
from karui.report import figures
from karui.report.schema import Example, RunFolder, WordWeight, load_run
from karui.report.sparse_figures import sparse_section
from karui.report.tables import Column, Table, accuracy_key, dense_of, run_table
from karui.report.units import format_bytes, format_percent, format_times, format_us

STYLE = Path(__file__).with_name("style.css")
WORDS_SHOWN, WORDS_PER_CLASS = 96, (8, 24)  # in all; at least and at most for one label
LOSSES = {
    "pixels": "loss (nats an image)",
    "images": "loss (nats an image)",
    "music": "loss (nats a step)",
    "copy": "loss (nats a step)",
    "adding": "loss (squared error)",
}
MAX_EXAMPLES = 12
MAX_CHARACTERS = 1500  # of one example


def write_report(run_dir: Path, *, dense_dir: Path | None = None) -> Path:
    """Write `report.html` into a run folder and return its path.

    `dense_dir` is a run trained without sparsification, for comparison. What a run lacks is left out, with a line
    that says which command makes it.

    Raises:
        UserError: the folder holds no run, a file in it is broken, or the page cannot be written.
    """
    run = load_run(Path(run_dir))
    dense = None if dense_dir is None else load_run(Path(dense_dir))
    path = run.path / "report.html"
    atomic_write(path, render(run, dense))
    return path


def render(run: RunFolder, dense: RunFolder | None = None) -> str:
    """Return the page of a run as HTML."""
    title = " · ".join(part for part in (run.data_name, run.recipe_name) if part) or run.path.name
    facts = [f"{key} {run.results[key]}" for key in ("seed", "date", "hardware") if key in run.results]
    if run.results.get("task", "classification") != "classification":
        sections = [_metrics_section(run), _curves_section(run), _sparse_section(run), _settings_section(run)]
        return _page(title, facts, sections)
    sections = [
        _section("Results", run_table(run, dense).to_html()),
        _accuracy_section(run, dense),
        _curves_section(run),
        _sparse_section(run),
        _bytes_section(run),
        _words_section(run),
        _examples_section(run),
        _settings_section(run),
    ]
    footer = "sizes are bytes of whole files, vocabulary included."
    return _page(title, facts, [_tiles(run, dense), *sections], footer=footer)


def _page(title: str, facts: Sequence[str], sections: Sequence[str], *, footer: str = "") -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{_text(title)} · karui</title>\n"
        f"<style>{STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n<main>\n"
        f"<header><h1>{_text(title)}</h1><p>{_text(' · '.join(facts))}</p></header>\n"
        f"{''.join(sections)}"
        f"<footer>Written by <code>karui report</code>{'; ' if footer else ''}{footer}"
        "</footer>\n</main>\n</body>\n</html>\n"
    )


def _text(value: object) -> str:
    # Lone surrogates, which JSON can carry, have no place in a UTF-8 page.
    return html.escape(str(value).encode("utf-8", "replace").decode())


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{_text(title)}</h2>\n{body}\n</section>\n"


def _missing(what: str, command: str) -> str:
    return f'<p class="missing">{_text(what)}: <code>{_text(command)}</code></p>'


def _tiles(run: RunFolder, dense: RunFolder | None) -> str:
    """Return the few numbers that matter, of the smallest file."""
    if not run.files:
        return ""
    file, key, compared = run.files[0], accuracy_key(run), dense_of(run, dense)
    tiles = [
        (format_percent(file.get(key)), key.replace("_", " ")),
        (format_bytes(file["artifact_bytes"]), f"one file, {file['values']} values"),
    ]
    if compared:
        tiles.append(
            (format_times(compared["artifact_bytes"] / file["artifact_bytes"]), "smaller than dense")
        )
    if file.get("us_per_document") is not None:
        tiles.append((f"{format_us(file['us_per_document'])} µs", "a document, one thread"))
    if file.get("words_kept") is not None:
        tiles.append((f"{file['words_kept']:,}", "words kept"))
    shown = "".join(f'<div class="tile"><b>{_text(b)}</b><span>{_text(t)}</span></div>' for b, t in tiles)
    return f'<div class="tiles">{shown}</div>\n'


def _metrics_section(run: RunFolder) -> str:
    """Return the figures of a run that makes no compact file."""
    table = Table([Column("figure"), Column("value", number=True)])
    for name, value in run.results.get("metrics", {}).items():
        table.rows.append(
            [name.replace("_", " "), f"{value:,}" if isinstance(value, int) else f"{value:.4g}"]
        )
    return _section("Results", table.to_html())


def _accuracy_section(run: RunFolder, dense: RunFolder | None) -> str:
    points: Sequence[Mapping[str, Any]] = (run.baselines or {}).get("points", [])
    figure = figures.accuracy_against_bytes(run.files, dense_of(run, dense), points, key=accuracy_key(run))
    body = figure or _missing(
        "Nothing to draw yet; this makes compact files", f"karui compact {run.path} -o model.karui"
    )
    return _section("Accuracy against bytes", body)


def _curves_section(run: RunFolder) -> str:
    task = run.results.get("task", "classification")
    figure = figures.learning_curves(run.metrics, loss=LOSSES.get(task, "loss (nats a document)"))
    return _section(
        "Learning curves", figure or _missing("No metrics.jsonl here; this writes one", "karui train")
    )


def _sparse_section(run: RunFolder) -> str:
    body = sparse_section(run.metrics)
    return _section("What was pruned", body) if body else ""


def _bytes_section(run: RunFolder) -> str:
    figure = figures.bytes_by_part(run.files)
    if figure is None:
        return _section(
            "Where the bytes are", _missing("No compact file yet", f"karui compact {run.path} -o model.karui")
        )
    parts = list(dict.fromkeys(part for file in run.files for part in file["sizes"]))
    table = Table(
        [Column("values"), *(Column(part, number=True) for part in parts), Column("whole file", number=True)]
    )
    for file in run.files:
        sizes = [f"{file['sizes'].get(part, 0):,}" for part in parts]
        table.rows.append([file["values"], *sizes, f"{file['artifact_bytes']:,}"])
    return _section("Where the bytes are", figure + table.to_html())


def _words_section(run: RunFolder) -> str:
    words = run.compact.get("words", [])
    if not words:
        return _section(
            "Kept words", _missing("No word list yet", f"karui compact {run.path} -o model.karui")
        )
    ordered = sorted(words, key=lambda word: (word["class"], -abs(word["weight"])))
    labels = {name: list(group) for name, group in groupby(ordered, key=lambda word: word["class"])}
    least, most = WORDS_PER_CLASS
    shown = min(max(WORDS_SHOWN // len(labels), least), most)
    columns = [
        f"<div><h3>{_text(name)}</h3><ol>{_word_bars(group[:shown])}</ol></div>"
        for name, group in labels.items()
    ]
    lead = (
        f"<p>{len(words):,} words, by the label they speak for, the strongest first; "
        "bars compare the words of one label.</p>"
    )
    return _section("Kept words", f'{lead}<div class="words">{"".join(columns)}</div>{_all_words(ordered)}')


def _word_bars(words: Sequence[WordWeight]) -> str:
    strongest = abs(words[0]["weight"]) or 1.0
    shown = []
    for word in words:
        text, width = _text(word["word"]), 100 * abs(word["weight"]) / strongest
        bar = f'<span class="bar" style="width:{width:.1f}%" title="{word["weight"]:+.3g}"></span>'
        shown.append(f'<li><span title="{text}">{text}</span>{bar}</li>')
    return "".join(shown)


def _all_words(words: Sequence[WordWeight]) -> str:
    listed = ", ".join(sorted({_text(word["word"]) for word in words}))
    return f'<details class="note"><summary>all kept words</summary><p style="max-width:none">{listed}</p></details>'


def _examples_section(run: RunFolder) -> str:
    if not run.examples:
        return _section(
            "What the model reads", _missing("No examples yet", f"karui compact {run.path} -o model.karui")
        )
    legend = (
        '<p class="legend"><mark style="background:rgba(var(--for),.4)">speaks for the answer</mark>'
        '<mark style="background:rgba(var(--against),.4)">speaks against it</mark> '
        "unmarked words are not in the file: the model reads past them.</p>"
    )
    return _section("What the model reads", legend + "".join(map(_example, run.examples[:MAX_EXAMPLES])))


def _example(example: Example) -> str:
    is_right = example["label"] == example["predicted"]
    tags = (
        f'<span class="tag {"right" if is_right else "wrong"}">answer: {_text(example["predicted"])}</span>'
    )
    if not is_right:
        tags += f' <span class="tag">label: {_text(example["label"])}</span>'
    return f'<div class="example">{tags}<p class="text">{highlighted(example["text"], example["spans"])}</p></div>'


def highlighted(text: str, spans: Sequence[Sequence[float]]) -> str:
    """Return escaped text with the spans marked, coloured by the sign and size of their weights.

    Spans outside the text, or beginning before the last one ended, are left out.
    """
    strongest = max((abs(weight) for _, _, weight in spans), default=0.0) or 1.0
    shown, position = [], 0
    for first, last, weight in sorted(map(tuple, spans)):
        start, end = int(first), int(last)
        if start < position or end <= start or end > min(len(text), MAX_CHARACTERS):
            continue
        name, strength = ("for" if weight >= 0 else "against"), 0.08 + 0.52 * abs(weight) / strongest
        shown.append(_text(text[position:start]))
        color = f"background:rgba(var(--{name}),{strength:.2f})"
        shown.append(f'<mark style="{color}" title="{weight:+.3g}">{_text(text[start:end])}</mark>')
        position = end
    shown.append(_text(text[position:MAX_CHARACTERS]))
    return "".join(shown) + (" …" if len(text) > MAX_CHARACTERS else "")


def _settings_section(run: RunFolder) -> str:
    if not run.config:
        return ""
    settings = _text(json.dumps(run.config, indent=2, ensure_ascii=False))
    return f"<section>\n<details><summary>Settings</summary><pre>{settings}</pre></details>\n</section>\n"
