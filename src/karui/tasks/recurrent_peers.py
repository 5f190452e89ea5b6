"""Recurrent layers timed beside their peers: a layer of karui, what one would take instead, the matrix products alone.

T time, B batch, I input features, H hidden size, L layers, D directions.
"""

import contextlib
import functools
import io
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from karui.errors import UserError
from karui.nn.registry import build_recurrent
from karui.ops.buffers import all_from_torch

DTYPES = {"fp32": torch.float32, "fp64": torch.float64, "bf16": torch.bfloat16, "fp16": torch.float16}
PEERS = ("torch-lstm", "torch-gru", "sru", "gemm")
PASSES = ("forward", "forward_backward", "step")
FEWEST = 3  # measurements of a side, however slow it is
CHECK_STEPS, CHECK_BATCH = 64, 4  # sizes at which numbers are compared before any time is taken
# Allowed difference from fp64, in units of the dtype's rounding times the largest value: long sums in another order.
CHECK_ULPS = 256


@dataclass(frozen=True)
class Shape:
    """Sizes of one measurement."""

    seq_len: int
    batch: int
    hidden: int
    layers: int
    directions: int
    input_size: int
    dtype: torch.dtype
    device: torch.device


Run = Callable[[], None]


@dataclass
class Side:
    """One implementation, ready to run."""

    name: str
    passes: dict[str, Run]


def karui_layer(layer: str, shape: Shape) -> nn.Module:
    """The layer under test."""
    built = build_recurrent(
        layer, shape.input_size, shape.hidden, shape.layers, bidirectional=shape.directions == 2
    )
    return built.to(device=shape.device, dtype=shape.dtype)


def check_numbers(layer: str, shape: Shape) -> float:
    """Compare the layer with its own mathematics in fp64; returns the largest relative difference.

    The same weights, rounded to the dtype first, in a copy that runs the plain reference. Raises UserError when outputs
    differ by more than rounding: no time is printed then.
    """
    torch.manual_seed(0)
    module = karui_layer(layer, shape)
    truth = karui_layer(
        layer, Shape(**(vars(shape) | {"dtype": torch.float64, "device": torch.device("cpu")}))
    )
    truth.load_state_dict({name: value.double().cpu() for name, value in module.state_dict().items()})
    if hasattr(truth, "implementation"):
        truth.implementation = "reference"  # type: ignore[assignment]
    x = torch.randn(min(CHECK_STEPS, shape.seq_len), CHECK_BATCH, shape.input_size, dtype=torch.float64)
    x = x.to(shape.dtype)
    with torch.no_grad():
        found, expected = module(x.to(shape.device))[0], truth(x.double())[0]
    difference = float((found.double().cpu() - expected).abs().max() / expected.abs().max())
    allowed = CHECK_ULPS * torch.finfo(shape.dtype).eps
    if not difference <= allowed:
        raise UserError(
            f"{layer} differs from its reference by {difference:.1e}, {allowed:.1e} is allowed for {shape.dtype}: "
            "no times for wrong numbers; run the tests of karui.ops"
        )
    return difference


def sides(layer: str, shape: Shape, against: list[str]) -> list[Side]:
    """karui's layer first, then the named peers; raises UserError for an unknown or missing one."""
    torch.manual_seed(0)
    own = karui_layer(layer, shape)
    x = torch.randn(shape.seq_len, shape.batch, shape.input_size, device=shape.device, dtype=shape.dtype)
    made = [_module_side(f"karui-{layer}", own, x)]
    for peer in against:
        if peer not in PEERS:
            raise UserError(f"--against knows {', '.join(PEERS)}, got {peer!r}")
        made.append(_gemm(own, x) if peer == "gemm" else _module_side(peer, _peer(peer, shape), x))
    return made


def streaming_sides(layer: str, shape: Shape, against: list[str]) -> list[Side]:
    """One step with carried state, without gradients; to be run inside `without_onednn`."""
    torch.manual_seed(0)
    x = torch.randn(1, shape.batch, shape.input_size, device=shape.device, dtype=shape.dtype)
    own: Any = karui_layer(layer, shape).eval()

    def carried(step: Callable[[Any], Any]) -> Run:
        state: list[Any] = [step(None)[1]]

        def run() -> None:
            with torch.no_grad():
                state[0] = step(state[0])[1]

        return run

    made = [Side(f"karui-{layer}", {"step": carried(lambda state: own.step(x[0], state))})]
    for peer in against:
        if peer not in ("torch-lstm", "torch-gru", "sru"):
            raise UserError(f"--streaming compares with torch-lstm, torch-gru or sru, got {peer!r}")
        module = _peer(peer, shape).eval()

        made.append(Side(peer, {"step": carried(functools.partial(module, x))}))
    return made


