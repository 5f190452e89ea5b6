"""Speed of the Triton kernels on a GPU: bandwidth of the recurrences, and SRU beside cuDNN's LSTM and GRU, in one run.

Run it from the root of the repository on a machine with a CUDA device; it writes one record:

    python benchmarks/gpu_recurrent.py --out results/gpu_recurrent.json

Bandwidth is the bytes that the algorithm must move (README.md of each op) over the median time, as a share of what
a plain copy reaches in the same run. Times are CUDA events around calls in turn, so that a busy device slows all alike.
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from karui.nn import SRU
from karui.ops.linear_recurrence import linear_recurrence
from karui.ops.simple_recurrence import simple_recurrence
from karui.report import write_record

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# T, B, H: few columns, many (65,536 and more: the limit below holds there), and a long sequence of few
SHAPES = [(256, 32, 512), (256, 128, 512), (128, 256, 1024), (1024, 8, 2048), (4096, 4, 256)]
MANY_COLUMNS = 65_536
LEAST_SHARE = 0.6  # of a copy's bandwidth, from MANY_COLUMNS on
LEAST_RATIO = 15.0  # cuDNN LSTM over SRU, forward + backward, 2 layers at 256/32/512 in bf16
SCAN_NUMBERS = {"forward": 6, "backward": 10}  # simple recurrence, G = 3 with skip, training
LINEAR_NUMBERS = {"forward": 3, "backward": 5}


def median_ms(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each call, taken in turn, after a warm-up that compiles."""
    for call in calls.values():
        for _ in range(5):
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            stop.record()
            stop.synchronize()
            times[name].append(start.elapsed_time(stop))
    return {name: statistics.median(values) for name, values in times.items()}


def graphed(call: Callable[[], object]) -> Callable[[], object]:
    """The call as a CUDA graph: the work of the GPU without that of Python."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def passes(run: Callable[[], tuple[Tensor, Tensor]], leaves: list[Tensor]) -> dict[str, Callable[[], object]]:
    """The two passes of an operation, each alone, as CUDA graphs."""
    h, _ = run()
    grad_h = torch.randn_like(h)

    def backward() -> object:
        return torch.autograd.grad(h, leaves, grad_h, retain_graph=True)

    return {"forward": graphed(run), "backward": graphed(backward)}


def scan(T: int, B: int, H: int, dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, device="cuda", dtype=dtype, requires_grad=True)

    leaves = [draw(T, B, 1, 3, H), draw(T, B, H), draw(1, 2, H), draw(1, 2, H)]
    c_0 = torch.zeros(1, B, H, device="cuda", dtype=dtype)
    return passes(lambda: simple_recurrence(*leaves, c_0=c_0, implementation="triton"), leaves)


def linear(T: int, B: int, H: int, dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    leaves = [torch.rand(T, B, 1, H, device="cuda", dtype=dtype, requires_grad=True) for _ in range(2)]
    c_0 = torch.zeros(1, B, H, device="cuda", dtype=dtype)
    return passes(lambda: linear_recurrence(*leaves, c_0=c_0, implementation="triton"), leaves)


def bandwidth(T: int, B: int, H: int, dtype: torch.dtype, repeats: int) -> dict[str, Any]:
    """Milliseconds and share of a copy's bandwidth of each recurrence and pass."""
    source = torch.randn(2**28 // dtype.itemsize, device="cuda", dtype=torch.float32).to(dtype)
    target = torch.empty_like(source)
    copy_ms = median_ms({"copy": lambda: target.copy_(source)}, repeats)["copy"]
    copy_rate = 2 * source.numel() * source.itemsize / copy_ms
    found: dict[str, Any] = {"copy_gb_per_s": round(copy_rate / 1e6)}
    for name, make, numbers in (("simple", scan, SCAN_NUMBERS), ("linear", linear, LINEAR_NUMBERS)):
        for kind, ms in median_ms(make(T, B, H, dtype), repeats).items():
            rate = numbers[kind] * T * B * H * dtype.itemsize / ms
            found[f"{name}_{kind}_ms"] = round(ms, 4)
            found[f"{name}_{kind}_share"] = round(rate / copy_rate, 3)
    return found


def layers(T: int, B: int, H: int, dtype: torch.dtype, repeats: int) -> dict[str, Any]:
    """Forward + backward of two layers: SRU, cuDNN's LSTM and GRU, and SRU replayed as a CUDA graph."""
    models = {"sru": SRU(H, H, 2), "lstm": nn.LSTM(H, H, 2), "gru": nn.GRU(H, H, 2)}
    x = torch.randn(T, B, H, device="cuda", dtype=dtype, requires_grad=True)
    grad = torch.randn(T, B, H, device="cuda", dtype=dtype)

    def step(model: nn.Module) -> Callable[[], object]:
        parameters = [x, *model.parameters()]
        return lambda: torch.autograd.grad(model(x)[0], parameters, grad)

    calls = {name: step(model.to("cuda", dtype)) for name, model in models.items()}
    calls["sru_cuda_graph"] = graphed(calls["sru"])
    found = {f"{name}_ms": round(ms, 4) for name, ms in median_ms(calls, repeats).items()}
    ratios = {f"{peer}_over_sru": round(found[f"{peer}_ms"] / found["sru_ms"], 2) for peer in ("lstm", "gru")}
    graph_ratio = round(found["lstm_ms"] / found["sru_cuda_graph_ms"], 2)
    return found | ratios | {"lstm_over_sru_cuda_graph": graph_ratio}


def main() -> None:
    """Measure all shapes, print and record them; exit code 1 where a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/gpu_recurrent.json"))
    parser.add_argument("--repeats", type=int, default=30)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("this benchmark needs a CUDA device")
    metrics: dict[str, Any] = {"least_share": LEAST_SHARE, "least_ratio": LEAST_RATIO}
    missed = []
    for kind, dtype in DTYPES.items():
        for T, B, H in SHAPES:
            name = f"{kind} {T}/{B}/{H}"
            metrics[name] = bandwidth(T, B, H, dtype, arguments.repeats)
            shares = [value for key, value in metrics[name].items() if key.endswith("_share")]
            if B * H >= MANY_COLUMNS and min(shares) < LEAST_SHARE:
                missed.append(name)
            print(f"{name}: {metrics[name]}")
        name = f"{kind} layers 256/32/512"
        metrics[name] = layers(256, 32, 512, dtype, arguments.repeats)
        print(f"{name}: {metrics[name]}")
    if metrics["bf16 layers 256/32/512"]["lstm_over_sru"] < LEAST_RATIO:
        missed.append("bf16 layers 256/32/512")
    write_record(
        arguments.out.parent,
        task="recurrent-speed",
        data="random numbers",
        subset=False,
        recipe="gpu-recurrent",
        seed=0,
        metrics=metrics,
        details={"device": torch.cuda.get_device_name()},
        name=arguments.out.stem,
    )
    raise SystemExit(f"below the limit: {', '.join(missed)}" if missed else 0)


if __name__ == "__main__":
    main()
