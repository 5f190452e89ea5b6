"""`karui bench recurrent`: numbers before times, every side a row, ratios of forward + backward."""

import json
from pathlib import Path

import pytest
import torch

from karui.cli.main import main
from karui.errors import UserError
from karui.tasks import recurrent_peers

SMALL = ["--batch", "2", "--hidden", "8", "--repeats", "1", "--threads", "1"]
CPU = torch.device("cpu")


def shape(**changes: object) -> recurrent_peers.Shape:
    sizes = {"seq_len": 5, "batch": 2, "hidden": 8, "layers": 1, "directions": 1, "input_size": 8}
    return recurrent_peers.Shape(**(sizes | {"dtype": torch.float32, "device": CPU} | changes))  # type: ignore[arg-type]


def test_report_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.get_num_threads()
    assert main(["bench", "recurrent", "--seq-len", "6", "--layers", "2", *SMALL, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert torch.get_num_threads() == before
    names = ["karui-sru", "torch-lstm", "torch-gru", "gemm"]
    passes = ["forward", "forward_backward"]
    assert [(row["name"], row["pass"]) for row in report["rows"]] == [(n, p) for n in names for p in passes]
    assert all(row["median_ms"] > 0 and row["peak_mb"] > 0 for row in report["rows"])
    medians = {row["name"]: row["median_ms"] for row in report["rows"] if row["pass"] == "forward_backward"}
    assert set(report["ratios"]) == set(names[1:])
    for name, ratio in report["ratios"].items():
        assert ratio == pytest.approx(medians[name] / medians["karui-sru"], abs=1e-3)
    assert 0 < report["difference_from_fp64"] < 1e-5


@pytest.mark.parametrize("layer", ["gru", "lstm", "qrnn", "mingru", "statistical-ru"])
def test_every_layer_can_be_timed(layer: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "recurrent", "--layer", layer, "--seq-len", "4", "--against", "gemm", *SMALL]) == 0
    assert f"karui-{layer}" in capsys.readouterr().out


def test_a_curve_over_lengths_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "curve.svg"
    arguments = ["--seq-len", "8,4", "--against", "gemm", "--plot", str(picture), "--json", *SMALL]
    assert main(["bench", "recurrent", *arguments]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["seq_len"] for row in report["rows"]] == [4] * 4 + [8] * 4
    assert report["ratios"] == report["ratios_by_seq_len"]["8"]
    text = picture.read_text(encoding="utf-8")
    assert text.startswith("<svg")
    assert "karui-sru" in text
    assert "matrix products alone" in text


def test_a_streaming_step(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--streaming", "--layers", "2", "--against", "torch-lstm,gemm", "--json", *SMALL]
    assert main(["bench", "recurrent", *arguments]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["pass"]) for row in report["rows"]] == [
        ("karui-sru", "step"),
        ("torch-lstm", "step"),
    ]
    assert torch.backends.mkldnn.enabled or not torch.backends.mkldnn.is_available()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layer", "rnn"], "--layer must be one of sru"),
        (["--dtype", "fp8"], "--dtype must be one of fp32"),
        (["--seq-len", "12,x"], "--seq-len must be whole numbers"),
        (["--seq-len", "0"], "--seq-len must be whole numbers"),
        (["--against", "rwkv"], "--against knows torch-lstm"),
        (["--device", "cuda:77"], "--device cuda:77 cannot be used"),
        (["--device", "abacus"], "--device abacus cannot be used"),
        (["--streaming", "--directions", "2"], "--streaming needs --directions 1"),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "recurrent", "--seq-len", "4", *SMALL, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_wrong_numbers_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert recurrent_peers.check_numbers("sru", shape()) < 1e-5
    build = recurrent_peers.karui_layer

    def broken(layer: str, wanted: recurrent_peers.Shape) -> torch.nn.Module:
        module = build(layer, wanted)
        if wanted.dtype == torch.float32:
            module.register_forward_hook(lambda _module, _input, output: (output[0] + 1e-2, output[1]))
        return module

    monkeypatch.setattr(recurrent_peers, "karui_layer", broken)
    with pytest.raises(UserError, match="no times for wrong numbers"):
        recurrent_peers.check_numbers("sru", shape())


def test_a_missing_peer_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sru", None)
    with pytest.raises(UserError, match="install sru==2.6.0"):
        recurrent_peers.sides("sru", shape(), ["sru"])


def test_a_slow_side_sits_out_but_is_measured_three_times() -> None:
    counts = {"slow": 0, "quick": 0}

    def counting(name: str) -> recurrent_peers.Side:
        def run() -> None:
            counts[name] += 1
            torch.ones(2_000_000 if name == "slow" else 1).sum()

        return recurrent_peers.Side(name, {"forward": run})

    rows = recurrent_peers.measure([counting("slow"), counting("quick")], CPU, repeats=8, seconds=0.0)
    assert [row["name"] for row in rows] == ["slow", "quick"]
    assert counts == {"slow": 2 + recurrent_peers.FEWEST, "quick": 2 + recurrent_peers.FEWEST}


def test_peak_memory_counts_what_is_alive_at_once() -> None:
    def run() -> None:
        for _ in range(3):  # freed each time
            torch.empty(1_000_000).fill_(1.0)

    assert recurrent_peers._peak_mb(run, CPU) == pytest.approx(4.0, abs=0.1)


def test_the_floor_does_three_products_a_weight() -> None:
    module = recurrent_peers.karui_layer("sru", shape())
    gemm = recurrent_peers._gemm(module, torch.randn(5, 2, 8))
    assert set(gemm.passes) == {"forward", "forward_backward"}
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as recorded:
        gemm.passes["forward_backward"]()
    assert [event.count for event in recorded.key_averages() if event.key == "aten::mm"] == [3]
