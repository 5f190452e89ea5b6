"""`karui reproduce output-comparison`: every row in a process of its own, finished ones taken as they are."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from karui.cli.compare_outputs import make_row, record_path
from karui.errors import UserError

TABLE = "output-comparison"
SLOW_FIRST = ("full", "self-normalized")  # they take longest: begun first, they leave no core idle at the end


def make_rows(rows: dict[str, Any], *, results: Path, jobs: int, quiet: bool) -> list[dict[str, Any]]:
    """Make the rows that have no record yet; return name, record and metrics of all.

    Rows on a text use one thread each and run `jobs` at a time; those of layers alone use all and run one by one.

    Raises:
        UserError: rows failed, the others have their records; or a record is there that has other settings.
    """
    from karui.recipes.output_comparison import TextComparison

    pending = {name: row for name, row in rows.items() if not _is_made(results, row)}
    if len(rows) == 1:
        for row in pending.values():
            make_row(row, results, (lambda _: None) if quiet else _say)
    else:
        on_text = [row for row in pending.values() if isinstance(row.comparison, TextComparison)]
        on_text.sort(key=lambda row: row.method not in SLOW_FIRST)
        alone = [row for row in pending.values() if not isinstance(row.comparison, TextComparison)]
        failed = _run_all(on_text, results, jobs, quiet=quiet) + _run_all(alone, results, 1, quiet=quiet)
        if failed:
            raise UserError(
                f"{len(failed)} of {len(pending)} rows failed ({', '.join(failed)}); run it again for those"
            )
    return [_made(name, record_path(results, row)) for name, row in rows.items()]


def _is_made(results: Path, row: Any) -> bool:
    """Tell whether the record of a row is there; one of other settings is nobody's to take or to write over."""
    from karui.recipes.output_comparison import settings_of
    from karui.report.comparison import settings_differ

    path = record_path(results, row)
    if not path.exists():
        return False
    stored = json.loads(path.read_text(encoding="utf-8")).get("settings")
    if settings_differ(stored, json.loads(json.dumps(settings_of(row)))):
        raise UserError(
            f"{path} has other settings; remove it to make the row again, or name another --results folder"
        )
    return True


def _made(name: str, path: Path) -> dict[str, Any]:
    return {
        "row": name,
        "record": str(path),
        "metrics": json.loads(path.read_text(encoding="utf-8"))["metrics"],
    }


def _run_all(rows: Sequence[Any], results: Path, jobs: int, *, quiet: bool) -> list[str]:
    """Run each row in a new process, `jobs` at a time; return the names of those that failed."""
    waiting, running, failed = list(rows), {}, []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                name = waiting.pop(0).name
                running[name] = _start(name, results, quiet=quiet)
            for name, process in list(running.items()):
                if process.poll() is not None:
                    del running[name]
                    failed += [name] if process.returncode else []
            time.sleep(0.1)
    finally:
        for process in running.values():
            process.terminate()
            process.wait()
    return failed


def _start(name: str, results: Path, *, quiet: bool) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "karui", "reproduce", TABLE, name, "--results", str(results)]
    return subprocess.Popen(
        [*command, *(["--json"] if quiet else [])], stdout=subprocess.DEVNULL, env=dict(os.environ)
    )


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def line_of(made: dict[str, Any]) -> str:
    """What a person reads about one row."""
    metrics = made["metrics"]
    shown = [
        f"{metrics['step_ms']:.2f} ms a step",
        f"{metrics['peak_mb']:.0f} MB",
        f"{metrics['query_ms']:.3f} ms a query",
    ]
    if "perplexity_at_time" in metrics:
        scores = (metrics["perplexity_at_time"], metrics["perplexity_at_tokens"])
        at_time, at_tokens = ("none" if score is None else f"{score:.1f}" for score in scores)
        shown = [f"test perplexity {at_time} in equal time", f"{at_tokens} after equal tokens", *shown]
    return f"{made['row']}: {', '.join(shown)}"
