"""The tables of pixels and music: own rows from records, others' rows with their source."""

from karui.report.readme import markers, with_results
from karui.report.records import write_record
from karui.report.sequence_tables import music_table, pixel_table

BUDGET = {"trials": 8, "epochs": 20}


def record(recipe, *, task="pixels", data="mnist", seed=0, layer=None, **metrics):
    metrics = {"parameters": 17802, "seconds_per_epoch": 9.96, **metrics}
    kind = layer or {"recurrent": "lstm", "hidden_size": 64, "num_layers": 1}
    return {
        "task": task,
        "recipe": recipe,
        "seed": seed,
        "data": {"name": data, "subset": False},
        "metrics": metrics,
        "layer": kind,
        "budget": BUDGET,
    }


STATISTICAL = {
    "recurrent": "statistical-ru",
    "hidden_size": 52,
    "num_layers": 1,
    "num_stats": 48,
    "recur_size": 16,
    "alphas": [0.99],
}


def test_rows_are_ordered_and_stand_before_the_published_ones():
    table = pixel_table(
        [
            record("pixel-196-lstm", test_accuracy=0.9),
            record("pixel-196-lstm", seed=1, test_accuracy=0.92),
            record("pixel-196-statistical-ru-recur", layer=STATISTICAL, test_accuracy=0.93),
            record("permuted-784-lstm", test_accuracy=0.8),
            record("pixel-196-lstm", task="music", test_accuracy=0.99),
        ]
    )
    assert [row[:2] for row in table.rows[:3]] == [
        ["196 steps", "Statistical RU, recur"],
        ["196 steps", "LSTM"],
        ["784 steps, permuted", "LSTM"],
    ]
    assert table.rows[0][2] == "48/16/52, A = {0.99}"
    assert table.rows[1][3:] == ["17,802", "91.00 ± 1.41 % (2 seeds)", "10.0", "karui, 8 trials, 20 epochs"]
    assert table.rows[2][4] == "80.00 %"
    published = table.rows[3:]
    assert ["784 steps", "GRU", "70 K weights", "–", "96.2 %", "–", "Bai, Kolter, Koltun 2018"] in published
    assert all(row[3] == "–" for row in published)


def test_music_is_in_nats_the_lowest_first():
    layer = {"recurrent": "sru", "hidden_size": 250, "num_layers": 2}
    table = music_table(
        [
            record("jsb-lstm", task="music", data="jsb", test_nll=8.5),
            *(
                record("jsb-sru", task="music", data="jsb", seed=s, layer=layer, test_nll=8.1 + s / 100)
                for s in (0, 2)
            ),
        ]
    )
    assert table.rows[0][:5] == ["jsb", "SRU", "2 layers of 250", "17,802", "8.110 ± 0.014 (2 seeds)"]
    assert table.rows[1][4] == "8.500"
    assert ["nottingham", "LSTM", "1 M weights", "–", "3.29", "–", "Bai, Kolter, Koltun 2018"] in table.rows


def test_without_own_rows_there_is_no_table():
    assert pixel_table([]).rows == music_table([]).rows == []


def test_each_table_stands_between_its_own_markers(tmp_path):
    text = "".join("\n".join(markers(name)) + "\n\n" for name in ("results", "pixel-mnist", "music"))
    made = record("pixel-196-lstm", test_accuracy=0.9)
    details = {"layer": made["layer"], "budget": BUDGET}
    write_record(
        tmp_path,
        task="pixels",
        data="mnist",
        subset=False,
        recipe="pixel-196-lstm",
        seed=0,
        metrics=made["metrics"],
        details=details,
    )
    filled = with_results(text, tmp_path)
    assert filled.count("| 196 steps | LSTM | 64 | 17,802 | 90.00 % |") == 1
    begin, end = markers("pixel-mnist")
    assert begin < filled[filled.index(begin) : filled.index(end)]
    assert with_results(filled, tmp_path) == filled
