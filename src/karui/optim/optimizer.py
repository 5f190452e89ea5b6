"""One optimizer for a model whose parameters follow several rules."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from karui.optim.rules import ROW_RULES, RULES


class Optimizer(torch.optim.Optimizer):
    """Applies to each parameter group the rule that it names.

    groups: parameters, or dicts as torch.optim takes them, each with an optional "rule": "adam" or "adamw" (torch's
        own), "sgd", and for tables whose gradients are sparse "row-adagrad" and "lazy-adam", which neither sweep nor
        allocate anything of the table's size in a step. A dense gradient is taken by every rule, a sparse one by the
        last three. "lr", "betas", "eps" and "weight_decay" of a group stand before the arguments below.
    rule: of groups that name none. lr: of groups without their own, except those of row-wise Adagrad, whose steps
        have another scale: `sparse_lr`. weight_decay: of the groups that are not of rows. eps: None is 1e-10 for
        row-wise Adagrad and 1e-8 else.

    The state dict comes back bit for bit, also where a state's dtype is not the parameter's. Raises ValueError on an
    unknown rule or values out of range.
    """

    def __init__(
        self,
        groups: Iterable[Any],
        *,
        rule: str = "adam",
        lr: float = 1e-3,
        sparse_lr: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float | None = None,
        weight_decay: float = 0.0,
    ) -> None:
        filled = []
        given = list(groups)
        for group in given if given and isinstance(given[0], dict) else [{"params": given}]:
            name = group.get("rule", rule)
            if name not in RULES:
                raise ValueError(f"rule must be one of {tuple(RULES)}, got {name!r}")
            usual = {
                "rule": name,
                "lr": sparse_lr if name == "row-adagrad" else lr,
                "betas": betas,
                "eps": eps if eps is not None else 1e-10 if name == "row-adagrad" else 1e-8,
                "weight_decay": 0.0 if name in ROW_RULES else weight_decay,
            }
            filled.append(usual | group)
            _check(filled[-1])
        super().__init__(filled, {})
        self._bind()

    def _bind(self) -> None:
        """Make torch's optimizers for the groups that follow their rules; they work on these groups and this state."""
        self._parts: list[torch.optim.Optimizer] = []
        for name, kind in (("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
            groups = [group for group in self.param_groups if group["rule"] == name]
            if groups:
                part = kind(groups, fused=True)  # adds its own words to these same dicts
                part.state = self.state
                self._parts.append(part)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient; returns what `closure` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        for group in self.param_groups:
            apply = RULES[group["rule"]]
            if apply is not None:
                apply(group, self.state)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict()` returned, in the dtypes it had: torch casts floating state to the parameter's."""
        super().load_state_dict(state_dict)
        for index, parameter in enumerate(chain.from_iterable(g["params"] for g in self.param_groups)):
            for name, value in state_dict["state"].get(index, {}).items():
                if isinstance(value, Tensor) and self.state[parameter][name].dtype != value.dtype:
                    self.state[parameter][name] = value.to(parameter.device)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.state = defaultdict(dict, self.state)
        self._bind()


class RowAdagrad(Optimizer):
    """Row-wise Adagrad over sparse (or dense) gradients: one float of state a row (Lerer et al. 2019, section 3.4).

    a_r += mean_h g_rh^2;  w_r -= lr g_r / (sqrt(a_r) + eps). lr from 0.1 to 0.2 suits output layers.
    """

    def __init__(self, params: Iterable[Any], lr: float = 0.1, *, eps: float = 1e-10) -> None:
        super().__init__(params, rule="row-adagrad", sparse_lr=lr, eps=eps)


class LazyAdam(Optimizer):
    """Adam on the rows that a sparse gradient names; with a gradient for every row, Adam itself.

    The averages of a row decay when it is touched, not before, and its bias is corrected by the number of times that it
    was. weight_decay is decoupled and waits until a row is touched, then makes up for all steps since it was before.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        given = list(params)
        groups = given if given and isinstance(given[0], dict) else [{"params": given}]
        groups = [{"weight_decay": weight_decay, **group} for group in groups]
        super().__init__(groups, rule="lazy-adam", lr=lr, betas=betas, eps=eps)


def _check(group: dict[str, Any]) -> None:
    for name in ("lr", "eps", "weight_decay"):
        if not 0 <= group[name] < float("inf"):
            raise ValueError(f"{name} must be >= 0 and finite, got {group[name]!r}")
    if not all(0 <= beta < 1 for beta in group["betas"]):
        raise ValueError(f"betas must be two numbers in [0, 1), got {group['betas']!r}")
