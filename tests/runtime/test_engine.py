"""The native engine equals torch.nn.LSTM and torch.nn.GRU, and a Simple Recurrent Unit written here in numpy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from karui.runtime.format import ClassifierSpec, Direction, RecurrentLayer
from karui.runtime.layers import KINDS
from karui.runtime.model import Classifier, load

LENGTHS = (1, 2, 7, 40)
ALLOWED = 1e-5
TEXT = "A quiet, funny film! Don't call it dull, bad or boring."


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def run_sru(layer: RecurrentLayer, direction: Direction, x: np.ndarray) -> np.ndarray:
    """Lei et al. 2018 with a projected skip, in float64; (T, I) to (T, H)."""
    candidate, forget, reset, skip = np.split(x @ direction.weight_ih.astype(float).T, 4, axis=1)
    assert direction.weight_c is not None
    v_f, v_r = np.split(direction.weight_c.astype(float), 2)
    b_f, b_r = np.split(direction.bias.astype(float), 2)
    c, out = np.zeros_like(v_f), []
    for t in range(len(x)):
        f = sigmoid(forget[t] + v_f * c + b_f)
        r = sigmoid(reset[t] + v_r * c + b_r)
        c = f * c + (1 - f) * candidate[t]
        out.append(r * activate(layer, c) + (1 - r) * skip[t])
    return np.stack(out)


def activate(layer: RecurrentLayer, x: np.ndarray) -> np.ndarray:
    elu = np.where(x < 0, np.expm1(np.minimum(x, 0)), x)
    return {"identity": x, "tanh": np.tanh(x), "relu": np.maximum(x, 0), "elu": elu}[layer.activation]


def run_statistical(layer: RecurrentLayer, direction: Direction, x: np.ndarray) -> np.ndarray:
    """Oliva et al. 2017, one scale at a time."""
    assert direction.weight_r is not None
    assert direction.weight_phi is not None
    assert direction.weight_o is not None
    assert direction.alphas is not None
    P, R = direction.weight_phi.shape
    b_phi, b_r, b_o = np.split(direction.bias.astype(float), [P, P + R])
    alphas = direction.alphas.astype(float)[:, None]
    mu, out = np.zeros((len(alphas), P)), []
    for x_t in x:
        r = activate(layer, direction.weight_r.astype(float) @ mu.ravel() + b_r)
        phi = activate(layer, direction.weight_ih.astype(float) @ x_t + direction.weight_phi @ r + b_phi)
        mu = alphas * mu + (1 - alphas) * phi
        out.append(activate(layer, direction.weight_o.astype(float) @ mu.ravel() + b_o))
    return np.stack(out)


def run_qrnn(layer: RecurrentLayer, direction: Direction, x: np.ndarray) -> np.ndarray:
    """Bradbury et al. 2017, fo-pooling or f-pooling."""
    before = np.concatenate([np.zeros((1, x.shape[1])), x[:-1]])
    read = x if layer.window == 1 else np.concatenate([x, before], axis=1)
    gates = np.split(
        read @ direction.weight_ih.astype(float).T + direction.bias, 2 + layer.output_gate, axis=1
    )
    c, out = np.zeros(gates[0].shape[1]), []
    for t in range(len(x)):
        f = sigmoid(gates[1][t])
        c = f * c + (1 - f) * np.tanh(gates[0][t])
        out.append(sigmoid(gates[2][t]) * c if layer.output_gate else c)
    return np.stack(out)


def run_mingru(_: RecurrentLayer, direction: Direction, x: np.ndarray) -> np.ndarray:
    """Feng et al. 2024 with the positive candidate of its log-space form."""
    hidden, gate = np.split(x @ direction.weight_ih.astype(float).T + direction.bias, 2, axis=1)
    h, out = np.zeros(hidden.shape[1]), []
    for t in range(len(x)):
        z = sigmoid(gate[t])
        h = (1 - z) * h + z * np.where(hidden[t] >= 0, hidden[t] + 0.5, sigmoid(hidden[t]))
        out.append(h)
    return np.stack(out)


def run_torch(layer: RecurrentLayer, direction: Direction, x: np.ndarray) -> np.ndarray:
    """torch.nn.LSTM or GRU in float64 with the weights of one direction."""
    assert direction.weight_hh is not None
    size = direction.weight_hh.shape[1]
    cls = torch.nn.LSTM if layer.kind == "lstm" else torch.nn.GRU
    module = cls(x.shape[1], size, dtype=torch.float64)
    bias = torch.tensor(direction.bias, dtype=torch.float64)
    with torch.no_grad():
        module.weight_ih_l0.copy_(torch.tensor(direction.weight_ih))
        module.weight_hh_l0.copy_(torch.tensor(direction.weight_hh))
        if layer.kind == "lstm":
            module.bias_ih_l0.copy_(bias)
            module.bias_hh_l0.zero_()
        else:
            module.bias_ih_l0.copy_(bias[: 3 * size])
            module.bias_hh_l0.copy_(torch.cat([torch.zeros(2 * size, dtype=torch.float64), bias[3 * size :]]))
        return module(torch.tensor(x))[0].numpy()


RUNS = {"sru": run_sru, "statistical": run_statistical, "qrnn": run_qrnn, "mingru": run_mingru}


def expected_logits(spec: ClassifierSpec, ids: np.ndarray) -> np.ndarray:
    """The model of docs/format.md in float64."""
    ids = ids if len(ids) else np.zeros(1, np.int32)
    x = spec.embedding[ids].astype(float)
    last = x[-1]
    for layer in spec.layers:
        run = RUNS.get(layer.kind, run_torch)
        outputs = [run(layer, layer.directions[0], x)]
        if len(layer.directions) == 2:
            outputs.append(run(layer, layer.directions[1], x[::-1].copy())[::-1])
        x = np.concatenate(outputs, axis=1)
        last = np.concatenate([outputs[0][-1], *(output[0] for output in outputs[1:])])
    pooled = {
        "last": last,
        "mean": x.mean(0),
        "max": x.max(0),
        "mean+max": np.concatenate([x.mean(0), x.max(0)]),
    }[spec.pooling]
    logits = spec.output_weight.astype(float) @ pooled + spec.output_bias
    if spec.word_scores is not None:
        logits = logits + spec.word_scores[ids].astype(float).sum(0) / np.sqrt(len(ids))
    return logits


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pooling", ["last", "mean", "max", "mean+max"])
@pytest.mark.parametrize("hidden", [(5,), (4, 3), (16, 16), (33, 18)])
def test_engine_equals_torch(make_spec, kind: str, pooling: str, hidden: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    for layers, density, labels in ((1, 0.5, 2), (2, 1.0, 3), (2, 0.06, 2)):
        spec = make_spec(
            kind, pooling=pooling, hidden=hidden, layers=layers, density=density, labels=labels, seed=layers
        )
        documents = [rng.integers(0, 31, length).astype(np.int32) for length in LENGTHS] + [
            np.zeros(0, np.int32)
        ]
        answers = Classifier(spec).logits_ids(documents)
        for document, answer in zip(documents, answers, strict=True):
            assert np.abs(answer - expected_logits(spec, document)).max() <= ALLOWED


def test_two_stacked_layers_equal_one_torch_module(make_spec) -> None:
    spec = make_spec("lstm", hidden=(6, 6), layers=2, pooling="last", scores=False, density=1.0)
    module = torch.nn.LSTM(5, 6, num_layers=2, bidirectional=True)
    with torch.no_grad():
        for number, layer in enumerate(spec.layers):
            for place, direction in enumerate(layer.directions):
                suffix = f"_l{number}" + ("_reverse" if place else "")
                getattr(module, "weight_ih" + suffix).copy_(torch.tensor(direction.weight_ih))
                getattr(module, "weight_hh" + suffix).copy_(torch.tensor(direction.weight_hh))
                getattr(module, "bias_ih" + suffix).copy_(torch.tensor(direction.bias))
                getattr(module, "bias_hh" + suffix).zero_()
        ids = np.arange(20, dtype=np.int32)
        output = module(torch.tensor(spec.embedding[ids]))[0]
        pooled = torch.cat([output[-1, :6], output[0, 6:]])
        wanted = torch.tensor(spec.output_weight) @ pooled + torch.tensor(spec.output_bias)
    assert np.abs(Classifier(spec).logits_ids([ids])[0] - wanted.numpy()).max() <= ALLOWED


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "mean+max"])
def test_without_layers_the_embeddings_are_pooled(make_spec, pooling: str) -> None:
    spec = make_spec(layers=0, pooling=pooling)
    ids = np.arange(1, 9, dtype=np.int32)
    assert np.abs(Classifier(spec).logits_ids([ids])[0] - expected_logits(spec, ids)).max() <= ALLOWED


def test_only_word_scores(make_spec) -> None:
    spec = make_spec(layers=0, width=0)
    ids = np.asarray([1, 5, 0, 9], np.int32)
    wanted = spec.word_scores[ids].sum(0) / 2 + spec.output_bias
    assert np.allclose(Classifier(spec).logits_ids([ids])[0], wanted)


@pytest.mark.parametrize(
    ("kind", "hidden"), [("gru", (50,)), ("statistical", (150, 150)), ("qrnn", (30, 5)), ("mingru", (80,))]
)
def test_a_large_table_is_computed_a_token(make_spec, kind: str, hidden: tuple[int, ...]) -> None:
    spec = make_spec(kind, words=60_000, hidden=hidden, width=3, seed=5)
    model = Classifier(spec)
    for ids in (np.asarray([59_999, 1, 0, 30_000]), np.random.default_rng(0).integers(0, 60_001, 1300)):
        assert np.abs(model.logits_ids([ids])[0] - expected_logits(spec, ids)).max() <= ALLOWED


@pytest.mark.parametrize("kind", KINDS)
def test_long_texts(make_spec, kind: str) -> None:
    spec = make_spec(kind, layers=2, pooling="max")
    ids = np.random.default_rng(0).integers(0, 31, 1025)
    assert np.abs(Classifier(spec).logits_ids([ids])[0] - expected_logits(spec, ids)).max() <= ALLOWED


def test_threads_give_the_same_bits(make_spec) -> None:
    spec = make_spec("lstm", layers=2)
    texts = [" ".join(spec.words[: k % 30]) for k in range(50)]
    model = Classifier(spec)
    assert np.array_equal(model.logits(texts), model.logits(texts, threads=2))


@pytest.mark.parametrize("isa", ["generic", "avx2"])
def test_instruction_sets_agree(isa: str) -> None:
    code = (
        "import sys, karui; print([karui.load(path).logits(sys.argv[1]).tolist() for path in sys.argv[2:]])"
    )
    golden = Path(__file__).resolve().parent.parent / "golden"
    paths = [path for path in sorted(golden.glob("*.karui")) if isinstance(load(path), Classifier)]
    done = subprocess.run(
        [sys.executable, "-c", code, TEXT, *map(str, paths)],
        env={**os.environ, "KARUI_ISA_MAX": isa},
        capture_output=True,
        check=True,
    )
    for path, logits in zip(paths, json.loads(done.stdout), strict=True):
        assert np.abs(load(path).logits(TEXT) - np.asarray(logits)).max() <= ALLOWED


@pytest.mark.parametrize("ids", [[-1], [31], [2**31 - 1]])
def test_ids_outside_the_list_are_refused(make_spec, ids: list[int]) -> None:
    with pytest.raises(ValueError, match=f"in 0 .. 30, got {ids[0]}"):
        Classifier(make_spec()).logits_ids([ids])
    with pytest.raises(ValueError, match=f"in 0 .. 30, got {ids[0]}"):  # the engine checks by itself
        Classifier(make_spec())._engine.logits_ids(np.asarray(ids, np.int32), np.asarray([0, 1]))
    with pytest.raises(TypeError, match="integers, got float64"):
        Classifier(make_spec()).logits_ids([[1.5]])


@pytest.mark.parametrize("offsets", [[], [1, 2], [0, 2, 1], [0, 1], [0, 3]])
def test_offsets_outside_the_ids_are_refused(make_spec, offsets: list[int]) -> None:
    with pytest.raises(ValueError, match="offsets must"):
        Classifier(make_spec())._engine.logits_ids(np.zeros(2, np.int32), np.asarray(offsets, np.int64))


def test_shapes_are_checked_by_the_engine_itself(make_spec) -> None:
    from karui import _native

    spec = make_spec("sru", hidden=(4,))
    d = spec.layers[0].directions[0]
    parts = {"weight_ih": d.weight_ih, "bias": d.bias, "weight_c": d.weight_c}
    good = {
        "embedding": spec.embedding,
        "layers": [(0, 0, 1, True, [parts])],
        "pooling": 3,
        "output_weight": spec.output_weight,
        "output_bias": spec.output_bias,
        "word_scores": spec.word_scores,
        "max_tokens": 0,
    }
    assert _native.Engine(spec.words, **good).logits([""]).shape == (1, 1)
    for name, value in (
        ("embedding", spec.embedding[1:]),
        ("embedding", spec.embedding[:, 1:]),
        ("output_weight", spec.output_weight[:, 1:]),
        ("word_scores", spec.word_scores[1:]),
        ("layers", [(0, 0, 1, True, [{**parts, "weight_ih": d.weight_ih[1:]}])]),
        ("layers", [(0, 0, 1, True, [{**parts, "weight_c": d.weight_c[1:]}])]),
        ("layers", [(0, 0, 1, True, [{"weight_ih": d.weight_ih, "bias": d.bias}])]),
        ("layers", [(0, 4, 1, True, [parts])]),
        ("layers", [(0, 0, 2, True, [parts])]),
        ("layers", [(1, 0, 1, True, [parts])]),
        ("layers", [(3, 0, 1, True, [parts])]),
        ("layers", [(7, 0, 1, True, [parts])]),
        ("layers", [(0, 0, 1, True, [])]),
        ("pooling", 4),
    ):
        with pytest.raises(ValueError, match="must|wrong"):
            _native.Engine(spec.words, **{**good, name: value})


@pytest.mark.parametrize("name", ["weight_ih", "weight_r", "weight_phi", "weight_o", "bias", "alphas"])
def test_shapes_of_statistics_are_checked_by_the_engine_itself(make_spec, name: str) -> None:
    from karui import _native

    spec = make_spec("statistical", hidden=(4,))
    parts = {part: value for part, value in vars(spec.layers[0].directions[0]).items() if value is not None}
    options = {
        "embedding": spec.embedding, "pooling": 3, "output_weight": spec.output_weight,
        "output_bias": spec.output_bias, "word_scores": None, "max_tokens": 0,
    }  # fmt: skip
    assert _native.Engine(spec.words, layers=[(4, 2, 1, True, [parts])], **options).logits([""]).shape == (
        1,
        1,
    )
    for changed in ({**parts, name: parts[name][1:]}, {key: parts[key] for key in parts if key != name}):
        with pytest.raises(ValueError, match="must|wrong"):
            _native.Engine(spec.words, layers=[(4, 2, 1, True, [changed])], **options)


@pytest.mark.parametrize("kind", ["sru", "statistical", "qrnn", "mingru"])
@pytest.mark.parametrize("hidden", [(0, 5), (5, 0)])
def test_a_direction_without_units(make_spec, kind: str, hidden: tuple[int, ...]) -> None:
    for seed in range(6):
        spec = make_spec(kind, hidden=hidden, seed=seed)
        ids = np.arange(9, dtype=np.int32)
        assert np.abs(Classifier(spec).logits_ids([ids])[0] - expected_logits(spec, ids)).max() <= ALLOWED


def test_statistics_without_feedback_and_without_scales(make_spec) -> None:
    """The iid and multi forms have no r; a unit without scales gives its bias."""
    spec, ids = make_spec("statistical", hidden=(5, 3), seed=2), np.arange(9, dtype=np.int32)
    first, second = spec.layers[0].directions
    first.weight_r, first.weight_phi = first.weight_r[:0], first.weight_phi[:, :0]
    first.bias = np.delete(first.bias, [6, 7])
    second.weight_r, second.weight_o = second.weight_r[:, :0], second.weight_o[:, :0]
    second.alphas = second.alphas[:0]
    assert np.abs(Classifier(spec).logits_ids([ids])[0] - expected_logits(spec, ids)).max() <= ALLOWED
