"""Statistical Recurrent Unit (Oliva, Póczos, Schneider, "The Statistical Recurrent Unit", ICML 2017, arXiv 1703.00381).

Not the Simple Recurrent Unit of `karui.nn.SRU`, which shares its initials.

T time, B batch, I input features, H hidden size, D directions, L layers, P statistics, R recurrent statistics,
A scales; averages are scale-major, (B, A*P).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from karui.nn.stacked import StackedRecurrence
from karui.ops.statistical_recurrence import statistical_recurrence

ALPHAS_DEFAULT = (0.0, 0.25, 0.5, 0.9, 0.99)  # the authors' code
ALPHAS_LONG = (0.0, 0.5, 0.9, 0.99, 0.999)  # the paper's experiment of 784 steps
ACTIVATIONS = {"relu": F.relu, "elu": F.elu, "tanh": torch.tanh}
INITS = ("xavier", "uniform")
LEARNED_RANGE = (1e-3, 0.9995)  # first values of learned alphas: 0 and 1 have no logit


class StatisticalRecurrentUnit(StackedRecurrence):
    """Stacked Statistical Recurrent Unit with `torch.nn.LSTM`'s call; the state is mu, the moving averages.

    With f the activation, equations 7 to 10 of the paper: r_t = f(W_r mu_{t-1} + b_r), phi_t = f(W_x x_t + W_phi r_t +
    b_phi), mu_t = alpha mu_{t-1} + (1 - alpha) phi_t for every alpha, and the output o_t = f(W_o mu_t + b_o).

    forward(input, hx=None, *, lengths=None, padding_mask=None) -> (output, mu_n)
      input (T, B, I), or (B, T, I) with batch_first, or a PackedSequence; lengths (B,) marks right padding,
      padding_mask (B, T) padding anywhere. hx and mu_n: (L*D, B, A*P). output (T, B, D*H), zero in the padding.

    num_stats, recur_size: P and R; R = 0 leaves the feedback out. alphas: the decay of each scale, in [0, 1]. The
    paper's ablations: "recur" has one scale, "multi" R = 0, "iid" both. learn_alphas: each alpha is the sigmoid of the
    parameter `alpha_logit_l{k}`, first values clamped to [1e-3, 0.9995]. activation: "relu", "elu" or "tanh".
    linear_output: no f on the output. include_input: the output reads [mu_t; x_t].
    output_steps: "all", or "last": the last layer's output is then (1, B, D*H), that of each sequence's last step (in
    the reverse direction of its first), a tensor also where the input is packed; nothing of size T*A*P is made.
    init: "xavier" (uniform, with ReLU's gain) or "uniform" (in +-0.1, the authors' code); biases start at zero.

    Parameters of a layer: weight_ih (P, I), weight_phi (P, R), weight_r (R, A*P), weight_o (H, A*P, plus I with
    include_input), bias_phi, bias_r, bias_o. The other arguments stand in `StackedRecurrence`. Raises ValueError on
    arguments out of range.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        recurrent_dropout: float = 0.0,
        layer_norm: str | None = None,
        proj_size: int = 0,
        num_stats: int = 200,
        recur_size: int = 60,
        alphas: Sequence[float] = ALPHAS_DEFAULT,
        learn_alphas: bool = False,
        activation: str = "relu",
        linear_output: bool = False,
        include_input: bool = False,
        output_steps: str = "all",
        init: str = "xavier",
        implementation: str | None = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            recurrent_dropout=recurrent_dropout,
            layer_norm=layer_norm,
            proj_size=proj_size,
            implementation=implementation,
        )
        for name, size, least in (("num_stats", num_stats, 1), ("recur_size", recur_size, 0)):
            if size < least:
                raise ValueError(f"{name} must be at least {least}, got {size}")
        if not alphas or not all(0.0 <= alpha <= 1.0 for alpha in alphas):
            raise ValueError(f"alphas must be one or more numbers in [0, 1], got {tuple(alphas)}")
        for name, word, words in (
            ("activation", activation, tuple(ACTIVATIONS)),
            ("output_steps", output_steps, ("all", "last")),
            ("init", init, INITS),
        ):
            if word not in words:
                raise ValueError(f"{name} must be one of {words}, got {word!r}")
        self.num_stats, self.recur_size = num_stats, recur_size
        self.alphas, self.learn_alphas = tuple(float(alpha) for alpha in alphas), learn_alphas
        self.activation, self.linear_output, self.include_input = activation, linear_output, include_input
        self.output_steps, self.init = output_steps, init
        self.build()

    @property
    def state_size(self) -> int:
        """Last axis of hx: scales times statistics."""
        return len(self.alphas) * self.num_stats

    def _build_layer(self, layer: int) -> None:
        size, H, P, R = self.layer_input_size(layer), self.hidden_size, self.num_stats, self.recur_size
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (P, size)}
        if R:
            shapes |= {"weight_phi": (P, R), "weight_r": (R, self.state_size)}
        shapes["weight_o"] = (H, self.state_size + size * self.include_input)
        if self.bias:
            shapes |= (
                {"bias_phi": (P,), "bias_r": (R,), "bias_o": (H,)}
                if R
                else {"bias_phi": (P,), "bias_o": (H,)}
            )
        if self.learn_alphas:
            shapes["alpha_logit"] = (len(self.alphas),)
        for suffix in self.suffixes:
            for kind, shape in shapes.items():
                self.add_parameter(f"{kind}_l{layer}{suffix}", *shape)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Weights as `init` says, W_x and W_phi as the one matrix that the paper writes; biases zero."""
        super().reset_parameters()
        low, high = LEARNED_RANGE
        for name, parameter in self.named_parameters():
            if name.startswith("alpha_logit"):
                parameter.copy_(torch.tensor(self.alphas, dtype=torch.float64).clamp(low, high).logit())
            elif name.startswith("bias"):
                parameter.zero_()
            elif name.startswith(("weight_ih", "weight_phi", "weight_r", "weight_o")):
                bound = 0.1
                if self.init == "xavier":
                    fans = sum(parameter.shape)
                    if name.startswith("weight_ih"):
                        fans += self.recur_size
                    elif name.startswith("weight_phi"):
                        fans += self.layer_input_size(int(name.removesuffix("_reverse").rpartition("_l")[2]))
                    bound = math.sqrt(2.0) * math.sqrt(6.0 / fans)
                parameter.uniform_(-bound, bound)

    def decays(self, layer: int, suffix: str, like: Tensor) -> Tensor:
        """The alphas of a layer and direction (A,), in float32 at least: 0.999 and 1 are one number in bfloat16."""
        dtype = torch.promote_types(like.dtype, torch.float32)
        if not self.learn_alphas:
            return torch.tensor(self.alphas, dtype=dtype, device=like.device)
        inside = torch.finfo(dtype).eps  # a large logit must not reach 1, where an average never moves
        logit = getattr(self, f"alpha_logit_l{layer}{suffix}").to(dtype)
        return inside + (1.0 - 2.0 * inside) * torch.sigmoid(logit)

    def _run_layer(
        self, x: Tensor, layer: int, state: Tensor, padding_mask: Tensor | None, *, skip: Tensor
    ) -> tuple[Tensor, Tensor]:
        del skip
        last = self.output_steps == "last" and layer + 1 == self.num_layers
        outputs, states = [], []
        for suffix, mu_0 in zip(self.suffixes, state.unbind(0), strict=True):
            source, mask = x, padding_mask
            if suffix:  # the reverse direction walks the same steps backwards
                source, mask = x.flip(0), None if mask is None else mask.flip(0)
            output, mu_n = self._run_direction(source, layer, suffix, mu_0, mask, last=last)
            outputs.append(output.flip(0) if suffix else output)
            states.append(mu_n)
        output = torch.cat(outputs, dim=-1) if self.bidirectional else outputs[0]
        if padding_mask is not None and not last:
            output = output.masked_fill(padding_mask[..., None], 0.0)
        return output, torch.stack(states)

    def _run_direction(
        self, x: Tensor, layer: int, suffix: str, mu_0: Tensor, padding_mask: Tensor | None, *, last: bool
    ) -> tuple[Tensor, Tensor]:
        """Walk x (T, B, I) forward, whichever direction's parameters `suffix` names."""
        kinds = ("weight_ih", "weight_o", "bias_phi", "bias_o", "weight_r", "bias_r", "weight_phi")
        weight_ih, weight_o, bias_phi, bias_o, weight_r, bias_r, weight_phi = (
            getattr(self, f"{kind}_l{layer}{suffix}", None) for kind in kinds
        )
        assert weight_ih is not None
        assert weight_o is not None
        projected = F.linear(x, weight_ih, bias_phi)  # one product for all time steps
        if self.recur_size and bias_r is None:
            bias_r = projected.new_zeros(self.recur_size)
        mu, mu_n = statistical_recurrence(
            projected,
            *(None if part is None else part.to(projected.dtype) for part in (weight_r, bias_r, weight_phi)),
            alphas=self.decays(layer, suffix, projected),
            mu_0=mu_0.to(projected.dtype),
            padding_mask=padding_mask,
            activation=self.activation,
            last_only=last,
            implementation=self.implementation,
        )
        if self.include_input:
            mu = torch.cat([mu, _last_step(x, padding_mask).to(mu.dtype) if last else x.to(mu.dtype)], dim=-1)
        output = F.linear(mu, weight_o, bias_o)
        return (output if self.linear_output else ACTIVATIONS[self.activation](output)), mu_n


def _last_step(x: Tensor, padding_mask: Tensor | None) -> Tensor:
    """Each sequence's last step that is no padding, (1, B, I); zeros without any step."""
    if not x.shape[0]:
        return x.new_zeros(1, *x.shape[1:])
    if padding_mask is None:
        return x[-1:]
    steps = torch.arange(x.shape[0], device=x.device)[:, None].expand(padding_mask.shape)
    at = steps.masked_fill(padding_mask, 0).amax(0)
    return x.gather(0, at[None, :, None].expand(1, *x.shape[1:]))
