"""What is written is read back: every kind, encoding and value type, within the error of the values."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from karui.runtime.format import LAYOUTS, VALUES, ClassifierSpec, encode, quantize, round_scale
from karui.runtime.layers import KINDS
from karui.runtime.reader import read, read_artifact
from karui.runtime.spec import arrays_of, outline_of, with_words_in

WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)


def named_arrays(spec: ClassifierSpec) -> dict[str, np.ndarray]:
    order = sorted(range(len(spec.words)), key=lambda number: spec.words[number].encode())
    return dict(arrays_of(with_words_in(spec, order)))


def allowed_error(array: np.ndarray, values: str, levels: int = 127) -> float:
    if values == "fp32":
        return 0.0
    largest = float(np.abs(array).max(initial=0))
    return largest * 2**-11 if values == "fp16" else largest / levels * 0.51


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("layout", [None, *LAYOUTS])
@pytest.mark.parametrize("coding", [True, False])
def test_round_trip(make_spec, kind: str, values: str, layout: str | None, coding: bool) -> None:
    spec = make_spec(kind, layers=2, labels=3)
    spec.provenance, spec.max_tokens = {"recipe": "ä test", "seed": "1"}, 400
    data = encode(spec, values=values, layout=layout, coding=coding)
    artifact = read_artifact(data)
    assert sum(artifact.sizes.values()) == len(data)
    back = artifact.spec
    assert back.words == sorted(spec.words)
    for name in ("labels", "pooling", "normalisation", "max_tokens", "provenance"):
        assert getattr(back, name) == getattr(spec, name)
    assert outline_of(back) == outline_of(spec)
    before, after = named_arrays(spec), named_arrays(back)
    assert list(before) == list(after) == [record.name for record in artifact.records]
    for record, (name, array) in zip(artifact.records, before.items(), strict=True):
        assert np.abs(after[name] - array).max() <= allowed_error(array, values), name
        assert record.values == values
        assert layout is None or record.layout == layout
        assert record.coded <= coding
        assert record.kept == np.count_nonzero(after[name])
        assert record.num_bytes == artifact.sizes[name]
    assert not back.embedding[0].any()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_round_trip_of_random_sizes(make_spec, data: st.DataObject) -> None:
    spec = make_spec(
        data.draw(st.sampled_from(KINDS)),
        words=data.draw(st.integers(0, 12)),
        width=data.draw(st.integers(0, 4)),
        hidden=tuple(data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=2))),
        layers=data.draw(st.integers(0, 3)),
        labels=data.draw(st.integers(2, 4)),
        pooling=data.draw(st.sampled_from(["last", "mean", "max", "mean+max"])),
        scores=data.draw(st.booleans()),
        density=data.draw(st.sampled_from([0.0, 0.1, 0.9, 1.0])),
        seed=data.draw(st.integers(0, 9)),
    )
    count = len(spec.words)
    spec.words = sorted(data.draw(st.sets(WORDS, min_size=count, max_size=count)))
    back = read(encode(spec))
    assert back.words == sorted(spec.words, key=str.encode)
    for name, array in named_arrays(spec).items():
        assert np.array_equal(named_arrays(back)[name], array), name


def test_each_matrix_takes_the_smallest_form(make_spec) -> None:
    spec = make_spec("lstm", words=200, width=9, density=0.2)
    chosen = read_artifact(encode(spec, values="int8"))
    for layout in LAYOUTS:
        for coding in (False, True):
            forced = read_artifact(encode(spec, values="int8", layout=layout, coding=coding))
            assert sum(chosen.sizes.values()) <= sum(forced.sizes.values())
    forms = {(record.layout, record.coded) for record in chosen.records}
    assert len(forms) > 1


def test_a_tiny_model_stays_tiny(make_spec) -> None:
    spec = make_spec(words=0, width=0, layers=0, scores=False)
    spec.labels = ["n", "p"]
    assert len(encode(spec)) <= 36


def test_words_move_with_their_rows(make_spec) -> None:
    spec = make_spec(words=3)
    spec.words = ["ß", "a", "漢"]
    back = read(encode(spec))
    assert back.words == ["a", "ß", "漢"]
    assert np.array_equal(back.embedding, spec.embedding[[0, 2, 1, 3]])
    assert np.array_equal(back.word_scores, spec.word_scores[[0, 2, 1, 3]])


def test_levels_and_scales(make_spec) -> None:
    spec = make_spec()
    coarse = read(encode(spec, values="int8", levels=3))
    assert len(np.unique(coarse.embedding)) <= 7
    assert np.abs(
        coarse.layers[0].directions[0].bias - spec.layers[0].directions[0].bias
    ).max() <= allowed_error(spec.layers[0].directions[0].bias, "int8")
    assert len(encode(spec, values="int8", levels=3)) < len(encode(spec, values="int8", levels=127))
    named = read(encode(spec, values="int8", levels={"embedding": 2}, scales={"embedding": 0.25}))
    assert set(np.unique(named.embedding)) <= {-0.5, -0.25, 0.0, 0.25, 0.5}
    assert len(np.unique(named.word_scores)) > 5


def test_quantize_prefers_the_least_squared_error() -> None:
    array = np.random.default_rng(0).normal(size=(50, 20))
    codes, scale = quantize(array, 7)
    plain = round_scale(np.abs(array).max() / 7)
    rounded = np.rint(array / plain) * plain
    assert np.abs(codes).max() <= 7
    assert np.square(codes * scale - array).sum() < 0.8 * np.square(rounded - array).sum()


@given(st.floats(1e-20, 1e20))
def test_scales_are_rounded_up_to_8_bits(scale: float) -> None:
    rounded = round_scale(scale)
    assert scale * (1 - 1e-6) <= rounded <= scale * (1 + 2**-7 + 1e-6)
    assert round_scale(rounded) == rounded


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pooling": "sum"}, "pooling must be one of"),
        ({"normalisation": "words-v2"}, "normalisation must be one of"),
        ({"labels": ["one"]}, "1 labels, 2 to"),
        ({"words": ["a"] * 30}, "words must differ"),
        ({"words": [f"w\0{k}" for k in range(30)]}, "no NUL"),
        ({"words": [""] + [f"w{k}" for k in range(29)]}, "1 to 1024 bytes"),
        ({"words": ["w"]}, "must have 2 rows"),
        ({"max_tokens": -1}, "max_tokens must be in"),
        ({"embedding": np.ones((31, 5), np.float32)}, "zeros in row 0"),
        ({"output_bias": np.zeros(2, np.float32)}, r"output_bias must have shape \(1, 1\), got \(2,\)"),
        ({"output_bias": np.full(1, np.nan, np.float32)}, "output_bias has values that are not finite"),
        ({"layers": []}, "output_weight must have shape"),
        ({"provenance": {"x": "y" * 2000}}, "at most 1024 bytes"),
    ],
)
def test_what_does_not_fit_is_named(make_spec, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode(replace(make_spec(), **change))


def test_options_are_checked(make_spec) -> None:
    for options, message in (
        ({"values": "int4"}, "values must be"),
        ({"values": "int8", "levels": 0}, "levels must be"),
    ):
        with pytest.raises(ValueError, match=message):
            encode(make_spec(), **options)
