"""Tables of language models, out of records made here."""

from karui.report.language_tables import character_table, word_table


def record(recipe, *, seed=0, data="ptb", metrics=None, output_finish=None):
    return {
        "task": "lm",
        "data": {"name": data, "subset": False},
        "recipe": recipe,
        "seed": seed,
        "hardware": "two cores",
        "metrics": {"parameters": 7_500_000, "train_minutes": 60.2, **(metrics or {})},
        "layer": {"recurrent": "sru", "hidden_size": 512, "num_layers": 3},
        "budget": {"epochs": 30},
        "settings": {"model": {"output": "sampled", "output_finish": output_finish}},
    }


def words(test):
    return {"valid_perplexity": test + 3, "test_perplexity": test}


def test_words_best_first_then_the_published_figures():
    records = [
        record("worse", metrics=words(101.0)),
        record("better", seed=0, metrics=words(95.0), output_finish="full"),
        record("better", seed=1, metrics=words(97.0), output_finish="full"),
        record("wiki", data="wikitext2", metrics=words(120.0)),
    ]
    rows = word_table(records).rows
    assert [row[0] for row in rows[:3]] == ["ptb", "ptb", "wikitext2"]
    assert rows[0][1:4] == ["SRU, 3 layers of 512", "7.5 M", "sampled, then full"]
    assert rows[0][5] == "96.00 ± 1.41 (2 seeds)"
    assert rows[1][5:] == ["101.00", "60", "karui worse, 30 epochs, two cores"]
    assert any(row[5] == "60.30" and "Lei et al." in row[7] for row in rows[3:])


def test_sparse_models_stand_among_the_others_with_the_weights_they_keep():
    sparse = {"valid_perplexity": 97.3, "test_ppl": 91.91, "kept_params": 325_030, "compression": 42.3}
    records = [
        record("dense", metrics=words(90.0)),
        record("sparse", metrics=sparse) | {"task": "sparse-lm"},
        record("worse", metrics=words(101.0)),
    ]
    rows = word_table(records).rows[:3]
    assert [row[5] for row in rows] == ["90.00", "91.91", "101.00"]
    assert rows[1][1:3] == ["SRU, 3 layers of 512, sparse", "0.33 M, 42 times fewer"]


def test_characters_have_a_row_for_each_protocol():
    metrics = {"valid_bpc": 1.40, "test_bpc": 1.38, "test_bpc_reset_100": 1.44}
    rows = character_table([record("chars", metrics=metrics)]).rows
    assert rows[0][0] == "ptb"
    assert rows[0][4:6] == ["1.4000", "1.3800"]
    assert rows[1][0] == "ptb, reset every 100"
    assert rows[1][4:6] == ["–", "1.4400"]


def test_no_records_no_table():
    assert word_table([]).rows == character_table([record("words", metrics=words(90.0))]).rows == []
