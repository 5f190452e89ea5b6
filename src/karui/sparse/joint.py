"""One gate in two layers: the pre-activations of a recurrent layer whose input matrix is the table of words before it.

With words as one-hot vectors, act(z (Wx x + Wh h) + b) has the columns of Wx in an embedding (V, G * H) and the rows of
Wh in the recurrent layer; z is one variable for both (Lobacheva, Chirkova, Vetrov, AAAI 2020).
"""

from collections.abc import Callable

from torch import nn

from karui.sparse.division import Axis
from karui.sparse.gate import Gate
from karui.sparse.layers import Drawn, SparseLayer
from karui.sparse.weight import SharedGate


def join_gates(table: SparseLayer, recurrent: SparseLayer, name: str, make: Callable[..., Gate]) -> Gate:
    """Let the gate `name` of `recurrent` multiply the columns of `table` too; returns the gate that stands for it.

    table: with one sparse weight; it is called before `recurrent` in each forward, and draws for both. Column gates of
    its own give way. make: from divisions to a gate, as a method's `gate`. Raises ValueError where the layer has no
    such gate, or the table another number of columns than that has units.
    """
    if name not in recurrent.shared_gates():
        raise ValueError(f"{type(recurrent.base).__name__} has no gate {name!r} to share")
    [(_, mean, state)] = table.states()
    old, columns = recurrent.shared_gates()[name], Axis(tuple(mean.shape), 1)
    states = [state for _, _, state in recurrent.states()]
    gate = make(columns, *(use.division for each in states for use in each.shared if use.gate is old))
    if "column" in state.places:
        state.places = tuple(place for place in state.places if place != "column")
        del state.column
    state.shared = (*state.shared, SharedGate(gate, columns))
    for each in states:
        each.shared = tuple(use._replace(gate=gate) if use.gate is old else use for use in each.shared)
    gates = recurrent.gates
    assert isinstance(gates, nn.ModuleDict)
    del gates[name]
    table.gates = nn.ModuleDict({**table.shared_gates(), name: gate})
    slot = Drawn()
    table.lends, recurrent.borrows = (*table.lends, (gate, slot)), (*recurrent.borrows, (gate, slot))
    table.partners = (*table.partners, recurrent)
    return gate
