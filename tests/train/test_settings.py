import subprocess
import sys

import pytest

from karui.train.settings import TrainSettings


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("max_epochs", 0, "max_epochs must be >= 1, got 0"),
        ("lr", 0.0, "lr must be > 0 and finite, got 0.0"),
        ("lr", float("nan"), "lr must be > 0 and finite, got nan"),
        ("betas", (0.9, 1.0), r"betas must be two numbers in \[0, 1\), got \(0.9, 1.0\)"),
        ("decay_start", 1.5, r"decay_start must be in \[0, 1\], got 1.5"),
        ("grad_clip_norm", -1.0, "grad_clip_norm must be >= 0, got -1.0"),
        ("weight_averaging", 1.0, r"weight_averaging must be in \[0, 1\), got 1.0"),
        ("sparse_lr", 0.0, "sparse_lr must be > 0 and finite, got 0.0"),
        ("average_from", 1.0, r"average_from must be in \[0, 1\), got 1.0"),
        ("momentum", 1.0, r"momentum must be in \[0, 1\), got 1.0"),
        ("momentum", 0.9, "momentum must be 0 unless optimizer is sgd, got 0.9"),
        ("devices", 2, "devices must be 1: the loop does not yet split a run, got 2"),
    ],
)
def test_value_out_of_range_is_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        TrainSettings(**{field: value})


def test_two_averages_at_once_are_refused():
    with pytest.raises(
        ValueError, match="average_from must be 0 with weight_averaging: one average, got 0.5"
    ):
        TrainSettings(weight_averaging=0.9, average_from=0.5)


def test_settings_and_recipes_import_no_torch():
    code = "import sys, karui.train.settings, karui.recipes.classification; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
