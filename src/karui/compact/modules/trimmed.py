"""Simple Recurrent Units whose skip connection has lost some of its features.

The highway of a Simple Recurrent Unit adds input j to output j. Where a unit or an input went on one side only, the
layer's own class has no place for what is left.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from karui.nn.sru import SRU
from karui.nn.sru_base import SimpleRecurrence
from karui.nn.srupp import SRUpp

SKIPS = ("gather", "project", "none")


class TrimmedSkip(SimpleRecurrence):
    """One layer; mixed in before SRU or SRUpp.

    skip: "gather", output j adds input `skip_index[j]` (D*H,), where an index of I stands for zero; "project", the skip
    has its own rows of weight_ih although the widths agree; "none".
    """

    skip_index: Tensor

    def __init__(self, input_size: int, hidden_size: int, *, skip: str, **options: Any) -> None:
        if skip not in SKIPS:
            raise ValueError(f"skip must be one of {SKIPS}, got {skip!r}")
        self.skip = skip
        super().__init__(input_size, hidden_size, **options)
        if skip == "gather":
            index = torch.zeros(self.num_directions * hidden_size, dtype=torch.int64)
            self.register_buffer("skip_index", index)

    def gate_blocks(self, layer: int) -> int:  # noqa: ARG002
        """4 with a projected skip, else 3."""
        return 4 if self.skip == "project" else 3

    def _reads_skip(self, layer: int) -> bool:  # noqa: ARG002
        return self.skip == "gather"

    def _run_layer(
        self, x: Tensor, layer: int, state: Any, padding_mask: Tensor | None, *, skip: Tensor
    ) -> tuple[Tensor, Any]:
        if self.skip == "gather":
            skip = F.pad(skip, (0, 1)).index_select(-1, self.skip_index)
        return super()._run_layer(x, layer, state, padding_mask, skip=skip)

    def extra_repr(self) -> str:
        """Sizes and skip."""
        both = ", bidirectional=True" if self.bidirectional else ""
        return f"{self.input_size}, {self.hidden_size}, skip={self.skip!r}{both}"


class TrimmedSRU(TrimmedSkip, SRU):
    """See `TrimmedSkip`."""

    def _states_of_one_step(self, x: Tensor, hx: Tensor | None) -> None:  # noqa: ARG002
        """The compiled step knows the usual skips only."""
        return


class TrimmedSRUpp(TrimmedSkip, SRUpp):
    """See `TrimmedSkip`; attend=False: a layer between those that attend."""

    def __init__(
        self, input_size: int, hidden_size: int, *, skip: str, attend: bool = True, **options: Any
    ) -> None:
        self.attend = attend
        super().__init__(input_size, hidden_size, skip=skip, **options)

    def attends(self, layer: int) -> bool:  # noqa: ARG002
        """As asked for."""
        return self.attend


TRIMMED: dict[str, type[TrimmedSkip]] = {"sru": TrimmedSRU, "srupp": TrimmedSRUpp}
