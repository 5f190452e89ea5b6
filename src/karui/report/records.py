"""Records of measured results: one JSON file a record below `results/`, so that each number can be made again.

A record has `task`, `data` {name, subset}, `recipe`, `seed`, `commit`, `torch`, `python`, `hardware`, `date` and
`metrics`; a record of rivals has `points` (see `schema.BaselineEntry`) beside empty metrics.
"""

import importlib.metadata
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from karui.errors import UserError
from karui.files import atomic_write

BASELINES = "baselines"  # the recipe of a record that holds rivals
_TYPES = {
    "task": str,
    "data": dict,
    "recipe": str,
    "seed": int,
    "commit": str,
    "hardware": str,
    "date": str,
    "metrics": dict,
}


def write_record(
    results_dir: Path,
    *,
    task: str,
    data: str,
    subset: bool,
    recipe: str,
    seed: int,
    metrics: Mapping[str, Any],
    points: Sequence[Mapping[str, Any]] = (),
    details: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> Path:
    """Write one record and return its path, `DATA-RECIPE-seedN.json` unless `name` says otherwise.

    Commit, versions, hardware and date are filled in here. `metrics` of a classifier: test_accuracy,
    artifact_bytes, dense_accuracy, dense_bytes, words_kept, us_per_document, and more where wanted. `details`: further
    keys of the record, such as the budget of a search.
    """
    record = {
        "task": task,
        "data": {"name": data, "subset": subset},
        "recipe": recipe,
        "seed": seed,
        **surroundings(),
        "metrics": dict(metrics),
        **(details or {}),
        **({"points": [dict(point) for point in points]} if points else {}),
    }
    check_record(record, "this record")
    folder = Path(results_dir)
    folder.mkdir(parents=True, exist_ok=True)
    stem = name or f"{data}-{recipe}-seed{seed}"
    path = folder / f"{re.sub(r'[^a-z0-9._]+', '-', stem.lower()).strip('-')}.json"
    atomic_write(path, json.dumps(record, indent=1) + "\n")
    return path


def surroundings() -> dict[str, str]:
    """Return what a number depends on besides its settings: commit, versions, hardware, date."""
    return {
        "commit": commit(),
        "karui": _version("karui"),
        "torch": _version("torch"),
        "python": platform.python_version(),
        "hardware": hardware(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def commit() -> str:
    """Return the short commit of the source this code runs from, "+" behind it where files differ, or "unknown".

    Records and the pages made of them may differ: the rows of a table are written one after the other.
    """
    folder = Path(__file__).resolve().parent
    if _git(folder, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return "unknown"  # an installed copy, perhaps inside somebody else's repository
    head = _git(folder, "rev-parse", "--short=12", "HEAD")
    made = [f":(top,exclude){name}" for name in ("results", "docs", "README.md")]
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ":(top)", *made)
    return f"{head}{'+' if changed else ''}" if head else "unknown"


def hardware() -> str:
    """Return processor and cores in generic words."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        model = platform.machine()  # not Linux
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores"


def read_records(results_dir: Path) -> list[dict[str, Any]]:
    """Read every record below a folder, sorted by path; JSON files of other kinds (no `recipe`) are passed over.

    Raises:
        UserError: a record lacks a key, or a key is of the wrong type.
    """
    records = []
    for path in sorted(Path(results_dir).rglob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path} is not JSON ({error}); repair or delete it") from error
        if isinstance(content, dict) and "recipe" in content:
            check_record(content, str(path))
            records.append(content)
    return records


def check_record(record: Mapping[str, Any], where: str) -> None:
    """Raise `UserError` naming the first key of a record that is missing or of the wrong type."""
    for key, kind in _TYPES.items():
        if key not in record:
            raise UserError(f"{where}: the key {key!r} is missing; every record has {', '.join(_TYPES)}")
        if not isinstance(record[key], kind):
            raise UserError(f"{where}: {key} must be {kind.__name__}, got {record[key]!r}")
    if not isinstance(record["data"].get("subset"), bool) or not record["data"].get("name"):
        raise UserError(f"{where}: data must have a name and subset true or false, got {record['data']!r}")
    accuracy = record["metrics"].get("test_accuracy")
    if accuracy is not None and not 0 <= accuracy <= 1:
        raise UserError(f"{where}: test_accuracy must be in [0, 1], got {accuracy!r}")


def data_title(record: Mapping[str, Any]) -> str:
    """Return the name of the data, with "(subset)" behind it where the training part is one."""
    return f"{record['data']['name']} (subset)" if record["data"]["subset"] else str(record["data"]["name"])


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
