"""`karui bench output`: numbers before times, a row a method and size, ratios of whole steps."""

import json
from pathlib import Path

import pytest
import torch

from karui.cli.bench_output import ratios_of
from karui.cli.main import main
from karui.errors import UserError
from karui.output.registry import OUTPUTS
from karui.tasks import output_peers, output_process

SMALL = ["--hidden", "16", "--positions", "8", "--num-samples", "5", "--repeats", "2", "--threads", "1"]
COLUMNS = {"method", "classes", "step_ms", "optimizer_ms", "peak_mb", "query_ms"}


def bench(*arguments: str) -> int:
    return main(["bench", "output", *SMALL, *arguments])


def test_report_for_machines(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    before = torch.get_num_threads()
    picture = tmp_path / "curve.png"
    arguments = [
        "--classes",
        "40,20",
        "--methods",
        "full,sampled,huffman,torch-softmax",
        "--no-memory",
        "--json",
    ]
    assert bench(*arguments, "--plot", str(picture)) == 0
    report = json.loads(capsys.readouterr().out)
    assert torch.get_num_threads() == before
    names = ["full", "sampled", "huffman", "torch-softmax"]
    assert [(row["method"], row["classes"]) for row in report["rows"]] == [
        (n, v) for v in (20, 40) for n in names
    ]
    for row in report["rows"]:
        assert row.keys() >= COLUMNS
        assert 0 < row["optimizer_ms"] < row["step_ms"]
        assert row["query_ms"] > 0
        assert row["peak_mb"] is None
        assert row["counts"] == "zipf"
    medians = {row["method"]: row["step_ms"] for row in report["rows"] if row["classes"] == 40}
    assert set(report["ratios"]) == set(names) - {"full"}
    for name, ratio in report["ratios"].items():
        assert ratio == pytest.approx(medians["full"] / medians[name], abs=1e-3)
    assert report["ratios_by_classes"]["40"] == report["ratios"]
    assert 0 < report["difference_from_plain"] < output_peers.CHECK_DIFFERENCE
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_memory_is_measured_in_a_process_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    classes, hidden = 40_000, 256
    arguments = ["--classes", str(classes), "--hidden", str(hidden), "--methods", "sampled", "--json"]
    assert (
        main(["bench", "output", "--positions", "8", "--num-samples", "5", "--repeats", "2", *arguments]) == 0
    )
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    table = 4e-6 * classes * hidden
    assert table < row["peak_mb"] < 1.6 * table, "the table, and little else, stands in memory"
    assert ratios_of([row], classes) == {}, "no ratio without full"


@pytest.mark.parametrize("method", output_peers.METHODS)
def test_every_method_can_be_timed(method: str) -> None:
    shape = output_peers.Shape(classes=30, hidden=16, positions=6, num_samples=5)
    output_peers.check_numbers([method], shape)
    row = output_peers.measure(method, shape, repeats=2, seconds=0.0)
    assert row["steps"] == 2
    assert row["step_ms"] > 0
    assert row["parameters"] > 0


def test_steps_learn_what_is_repeated() -> None:
    shape = output_peers.Shape(classes=50, hidden=16, positions=64, num_samples=20)
    counts, _ = output_peers.counts_of(50)
    stepper = output_peers.Stepper(output_peers.build("sampled", shape, counts), shape, counts)
    layer, hidden, target = stepper.side.layer, stepper.hidden[0], stepper.targets[0]
    before = layer.nll(hidden, target).item()
    for _ in range(80):
        stepper.step()
    assert layer.nll(hidden, target).item() < 0.9 * before, "the update reaches the weights"


def test_methods_are_those_of_the_registry() -> None:
    assert output_peers.METHODS[:-2] == OUTPUTS


def test_wrong_numbers_have_no_times(monkeypatch: pytest.MonkeyPatch) -> None:
    from karui.output.full import FullSoftmax

    true = FullSoftmax.nll
    monkeypatch.setattr(FullSoftmax, "nll", lambda *args, **kwargs: true(*args, **kwargs) + 1e-3)
    with pytest.raises(UserError, match="full differs from the plain mathematics by 1.0e-03 nats"):
        output_peers.check_numbers(["full"], output_peers.Shape(classes=30, hidden=8, num_samples=5))


def test_a_step_that_does_not_fit_is_left_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_process, "megabytes_free", lambda: 1.0)
    assert bench("--classes", "20", "--methods", "full", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["step_ms"] is None
    assert "0.0 GB are free" in row["left_out"]
    assert bench("--classes", "20", "--methods", "full") == 0
    assert "needs about 0.3 GB" in capsys.readouterr().out


def test_a_process_that_fails_is_one_line() -> None:
    shape = output_peers.Shape(classes=30, hidden=16, num_samples=0)
    with pytest.raises(UserError, match="sampled at 30 classes failed: .*num_samples"):
        output_process.measure_apart("sampled", shape, repeats=1, seconds=0.0)


@pytest.mark.parametrize(
    ("classes", "hidden"), [(1, 8), (2, 8), (3000, 16), (10_000, 64), (793_471, 256), (793_471, 4)]
)
def test_published_cutoffs_fit(classes: int, hidden: int) -> None:
    cutoffs = output_peers.published_cutoffs(classes, hidden)
    assert cutoffs == sorted(set(cutoffs))
    if classes > 1:
        torch.nn.AdaptiveLogSoftmaxWithLoss(hidden, classes, cutoffs, div_value=4.0, device="meta")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "softmax"], "no output layer 'softmax'; the methods are full, importance"),
        (["--methods", ","], "--methods names none; the methods are full"),
        (["--classes", "0"], "--classes must be whole numbers from 1 up"),
        (["--classes", "ten"], "--classes must be whole numbers from 1 up"),
        (["--classes", "4"], "--num-samples must be at most the number of classes, got 5 of 4"),
        (["--plot", "curve.jpg", "--classes", "20"], "--plot must end in .png or .svg"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(*arguments) == 2
    assert message in capsys.readouterr().err
