"""A recurrent layer and a linear output: the model of the sequence tasks.

T time, B batch, I input features, H hidden size, C outputs.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from karui.nn.registry import build_recurrent
from karui.tasks.sequence_settings import LayerSettings

# Layer -> the bias of the gate that keeps the state: names before the layer's number, block, sign.
_KEEPING_GATE = {
    "sru": ("bias_l", None, 0, 1.0),
    "lstm": ("bias_ih_l", "bias_hh_l", 1, 1.0),
    "gru": ("bias_ih_l", "bias_hh_l", 1, 1.0),
    "qrnn": ("bias_ih_l", None, 1, 1.0),
    "mingru": ("bias_ih_l", None, 1, -1.0),  # its gate says how much of the state is replaced
}


class SequenceModel(nn.Module):
    """Recurrent layer, dropout, linear output: forward(x (T, B, I)) -> (B, C), or (T, B, C) with `every_step`.

    Sequences are read forward from a zero state; what lies behind the end of a shorter one changes nothing before it.
    """

    def __init__(
        self, input_size: int, n_outputs: int, settings: LayerSettings, *, every_step: bool = False
    ) -> None:
        super().__init__()
        self.every_step, self.dropout = every_step, settings.dropout
        options = settings.options()
        if settings.recurrent == "statistical-ru" and not every_step:
            options["output_steps"] = "last"  # the other steps would not be read
        self.recurrent = build_recurrent(
            settings.recurrent,
            input_size,
            settings.hidden_size,
            settings.num_layers,
            dropout=settings.dropout,
            options=options,
        )
        self.output = nn.Linear(settings.hidden_size, n_outputs)
        if settings.gate_bias is not None:
            set_gate_bias(self.recurrent, settings.recurrent, settings.gate_bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (T, B, I), logits (B, C) of the last step or (T, B, C) of all."""
        h, _ = self.recurrent(x)
        return self.output(F.dropout(h if self.every_step else h[-1], self.dropout, self.training))


@torch.no_grad()
def set_gate_bias(layer: nn.Module, name: str, value: float) -> None:
    """Set the bias of the gate that keeps the state in every layer of a stack, in both directions.

    A large value lets a new layer remember (Gers, Schmidhuber, Cummins 2000; Jozefowicz, Zaremba, Sutskever 2015).
    Raises ValueError for a layer that has no such gate, or no biases.
    """
    if name not in _KEEPING_GATE:
        raise ValueError(f"gate_bias must be none for {name}, which has no gate; got {value}")
    written, cleared, block, sign = _KEEPING_GATE[name]
    found = 0
    for parameter_name, bias in layer.named_parameters():
        stem = parameter_name.rpartition(".")[2]
        is_written = stem.startswith(written)
        if is_written or (cleared is not None and stem.startswith(cleared)):
            H = layer.hidden_size
            assert isinstance(H, int)
            bias[block * H : (block + 1) * H] = sign * value if is_written else 0.0
            found += is_written
    if not found:
        raise ValueError(f"gate_bias must be none for a {name} without biases; got {value}")