@contextlib.contextmanager
def without_onednn(wanted: bool) -> Iterator[None]:
    """Switch oneDNN off: in torch's one-step calls it packs the weights again each time, dearer than the step."""
    if not wanted:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about TF32 on GPUs of another make
        with torch.backends.mkldnn.flags(enabled=False):
            yield


def _peer(name: str, shape: Shape) -> nn.Module:
    sizes = (shape.input_size, shape.hidden, shape.layers)
    two = shape.directions == 2
    if name == "sru":
        return _sru_package()(*sizes, bidirectional=two).to(device=shape.device, dtype=shape.dtype)
    kind = nn.LSTM if name == "torch-lstm" else nn.GRU
    return kind(*sizes, bidirectional=two).to(device=shape.device, dtype=shape.dtype)


def _sru_package() -> Any:
    """The published package compiles itself on import and talks while it does."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            from sru import SRU  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(
            f"--against sru needs the package sru ({error}): install sru==2.6.0 beside ninja, or leave it out"
        ) from error
    return SRU


def _module_side(name: str, module: nn.Module, x: Tensor) -> Side:
    leaf = x.clone().requires_grad_()
    with torch.no_grad():
        upstream = torch.randn_like(module(x)[0])
    parameters = [p for p in module.parameters() if p.requires_grad]

    def forward() -> None:
        with torch.no_grad():
            module(x)

    def forward_backward() -> None:
        torch.autograd.grad(module(leaf)[0], [leaf, *parameters], upstream, allow_unused=True)

    return Side(name, {"forward": forward, "forward_backward": forward_backward})


def _gemm(module: nn.Module, x: Tensor) -> Side:
    """The matrix products that the layer cannot do without: each weight once forward, twice backward."""
    rows = x.shape[0] * x.shape[1]
    products = []
    for name, weight in module.named_parameters():
        if name.startswith("weight") and weight.dim() == 2:
            out, width = weight.shape
            products.append(
                (weight.detach(), x.new_empty(rows, width).normal_(), x.new_empty(rows, out).normal_())
            )

    def forward() -> None:
        for weight, source, _ in products:
            torch.mm(source, weight.t())

    def forward_backward() -> None:
        for weight, source, grad in products:
            torch.mm(source, weight.t())
            torch.mm(grad.t(), source)
            torch.mm(grad, weight)

    return Side("gemm", {"forward": forward, "forward_backward": forward_backward})


def measure(made: list[Side], device: torch.device, *, repeats: int, seconds: float) -> list[dict[str, Any]]:
    """Median time and peak memory of each side and pass; the sides take turns, so that a busy machine slows all.

    seconds: a side that has used this much time, and was measured three times, sits out the remaining rounds.
    """
    times: dict[tuple[int, str], list[float]] = {}
    peaks: dict[tuple[int, str], float] = {}
    for k, side in enumerate(made):
        for name, run in side.passes.items():
            run()  # warm up
            peaks[k, name] = _peak_mb(run, device)
            times[k, name] = []
    for round_number in range(repeats):
        for (k, name), taken in times.items():
            if round_number < FEWEST or sum(taken) < seconds:
                taken.append(_seconds(made[k].passes[name], device))
    return [
        {
            "name": made[k].name,
            "pass": name,
            "median_ms": 1e3 * statistics.median(taken),
            "peak_mb": peaks[k, name],
        }
        for (k, name), taken in times.items()
    ]


def _seconds(run: Run, device: torch.device) -> float:
    _synchronise(device)
    begin = time.perf_counter()
    run()
    _synchronise(device)
    return time.perf_counter() - begin


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_mb(run: Run, device: torch.device) -> float:
    """Megabytes (10^6 bytes) of tensors that a pass adds at its highest point, by torch's own allocators."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    from torch.profiler import ProfilerActivity, profile

    with (
        _silenced(),
        all_from_torch(),
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded,
    ):
        run()
    events: Any = recorded.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    now = peak = 0
    for _, change in changes:
        now += change
        peak = max(peak, now)
    return peak / 1e6


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Torch's profiler writes to the process's standard error, past Python's."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextlib.contextmanager
def threads(number: int | None) -> Iterator[int]:
    """Run with this many threads (all there are if None), and restore what was set."""
    before = torch.get_num_threads()
    try:
        if number is not None:
            torch.set_num_threads(number)
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def device_of(name: str) -> torch.device:
    """cpu or cuda[:n]; raises UserError where there is no such device."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"--device {name} cannot be used: {reason}") from error
    return device
