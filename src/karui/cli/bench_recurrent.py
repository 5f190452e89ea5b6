"""`karui bench recurrent`: a recurrent layer beside its peers and the floor; numbers first, then times, in one run."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from karui.errors import UserError
from karui.files import atomic_write

DEFAULT_PEERS = "torch-lstm,torch-gru,gemm"


def recurrent(
    *,
    layer: Annotated[
        str, typer.Option(help="karui's layer: sru, statistical-ru, lstm, gru, qrnn, mingru.")
    ] = "sru",
    seq_len: Annotated[
        str, typer.Option(help="Time steps; several, separated by commas, for a curve.")
    ] = "256",
    batch: Annotated[int, typer.Option(min=1, help="Sequences in a batch.")] = 32,
    hidden: Annotated[int, typer.Option(min=1, help="Hidden units of a direction.")] = 512,
    input_size: Annotated[
        int | None, typer.Option(min=1, help="Input features; as many as hidden units.")
    ] = None,
    layers: Annotated[int, typer.Option(min=1, help="Stacked layers.")] = 1,
    directions: Annotated[int, typer.Option(min=1, max=2, help="1, or 2 to read backward as well.")] = 1,
    dtype: Annotated[str, typer.Option(help="fp32, fp64, bf16 or fp16.")] = "fp32",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    against: Annotated[
        str, typer.Option(help="Peers: torch-lstm, torch-gru, sru, gemm (the matrix products alone).")
    ] = DEFAULT_PEERS,
    streaming: Annotated[
        bool, typer.Option("--streaming", help="One step with carried state instead.")
    ] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; all there are if left out.")
    ] = None,
    repeats: Annotated[
        int, typer.Option(min=1, help="Rounds; every side once a round, the median counts.")
    ] = 11,
    seconds: Annotated[
        float, typer.Option(min=0, help="A slower side sits out rounds after this long.")
    ] = 20.0,
    plot: Annotated[Path | None, typer.Option(help="Write time against length as an SVG picture.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object for machines.")] = False,
) -> None:
    """Time a recurrent layer, forward and forward + backward, beside its peers.

    Numbers are compared with the plain mathematics in fp64 before any time is taken. The ratios are those of forward +
    backward: the peer's median over karui's, so more than 1 means karui is faster.
    """
    from karui.nn.registry import RECURRENT
    from karui.tasks import recurrent_peers as peers_of

    if layer not in RECURRENT:
        raise UserError(f"--layer must be one of {', '.join(RECURRENT)}, got {layer!r}")
    if dtype not in peers_of.DTYPES:
        raise UserError(f"--dtype must be one of {', '.join(peers_of.DTYPES)}, got {dtype!r}")
    lengths = _lengths(seq_len)
    peers = [name.strip() for name in against.split(",") if name.strip()]
    if streaming:
        lengths, peers = [1], [name for name in peers if name != "gemm"]
        if directions == 2:
            raise UserError("--streaming needs --directions 1: the reverse direction starts at the end")
    where = peers_of.device_of(device)
    report: dict[str, Any] = {
        "layer": layer, "batch": batch, "hidden": hidden, "input_size": input_size or hidden, "layers": layers,
        "directions": directions, "dtype": dtype, "device": _device_name(where),
    }  # fmt: skip
    rows, ratios = [], {}
    with peers_of.threads(threads) as report["threads"], peers_of.without_onednn(streaming):
        for length in lengths:
            shape = peers_of.Shape(
                length, batch, hidden, layers, directions, input_size or hidden, peers_of.DTYPES[dtype], where
            )
            if not rows:
                report["difference_from_fp64"] = peers_of.check_numbers(layer, shape)
            build = peers_of.streaming_sides if streaming else peers_of.sides
            found = peers_of.measure(build(layer, shape, peers), where, repeats=repeats, seconds=seconds)
            rows += [{"seq_len": length, **row} for row in found]
            ratios[length] = _ratios(found, "step" if streaming else "forward_backward")
            if not as_json:
                typer.echo(_page(report, length, found, ratios[length]))
    report |= {"rows": rows, "ratios": ratios[lengths[-1]]}
    if len(lengths) > 1:
        report["ratios_by_seq_len"] = {str(length): ratio for length, ratio in ratios.items()}
    if plot is not None:
        from karui.report.bench_figures import time_against_length

        atomic_write(plot, time_against_length(report))
    if as_json:
        typer.echo(json.dumps(report, indent=1))


def _lengths(text: str) -> list[int]:
    try:
        lengths = [int(part) for part in text.split(",")]
    except ValueError:
        lengths = []
    if not lengths or min(lengths) < 1:
        raise UserError(f"--seq-len must be whole numbers from 1 up, separated by commas, got {text!r}")
    return sorted(set(lengths))


def _ratios(rows: list[dict[str, Any]], timed: str) -> dict[str, float]:
    """Peer -> its median over karui's, which is the first row."""
    medians = {row["name"]: row["median_ms"] for row in rows if row["pass"] == timed}
    own = next(iter(medians.values()))
    return {name: round(median / own, 4) for name, median in list(medians.items())[1:]}


def _page(report: dict[str, Any], length: int, rows: list[dict[str, Any]], ratios: dict[str, float]) -> str:
    """One length for people."""
    sizes = f"T {length}  B {report['batch']}  I {report['input_size']}  H {report['hidden']}"
    where = f"{report['dtype']}  {report['device']}, {report['threads']} threads"
    out = [
        f"{sizes}  layers {report['layers']}  directions {report['directions']}  {where}",
        f"largest difference from fp64: {report['difference_from_fp64']:.1e} of the largest value",
        f"{'':<24}{'median ms':>12}{'peak MB':>10}   ratio",
    ]
    for row in rows:
        timed = row["pass"] in ("forward_backward", "step")
        ratio = f"{ratios[row['name']]:.2f}" if timed and row["name"] in ratios else ""
        what = {"forward": "forward", "forward_backward": "fwd+bwd", "step": "step"}[row["pass"]]
        out.append(f"{row['name']:<15}{what:<9}{row['median_ms']:>12.3f}{row['peak_mb']:>10.1f}{ratio:>8}")
    return "\n".join(out)


def _device_name(device: Any) -> str:
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    return str(device)
