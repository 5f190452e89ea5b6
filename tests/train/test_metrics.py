import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from karui.errors import UserError
from karui.train.metrics import MetricsLog


def line(step, **values):
    return {"epoch": 0, "step": step, "split": "train", "loss": step / 10, **values}


def test_resumed_log_neither_loses_nor_doubles_lines(tmp_path):
    with MetricsLog(tmp_path, tensorboard=False) as log:
        log.write(line(1))
        offset = log.sync()
        log.write(line(2))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"half a li')  # a kill in the middle of a write
    with MetricsLog(tmp_path, offset=offset, tensorboard=False) as log:
        log.write(line(2, again=1))
        log.write(line(3))
    lines = [json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [line(1), line(2, again=1), line(3)]


def test_new_log_replaces_what_a_run_without_checkpoint_left(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("left over\n")
    with MetricsLog(tmp_path, tensorboard=False) as log:
        log.write(line(1))
    assert (tmp_path / "metrics.jsonl").read_text() == json.dumps(line(1)) + "\n"


def test_log_that_lost_lines_is_refused(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("short\n")
    with pytest.raises(
        UserError, match=r"metrics.jsonl is shorter \(6 bytes\) than at the last checkpoint \(99\)"
    ):
        MetricsLog(tmp_path, offset=99, tensorboard=False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_full_disk_is_one_line(tmp_path):
    with MetricsLog(tmp_path, tensorboard=False) as log, Path("/dev/full").open("wb", buffering=0) as full:
        log._file.close()
        log._file = full
        with pytest.raises(UserError, match=r"cannot write .*metrics.jsonl: the disk is full"):
            log.write(line(1))


def test_tensorboard_curves_of_a_resumed_run_hold_each_step_once(tmp_path):
    with MetricsLog(tmp_path) as log:
        for step in (1, 2, 3):
            log.write(line(step))
        offset = log.sync()
        log.write(line(4, loss=9.0))
    with MetricsLog(tmp_path, offset=offset, purge_step=4) as log:
        log.write(line(4))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("train/loss")
    assert [(event.step, round(event.value, 6)) for event in events] == [
        (1, 0.1),
        (2, 0.2),
        (3, 0.3),
        (4, 0.4),
    ]
