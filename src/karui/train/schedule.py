"""Learning rate and weight of the penalty as functions of the step: no state, so nothing to restore."""

import math
from dataclasses import dataclass

from karui.train.settings import TrainSettings


@dataclass(frozen=True)
class Schedule:
    """Schedules of one run over `total_steps` steps; steps and epochs are counted from 0."""

    settings: TrainSettings
    total_steps: int

    @property
    def warmup_steps(self) -> int:
        """Return the number of warm-up steps; after them the learning rate is full."""
        return self.settings.warmup_steps or round(self.settings.warmup_fraction * self.total_steps)

    def lr_factor(self, step: int, epoch: int) -> float:
        """Return what the learning rate is multiplied by in a step: 1 at most, 0 just after the last step."""
        settings = self.settings
        warmup = self.warmup_steps
        if step < warmup:
            return (step + 1) / warmup
        if settings.schedule == "step":
            return settings.step_factor ** sum(epoch >= milestone for milestone in settings.milestones)
        if settings.schedule == "constant":
            return 1.0
        start = max(settings.decay_start * self.total_steps, warmup)
        if step <= start:
            return 1.0
        fallen = min((step - start) / (self.total_steps - start), 1.0)
        return 1.0 - fallen if settings.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * fallen))

    def penalty_weight(self, step: int) -> float:
        """Return the factor on the penalty: from 0 to `penalty_weight` over the ramp, then constant."""
        ramp = self.settings.penalty_ramp * self.total_steps
        return self.settings.penalty_weight * (min(step / ramp, 1.0) if ramp > 0 else 1.0)

    def is_past_ramp(self, steps_done: int) -> bool:
        """Tell whether, after `steps_done` steps, the penalty has reached its full weight."""
        return steps_done >= self.settings.penalty_ramp * self.total_steps
