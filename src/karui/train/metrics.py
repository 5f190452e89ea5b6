"""The log of a run: `metrics.jsonl`, one JSON object a line, and the same figures as TensorBoard events."""

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from karui.errors import UserError
from karui.files import os_reason

_NOT_CURVES = {"epoch", "step", "split", "seconds"}


class MetricsLog:
    """Appends lines to `metrics.jsonl`; a resumed run continues exactly behind the last checkpoint.

    `offset` is the size in bytes the file had when the checkpoint was written, 0 for a new run: what a killed
    run wrote behind it is cut off and written again, so that lines are neither lost nor doubled. TensorBoard
    readers drop what came after `purge_step` for the same reason.
    """

    def __init__(
        self, run_dir: Path, *, offset: int = 0, purge_step: int = 0, tensorboard: bool = True
    ) -> None:
        self.path = run_dir / "metrics.jsonl"
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < offset:
            raise UserError(
                f"{self.path} is shorter ({size} bytes) than at the last checkpoint ({offset}); "
                "put it back, or train again into a new folder"
            )
        self._file = self.path.open("ab", buffering=0)
        self._file.truncate(offset)
        self._writer: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(run_dir / "tensorboard", purge_step=purge_step or None)

    def write(self, line: dict[str, Any]) -> None:
        """Append one line; its numbers also become TensorBoard curves named split/key.

        Raises:
            UserError: the line cannot be written, because the disk is full for instance.
        """
        data = (json.dumps(line) + "\n").encode()
        try:
            while data:  # a nearly full disk takes a part first and refuses the rest
                data = data[self._file.write(data) :]
        except OSError as error:
            reason = os_reason(error) or str(error)
            raise UserError(f"cannot write {self.path}: {reason}; continue with --resume") from error
        if self._writer is not None:
            for key, value in line.items():
                if key not in _NOT_CURVES and isinstance(value, int | float):
                    self._writer.add_scalar(f"{line['split']}/{key}", value, line["step"])

    def sync(self) -> int:
        """Bring everything to the disk; return the size of `metrics.jsonl` in bytes, for the checkpoint."""
        os.fsync(self._file.fileno())
        if self._writer is not None:
            self._writer.flush()
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._writer is not None:
            self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
