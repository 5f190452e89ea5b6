"""Language models with dead parts become smaller files with equal log-probabilities; dense ones keep every bit."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from karui.compact.language_shrink import shrink_language
from karui.runtime.language import LanguageModel
from karui.runtime.language_format import AdaptiveOutput, ClassOutput, FullOutput, LanguageModelSpec
from karui.runtime.language_format import encode_language_model as encode
from karui.runtime.language_spec import arrays_of
from karui.runtime.layers import CODES, FIELDS, bias_blocks, weight_blocks
from karui.runtime.model import load_language_model
from tests.runtime.language_specs import OUTPUTS, random_model

KINDS = tuple(CODES)


def scores(model: LanguageModel, spec: LanguageModelSpec) -> np.ndarray:
    """Log-probabilities (150,) of a text in two pieces with a carried state, and (V,) of the next word after it."""
    places = {word: number for number, word in enumerate(model.words)}
    ids = np.array(
        [places[spec.words[k]] for k in np.random.default_rng(0).integers(0, len(spec.words), 150)]
    )
    stream = model.stream()
    parts = [stream.score_ids(ids[:70].astype(np.int32)), stream.score_ids(ids[70:].astype(np.int32))]
    return np.concatenate([*parts, stream.log_probs()[[places[word] for word in spec.words]]])


def shrunk(spec: LanguageModelSpec) -> LanguageModelSpec:
    """Shrink, and hold what every case must hold: equal answers from the file, and nothing left for a second time."""
    before = [array.copy() for _, array in arrays_of(spec)]
    wanted = scores(LanguageModel(spec), spec)
    small = shrink_language(spec)
    for (name, array), old in zip(arrays_of(spec), before, strict=True):
        assert np.array_equal(array, old), f"{name} of the description given was changed"
    found = scores(load_language_model(encode(small)), spec)
    assert (np.abs(found - wanted) / np.maximum(1.0, np.abs(wanted))).max() <= 1e-5
    assert encode(shrink_language(small)) == encode(small)
    return small


def sizes(spec: LanguageModelSpec) -> tuple[int, list[int], int | None]:
    projection = None if spec.projection_weight is None else len(spec.projection_weight)
    return spec.embedding.shape[1], [layer.hidden_sizes[0] for layer in spec.layers], projection


def clear_reads(spec: LanguageModelSpec, k: int, features: list[int]) -> None:
    """Whoever reads these inputs of layer k, or outputs of the last layer, reads them no more."""
    if k < len(spec.layers):
        layer, direction = spec.layers[k], spec.layers[k].directions[0]
        width = direction.weight_ih.shape[1] // layer.window
        for start in range(layer.window):
            direction.weight_ih[:, [start * width + feature for feature in features]] = 0.0
    elif spec.projection_weight is not None:
        spec.projection_weight[:, features] = 0.0
    else:
        for name, array in arrays_of(spec):
            if name in ("output_weight", "class_weight") or name.endswith(".projection"):
                array[:, features] = 0.0


def clear_own_reads(spec: LanguageModelSpec, k: int, units: list[int]) -> None:
    """The layer itself reads the state of these units no more."""
    direction = spec.layers[k].directions[0]
    if direction.weight_hh is not None:
        direction.weight_hh[:, units] = 0.0


def silence(spec: LanguageModelSpec, k: int, units: list[int]) -> None:
    """These units of layer k are zero for every text."""
    layer = spec.layers[k]
    direction = layer.directions[0]
    H, own = layer.hidden_sizes[0], np.array(units)
    if layer.kind == "statistical":
        assert direction.weight_o is not None
        direction.weight_o[own] = 0.0
        direction.bias[len(direction.bias) - H + own] = 0.0
        return
    gates = weight_blocks(layer.kind, output_gate=layer.output_gate)
    for gate in range(gates):
        direction.weight_ih[gate * H + own] = 0.0
        if direction.weight_hh is not None:
            direction.weight_hh[gate * H + own] = 0.0
    for gate in range(bias_blocks(layer.kind, output_gate=layer.output_gate)):
        direction.bias[gate * H + own] = 0.0


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_dense_model_keeps_every_bit(kind: str, output: str) -> None:
    for projection in (None, 6):
        spec = random_model(kind, output, layers=2, projection=projection)
        assert encode(shrink_language(spec)) == encode(spec)


@pytest.mark.parametrize("output", [name for name in OUTPUTS if name != "tied"])
@pytest.mark.parametrize("kind", KINDS)
def test_units_and_columns_that_nobody_reads_go(kind: str, output: str) -> None:
    spec = random_model(kind, output, layers=2, hidden=7)
    clear_reads(spec, 0, [1, 4])
    clear_reads(spec, 1, [0, 3])
    clear_own_reads(spec, 0, [0, 3])
    clear_reads(spec, 2, [2])
    clear_own_reads(spec, 1, [2])
    small = shrunk(spec)
    assert sizes(small) == (4, [5, 6], None)
    assert np.array_equal(small.embedding, spec.embedding[:, [0, 2, 3, 5]])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mingru"])  # its units are never zero
def test_units_that_are_always_zero_go(kind: str) -> None:
    spec = random_model(kind, layers=2, hidden=7)
    silence(spec, 0, [0, 3])
    silence(spec, 1, [2, 4, 6])
    spec.embedding[:, 5] = 0.0
    assert sizes(shrunk(spec)) == (5, [5, 4], None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_unit_that_only_its_own_layer_reads_stays(kind: str) -> None:
    spec = random_model(kind, hidden=5)
    clear_reads(spec, 1, [2])
    kept = 5 if spec.layers[0].directions[0].weight_hh is not None else 4
    assert sizes(shrunk(spec))[1] == [kept]


def test_a_pruned_word_stays_as_a_row_of_zeros_that_takes_no_room() -> None:
    spec = random_model(n_words=400, width=8)
    full = len(encode(spec))
    spec.embedding[10:390] = 0.0
    small = shrunk(spec)
    assert small.words == spec.words
    assert len(encode(small)) < full - 380 * 8 * 4 * 0.8


def test_a_constant_output_of_statistics_becomes_part_of_the_biases() -> None:
    """Of the next layer and of the output layer; the shared table keeps its column, the unit becomes zero."""
    for output in ("full", "classes", "adaptive", "tree", "tied"):
        spec = random_model("statistical", output, layers=2, seed=1)
        for layer in spec.layers:
            direction = layer.directions[0]
            assert direction.weight_o is not None
            direction.weight_o[2] = 0.0
            direction.bias[-4] = 0.8
        small = shrunk(spec)
        assert sizes(small) == (6, [5, 6 if output == "tied" else 5], None)
        assert small.layers[1].directions[0].bias[-4] == 0.0 or output != "tied"


def test_a_constant_output_gate_scales_who_reads_it_unless_the_table_is_shared() -> None:
    for output, gates in (("full", False), ("tied", True)):
        spec = random_model("qrnn", output, seed=1)
        spec.layers[0].directions[0].weight_ih[12:18] = 0.0
        assert shrunk(spec).layers[0].output_gate == gates


@pytest.mark.parametrize("kind", KINDS)
def test_a_projection_loses_what_is_dead_on_either_side(kind: str) -> None:
    spec = random_model(kind, projection=5)
    output = spec.output
    assert isinstance(output, FullOutput)
    assert output.weight is not None
    assert spec.projection_weight is not None
    output.weight[:, 1] = 0.0  # nobody reads it
    spec.projection_weight[3] = 0.0  # a constant
    clear_reads(spec, 1, [0])
    clear_own_reads(spec, 0, [0])
    small = shrunk(spec)
    assert sizes(small) == (6, [5], 3)


def test_a_tail_loses_inner_dimensions() -> None:
    spec = random_model(output="adaptive")
    assert isinstance(spec.output, AdaptiveOutput)
    spec.output.tails[0].projection[1] = 0.0
    spec.output.tails[1].weight[:] = 0.0
    small = shrunk(spec).output
    assert isinstance(small, AdaptiveOutput)
    assert [len(tail.projection) for tail in small.tails] == [2, 0]


def test_both_matrices_of_classes_read() -> None:
    spec = random_model(output="classes")
    assert isinstance(spec.output, ClassOutput)
    spec.output.weight[:, [1, 2]] = 0.0
    spec.output.class_weight[:, [2, 3]] = 0.0
    assert sizes(shrunk(spec)) == (6, [5], None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_shared_table_loses_what_both_sides_can_do_without(kind: str) -> None:
    spec = random_model(kind, "tied", layers=2)
    spec.embedding[:, [1, 4]] = 0.0  # the output reads neither then
    clear_own_reads(spec, 1, [1])  # unit 4 is read by the state of an LSTM or GRU, so it stays
    small = shrunk(spec)
    left = 5 if spec.layers[1].directions[0].weight_hh is not None else 4
    assert sizes(small) == (left, [6, left], None)
    clear_reads(spec, 0, [0])  # the output still reads its unit
    assert sizes(shrunk(spec))[0] == left


def test_a_shared_table_loses_a_column_of_a_silent_unit_that_is_not_read() -> None:
    spec = random_model("lstm", "tied", layers=2)
    silence(spec, 1, [3])
    assert sizes(shrunk(spec)) == (6, [6, 6], None)
    clear_reads(spec, 0, [3])
    assert sizes(shrunk(spec)) == (5, [6, 5], None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_shared_table_with_a_projection(kind: str) -> None:
    spec = random_model(kind, "tied", projection=6)
    assert spec.projection_weight is not None
    assert spec.projection_bias is not None
    spec.embedding[:, 1] = 0.0
    spec.projection_weight[4] = 0.0  # a constant, which the bias takes over; layer 0 still reads the column
    small = shrunk(spec)
    assert sizes(small) == (5, [6], 5)
    assert small.projection_bias is not None
    assert small.projection_bias[3] == 0.0
    clear_reads(spec, 0, [4])
    assert sizes(shrunk(spec)) == (4, [6], 4)


@pytest.mark.parametrize("projection", [None, 6])
@pytest.mark.parametrize("output", OUTPUTS)
def test_where_nothing_is_read_the_unigram_is_left(output: str, projection: int | None) -> None:
    spec = random_model("gru", output, layers=2, projection=projection)
    if output == "tied":
        spec.embedding[:] = 0.0
    clear_reads(replace(spec, projection_weight=None), 2, list(range(6)))
    assert sizes(shrunk(spec)) == (0, [], None)


def test_a_layer_above_an_empty_one_runs_on_its_biases() -> None:
    for output, width in (("full", 0), ("tied", 6)):
        spec = random_model("lstm", output, layers=2)
        clear_reads(spec, 1, list(range(6)))
        assert sizes(shrunk(spec)) == (width, [6], None)
    spec = random_model("lstm", "tied", projection=6)
    assert spec.projection_weight is not None
    spec.projection_weight[:] = 0.0
    clear_reads(spec, 0, [0, 1])
    assert sizes(shrunk(spec)) == (0, [], None)


def masked(spec: LanguageModelSpec, density: float, seed: int) -> LanguageModelSpec:
    """Weights at random places zero, and whole rows and columns besides, so that units die in chains."""
    rng = np.random.default_rng(seed)

    def thin(array: np.ndarray) -> None:
        array *= rng.random(array.shape) < density
        if array.ndim == 2:
            array *= rng.random((len(array), 1)) < 0.8
            array *= rng.random(array.shape[1]) < 0.8

    for _, array in arrays_of(spec):
        thin(array)
    return spec


def drawn(kind: str, output: str, seed: int, **more: Any) -> LanguageModelSpec:
    spec = masked(random_model(kind, output, seed=seed, **more), (0.1, 0.3, 0.6)[seed % 3], seed)
    for layer in spec.layers:  # the fields exist and are of the spec's own arrays
        assert any(getattr(layer.directions[0], name) is not None for name in FIELDS)
    return spec


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_random_masks(kind: str, output: str) -> None:
    cells = []
    for seed in range(4):
        projection = 6 if seed % 2 else None
        spec = drawn(kind, output, seed, layers=1 + seed % 3, projection=projection)
        small = shrunk(spec)
        cells.append(sum(a.size for _, a in arrays_of(small)) / sum(a.size for _, a in arrays_of(spec)))
    assert max(cells) <= 1.0
    assert min(cells) < 0.6
