"""Time of a training step of the Statistical Recurrent Unit over that of a plain PyTorch loop, both in one run.

Run it from the root of the repository; it writes one record:

    python benchmarks/statistical_recurrence.py --out results/statistical_recurrence.json

The size is that of pixel-by-pixel MNIST: 784 steps, batch 32, one feature, 200 statistics at 5 scales, recurrent size
60, 200 outputs; forward and backward, from the last step's output and from all. Outputs are compared before any time is
taken. The sides take turns, so that a busy machine slows both alike.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from karui.nn import StatisticalRecurrentUnit
from karui.nn.statistical import ALPHAS_LONG
from karui.report import write_record

STEPS, BATCH, STATS, HIDDEN = 784, 32, 200, 200
LIMIT = 4.0  # least ratio with the last output; storing all averages costs both sides the same
TOLERANCE = 1e-4

Layer = Callable[[Tensor], Tensor]


def plain_loop(unit: StatisticalRecurrentUnit) -> Layer:
    """The same weights step by step, as one writes it: input and output products are taken out of the loop."""
    alphas, w = torch.tensor(unit.alphas)[:, None], dict(unit.named_parameters())

    def run(x: Tensor) -> Tensor:
        projected = F.linear(x, w["weight_ih_l0"], w["bias_phi_l0"])
        mu, averages, weight_phi = x.new_zeros(BATCH, unit.state_size), [], w["weight_phi_l0"].t()
        for projected_t in projected.unbind(0):
            r = torch.relu(F.linear(mu, w["weight_r_l0"], w["bias_r_l0"]))
            phi = torch.relu(torch.addmm(projected_t, r, weight_phi))
            scales = mu.view(BATCH, len(alphas), STATS)
            mu = (alphas * scales + (1 - alphas) * phi[:, None]).view(BATCH, unit.state_size)
            if unit.output_steps == "all":
                averages.append(mu)
        wanted = torch.stack(averages or [mu])
        return torch.relu(F.linear(wanted, w["weight_o_l0"], w["bias_o_l0"]))

    return run


def measure(output_steps: str, *, repeats: int) -> dict[str, float]:
    """Median milliseconds of forward and backward of both sides, taken in turn, and their ratio."""
    torch.manual_seed(0)
    unit = StatisticalRecurrentUnit(1, HIDDEN, num_stats=STATS, alphas=ALPHAS_LONG, output_steps=output_steps)
    x = torch.rand(STEPS, BATCH, 1)
    sides: dict[str, Layer] = {"karui": lambda x: unit(x)[0], "plain": plain_loop(unit)}
    with torch.no_grad():
        found, expected = (layer(x) for layer in sides.values())
    difference = float((found - expected).abs().max() / expected.abs().max())
    if not difference <= TOLERANCE:
        raise SystemExit(f"outputs differ by {difference:.1e} of the largest: no times for wrong numbers")
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats + 1):
        for name, layer in sides.items():
            unit.zero_grad()
            start = time.perf_counter()
            layer(x).mean().backward()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    karui, plain = (1e3 * statistics.median(seconds[name]) for name in sides)
    return {
        "plain_ms": round(plain, 1),
        "karui_ms": round(karui, 1),
        "ratio": round(plain / karui, 2),
        "difference": difference,
    }


def main() -> None:
    """Measure both cases, print and record them; exit code 1 where the last output's ratio is below the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/statistical_recurrence.json"))
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    metrics = {f"{steps} output": measure(steps, repeats=arguments.repeats) for steps in ("last", "all")}
    for name, figures in metrics.items():
        print(f"{name}: {figures}")
    write_record(
        arguments.out.parent,
        task="training-step",
        data="random numbers",
        subset=False,
        recipe="statistical-recurrence",
        seed=0,
        metrics={"limit": LIMIT, "threads": arguments.threads, **metrics},
        name=arguments.out.stem,
    )
    raise SystemExit(metrics["last output"]["ratio"] < LIMIT)


if __name__ == "__main__":
    main()
