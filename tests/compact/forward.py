"""The answer of a description in plain numpy and fp64, one text at a time, without torch or the runtime."""

import numpy as np


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def step(kind, direction, x, state, *, tanh):
    """One step of any kind: (output, new state); state is (h, c)."""
    weight_ih, weight_hh, bias = (
        None if a is None else a.astype(np.float64)
        for a in (direction.weight_ih, direction.weight_hh, direction.bias)
    )
    h, c = state
    if kind == "sru":
        candidate, forget, reset, skip = np.split(weight_ih @ x, 4)
        v_f, v_r = np.split(direction.weight_c.astype(np.float64), 2)
        b_f, b_r = np.split(bias, 2)
        f, r = sigmoid(forget + v_f * c + b_f), sigmoid(reset + v_r * c + b_r)
        c = f * c + (1 - f) * candidate
        h = r * (np.tanh(c) if tanh else c) + (1 - r) * skip
    elif kind == "lstm":
        i, f, g, o = np.split(weight_ih @ x + weight_hh @ h + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    else:
        a, b = weight_ih @ x, weight_hh @ h
        (a_r, a_z, a_n), (h_r, h_z, h_n) = np.split(a, 3), np.split(b, 3)
        b_r, b_z, b_n, b_hn = np.split(bias, 4)
        r, z = sigmoid(a_r + h_r + b_r), sigmoid(a_z + h_z + b_z)
        h = (1 - z) * np.tanh(a_n + b_n + r * (h_n + b_hn)) + z * h
    return h, c


def walk(layer, x):
    """(T, I) to (T, sum of H)."""
    outputs = []
    for d, direction in enumerate(layer.directions):
        H = len(direction.bias) // (2 if layer.kind == "sru" else 4)
        state, found = (np.zeros(H), np.zeros(H)), []
        for x_t in x[::-1] if d else x:
            h, c = step(layer.kind, direction, x_t, state, tanh=layer.activation == "tanh")
            state = (h, c)
            found.append(h)
        outputs.append(np.array(found[::-1] if d else found).reshape(len(x), H))
    return np.concatenate(outputs, axis=1)


def pool(spec, h):
    if spec.pooling == "last":
        H = h.shape[1]
        if spec.layers:
            H = len(spec.layers[-1].directions[0].bias) // (2 if spec.layers[-1].kind == "sru" else 4)
        return np.concatenate([h[-1, :H], h[0, H:]])
    return np.concatenate([getattr(h, name)(axis=0) for name in spec.pooling.split("+")])


def logits(spec, texts):
    """(n, C) of lists of words."""
    ids = {word: i + 1 for i, word in enumerate(spec.words)}
    rows = []
    for words in texts:
        tokens = [ids.get(word, 0) for word in words][: spec.max_tokens or None] or [0]
        total = spec.output_bias.astype(np.float64)
        h = spec.embedding[tokens].astype(np.float64)
        for layer in spec.layers:
            h = walk(layer, h)
        total = total + spec.output_weight @ pool(spec, h)
        if spec.word_scores is not None:
            total = total + spec.word_scores[tokens].astype(np.float64).sum(axis=0) / np.sqrt(len(tokens))
        rows.append(total)
    return np.array(rows).reshape(len(texts), len(spec.output_bias))
