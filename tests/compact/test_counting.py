"""Sizes and operations of a description, against counts by hand."""

import numpy as np

from karui.compact.convert import to_spec
from karui.compact.counting import architecture, kept_numbers, matrix_flops
from karui.tasks.text_classifier import TextClassifier

WORDS = [f"w{i}" for i in range(10)]


def spec_of(**zeros: slice):
    model = TextClassifier(10, 2, recurrent="gru", embedding_dim=4, hidden_size=3, pooling="mean")
    for name, value in model.named_parameters():
        value.data.fill_(0.5)
        for part, rows in zeros.items():
            if name.startswith(part):
                value.data[rows] = 0.0
    model.embedding.weight.data[0] = 0.0
    return to_spec(model.eval(), WORDS, ["a", "b"])


def test_architecture_names_words_columns_and_units_of_each_direction():
    assert architecture(spec_of()) == [10, 4, 3, 3]


def test_flops_are_two_a_weight_and_word_and_leave_out_what_is_zero():
    of_word, of_text = 2 * (9 * 4 + 9 * 3), 6  # two directions; an output of six features
    flops, sparse = matrix_flops(spec_of(), 20)
    assert flops == sparse == 2 * (20 * of_word + of_text)
    flops, sparse = matrix_flops(spec_of(**{"recurrent.weight_ih_l0": slice(0, 3)}), 20)
    assert flops == 2 * (20 * of_word + of_text)
    assert sparse == flops - 2 * 20 * 2 * 3 * 4


def test_kept_numbers_count_biases_and_leave_out_zeros():
    full, fewer = spec_of(), spec_of(embedding=slice(0, 3))
    assert kept_numbers(full) - kept_numbers(fewer) == 2 * 5  # rows 1 and 2: four columns and a score
    total = sum(int(np.prod(a.shape)) for a in (full.embedding, full.word_scores, full.output_weight))
    assert kept_numbers(full) > total - 5
