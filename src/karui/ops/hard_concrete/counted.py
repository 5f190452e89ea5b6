"""A draw with the expected count that its node of the graph gives too."""

from typing import NamedTuple

from torch import Tensor


class Pass:
    """Whether the backward pass of a draw is still to come: after it, the count of that draw cannot be used again."""

    is_open = True


class Counted(NamedTuple):
    """A draw and what its backward pass can give at no further cost."""

    drawn: Tensor
    count: Tensor
    """Expected number of elements behind open gates, ()."""
    state: Pass
    """`is_open` while the draw's backward pass is still to come; after it `count` has no graph."""
