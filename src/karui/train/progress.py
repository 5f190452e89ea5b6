"""What a person sees while a run goes on: a bar in a terminal, plain lines elsewhere, nothing when quiet.

Everything goes to stderr: stdout belongs to `--json`.
"""

import sys
import time
from typing import Any

REDRAW_S = 0.2


class Progress:
    """A bar over all steps of the run, and one line for each evaluation."""

    def __init__(self, total_steps: int, *, done: int = 0, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._next_redraw = 0.0
        if quiet or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
        self._bar = RichProgress(*columns, console=Console(stderr=True), auto_refresh=False)
        self._task = self._bar.add_task("", total=total_steps, completed=done)
        self._bar.start()

    def step(self, done: int, loss: float) -> None:
        """Show the number of steps done; redraws at most every 0.2 s."""
        if self._bar is None or time.monotonic() < self._next_redraw:
            return
        self._next_redraw = time.monotonic() + REDRAW_S
        self._bar.update(self._task, completed=done, description=f"loss {loss:.4f}", refresh=True)

    def say(self, line: str) -> None:
        """Show a line that stays."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, markup=False)
        else:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
