"""What the report reads from a run folder. Every file may be missing; unknown keys are ignored.

| file | written by | holds |
|---|---|---|
| `config.json` | `karui train` | the recipe |
| `metrics.jsonl` | `karui train` | one `MetricsLine` a line |
| `results.json` | `karui train` | `task`, `data`, `subset`, `recipe`, `seed`, `hardware`, `date`, `metrics` |
| `compact.json` | `karui compact` | `CompactSummary` |
| `examples.json` | `karui compact` | a list of `Example` |
| `baselines.json` | `karui report` | `Baselines` |

Accuracies are fractions in [0, 1]; sizes are bytes of whole files, vocabulary included.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from karui.errors import UserError


class MetricsLine(TypedDict, total=False):
    """One line of the log. Training lines have `loss` and `penalty`; validation lines have the rest."""

    epoch: int
    step: int
    split: str  # "train" or "valid"
    loss: float
    penalty: float  # KL in nats, summed over weights
    penalty_weight: float
    nll: float
    accuracy: float
    density: float
    words_kept: int
    sparsity: dict[str, Any]  # of a sparse model: see karui.tasks.sparse_details
    flops_share: float  # of kept weights over all, as deployed
    expected_flops_share: float
    lr: float
    seconds: float


class CompactFile(TypedDict):
    """One `.karui` file made from the run."""

    path: str  # relative to the run folder, or absolute
    artifact_bytes: int  # size of the file on disk
    values: str  # "fp32", "fp16" or "int8"
    sizes: dict[
        str, int
    ]  # part -> bytes: "words", "embedding", "recurrent", "output", "header", ...; adds up to all
    words_kept: int
    valid_accuracy: float | None
    test_accuracy: float | None  # None where the set has no test split
    us_per_document: float | None  # one thread, one text at a time, tokenisation included


class DenseModel(TypedDict):
    """The model that the compact files are compared with: every word and weight kept, stored as fp32."""

    artifact_bytes: int
    valid_accuracy: float | None
    test_accuracy: float | None
    us_per_document: float | None
    words_kept: NotRequired[int]


# A kept word: how strongly it speaks, and for which label.
WordWeight = TypedDict("WordWeight", {"word": str, "weight": float, "class": str})


class CompactSummary(TypedDict, total=False):
    """`compact.json`: all files made from a run, what they are compared with, and the words they keep."""

    files: list[CompactFile]
    dense: DenseModel
    words: list[WordWeight]  # any order; `weight` may have a sign, its size counts


class Example(TypedDict):
    """One document with the words the model reads.

    `spans` are (start, end, weight): positions in code points of `text`; a positive weight speaks for the predicted
    label, a negative one against it. `label` and `predicted` are label names.
    """

    text: str
    label: str
    predicted: str
    spans: list[tuple[int, int, float]]


class BaselineEntry(TypedDict):
    """One file of a rival; `name` says which rival, `settings` made it."""

    name: str
    artifact_bytes: int
    valid_accuracy: float
    test_accuracy: float | None
    us_per_document: float
    settings: dict[str, Any]


class Baselines(TypedDict):
    """`baselines.json`: each rival at each budget, chosen on the validation split; `notes` say what is missing."""

    seed: int
    points: list[BaselineEntry]
    notes: list[str]


class CurvePoint(TypedDict):
    """Where training by the clock stood at one evaluation. Seconds are those of training steps, without evaluations."""

    cpu_seconds: float  # of the process, all its threads
    seconds: float  # wall clock
    steps: int
    examples: int  # tokens read
    valid: float | None  # perplexity; None: not finite


class ComparisonMetrics(TypedDict, total=False):
    """What one output layer did. Without a text: `step_ms`, `optimizer_ms`, `query_ms`, `peak_mb` alone are there."""

    classes: int
    parameters: int
    step_ms: (
        float  # a whole training step; of the model in CPU time on a text, of the layer alone without one
    )
    optimizer_ms: float
    query_ms: float  # ten best words of one hidden vector, exact
    peak_mb: float  # what training adds to the process, at its highest point
    perplexity_at_time: float | None  # test, end of the run of `seconds`; None: `reasons` says why
    tokens_at_time: int
    perplexity_at_tokens: float | None  # test, end of the run of `tokens`
    cpu_seconds_at_tokens: float
    log_z_mean: float  # of the un-normalised scores, on validation
    log_z_sd: float
    perplexity_as_softmax: float  # negative sampling: softmax of its bare scores, on validation words ...
    perplexity_corrected: float  # ... and with the log of the noise added, on the same words


class ComparisonRecord(TypedDict):
    """One record of `results/output_comparison`: an output layer on a text (`curve`), or alone (no `curve`)."""

    method: str
    metrics: ComparisonMetrics
    settings: dict[str, Any]
    trials: NotRequired[list[dict[str, Any]]]  # factor on the learning rates, and the validation perplexity
    factor: NotRequired[float]  # the best of them
    curve: NotRequired[list[CurvePoint]]  # of the run of equal time
    curve_at_tokens: NotRequired[list[CurvePoint]]  # of the run of equal tokens
    reasons: NotRequired[dict[str, str]]  # metric that is None -> why


def check_comparison(record: Mapping[str, Any], where: str) -> None:
    """Raise `UserError` naming the first key of a record of the output comparison that is missing or no number."""
    wanted = ["classes", "parameters", "step_ms", "query_ms", "peak_mb"]
    if "curve" in record:
        wanted += ["perplexity_at_time", "perplexity_at_tokens"]
    for key in ("method", "settings"):
        if key not in record:
            raise UserError(f"{where}: the key {key!r} is missing; delete the file and make its row again")
    for key in wanted:
        value = record["metrics"].get(key, "")
        may_be_none = key.startswith("perplexity")
        if not (value is None and may_be_none) and not isinstance(value, int | float):
            raise UserError(f"{where}: metrics.{key} must be a number, got {value!r}; make its row again")
    for point in (*record.get("curve", ()), *record.get("curve_at_tokens", ())):
        missing = [key for key in CurvePoint.__annotations__ if key not in point]
        if missing:
            raise UserError(f"{where}: a point of the curve lacks {missing[0]!r}; make its row again")


@dataclass
class RunFolder:
    """Everything the report shows of one run; a missing file is an empty value."""

    path: Path
    config: dict[str, Any] = field(default_factory=dict)
    metrics: list[MetricsLine] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)
    compact: CompactSummary = field(default_factory=lambda: CompactSummary())  # noqa: PLW0108 - a TypedDict is no type here
    examples: list[Example] = field(default_factory=list)
    baselines: Baselines | None = None

    @property
    def data_name(self) -> str:
        """The data set, with "(subset)" behind it where its training part is one."""
        data = self.results.get("data") or self.config.get("data", {})
        name = data.get("name", "") if isinstance(data, dict) else str(data)
        subset = data.get("subset", False) if isinstance(data, dict) else False
        return f"{name} (subset)" if subset or self.results.get("subset") else name

    @property
    def recipe_name(self) -> str:
        """The name of the recipe, or ""."""
        return str(self.results.get("recipe") or self.config.get("name", ""))

    @property
    def files(self) -> list[CompactFile]:
        """The compact files, smallest first."""
        return sorted(self.compact.get("files", []), key=lambda file: file["artifact_bytes"])


def load_run(run_dir: Path) -> RunFolder:
    """Read a run folder.

    Raises:
        UserError: there is no such folder, it holds no file of a run, or a file is not what it should be.
    """
    folder = Path(run_dir)
    if not folder.is_dir():
        raise UserError(f"{folder} is no run folder; karui train ... --out {folder} makes one")
    run = RunFolder(
        path=folder,
        config=_read(folder / "config.json", dict) or {},
        metrics=_read_lines(folder / "metrics.jsonl"),
        results=_read(folder / "results.json", dict) or {},
        compact=_read(folder / "compact.json", dict) or CompactSummary(),
        examples=_read(folder / "examples.json", list) or [],
        baselines=_read(folder / "baselines.json", dict),
    )
    if not (run.config or run.metrics or run.results or run.compact):
        raise UserError(
            f"{folder} holds no run (no config.json, no metrics.jsonl); give the --out of a karui train"
        )
    _check(run)
    return run


def _read(path: Path, kind: type) -> Any:
    if not path.exists():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); delete it and run its command again") from error
    if not isinstance(value, kind):
        raise UserError(f"{path} should hold a {kind.__name__}; delete it and run its command again")
    return value


def _read_lines(path: Path) -> list[MetricsLine]:
    """Read `metrics.jsonl`; a last line that a killed run left unfinished is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(json.loads(line))
        except ValueError as error:
            if number < len(lines):
                raise UserError(f"{path}:{number} is not JSON; delete that line") from error
    return [cast("MetricsLine", line) for line in found if isinstance(line, dict)]


def _check(run: RunFolder) -> None:
    """Look for the keys that tables and figures cannot do without."""
    wanted = [
        ("compact.json", run.compact.get("files", []), ("artifact_bytes", "values", "sizes")),
        ("compact.json", [entry for entry in [run.compact.get("dense")] if entry], ("artifact_bytes",)),
        ("compact.json", run.compact.get("words", []), ("word", "weight", "class")),
        ("examples.json", run.examples, ("text", "label", "predicted", "spans")),
        (
            "baselines.json",
            (run.baselines or {}).get("points", []),
            ("name", "artifact_bytes", "valid_accuracy"),
        ),
    ]
    for name, entries, keys in wanted:
        for entry in entries:
            missing = [key for key in keys if key not in entry]
            if missing:
                raise UserError(f"{run.path / name}: an entry lacks {missing[0]!r}; run its command again")
