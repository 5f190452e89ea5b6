import pytest

from karui.errors import UserError
from karui.report.schema import load_run
from tests.support.run_folder import make_run


def test_a_full_folder_is_read(tmp_path):
    run = load_run(make_run(tmp_path / "run"))
    assert run.data_name == "ag_news (subset)"
    assert run.recipe_name == "news"
    assert [file["values"] for file in run.files] == ["int8", "fp32"]  # smallest first
    assert len(run.metrics) == 24
    assert run.baselines is not None
    assert run.baselines["points"][1]["test_accuracy"] == 0.895
    assert load_run(make_run(tmp_path / "whole", subset=False)).data_name == "ag_news"


def test_a_line_that_a_killed_run_left_unfinished_is_passed_over(tmp_path):
    run = make_run(tmp_path / "run")
    path = run / "metrics.jsonl"
    path.write_text(path.read_text() + '{"epoch": 4, "st')
    assert len(load_run(run).metrics) == 24
    path.write_text('{"epoch": 4, "st\n' + path.read_text())
    with pytest.raises(UserError, match="metrics.jsonl:1 is not JSON"):
        load_run(run)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("compact.json", "{", "compact.json is not JSON"),
        ("compact.json", "[]", "compact.json should hold a dict"),
        ("compact.json", '{"files": [{"values": "int8"}]}', "lacks 'artifact_bytes'"),
        ("compact.json", '{"words": [{"word": "x", "weight": 1}]}', "lacks 'class'"),
        ("examples.json", '[{"text": "x"}]', "lacks 'label'"),
        ("baselines.json", '{"points": [{"name": "x", "artifact_bytes": 1}]}', "lacks 'valid_accuracy'"),
    ],
)
def test_a_broken_file_is_named(tmp_path, name, content, said):
    run = make_run(tmp_path / "run")
    (run / name).write_text(content)
    with pytest.raises(UserError, match=said):
        load_run(run)
