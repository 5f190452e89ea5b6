"""The answer of a description in plain numpy and fp64, one text at a time, without torch or the runtime."""

import itertools

import numpy as np


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def activate(name, x):
    elu = np.where(x < 0, np.expm1(np.minimum(x, 0.0)), x)
    return {"identity": x, "tanh": np.tanh(x), "relu": np.maximum(x, 0.0), "elu": elu}[name]


def step(layer, direction, x, state):
    """One step of any kind but `statistical`: (output, new state); state is (h, c)."""
    kind, bias = layer.kind, direction.bias.astype(np.float64)
    h, c = state
    given = direction.weight_ih.astype(np.float64) @ x
    if kind == "sru":
        candidate, forget, reset, skip = np.split(given, 4)
        v_f, v_r = np.split(direction.weight_c.astype(np.float64), 2)
        b_f, b_r = np.split(bias, 2)
        f, r = sigmoid(forget + v_f * c + b_f), sigmoid(reset + v_r * c + b_r)
        c = f * c + (1 - f) * candidate
        h = r * activate(layer.activation, c) + (1 - r) * skip
    elif kind == "qrnn":
        z, f, *o = np.split(given + bias, 2 + layer.output_gate)
        c = sigmoid(f) * c + (1 - sigmoid(f)) * np.tanh(z)
        h = sigmoid(o[0]) * c if o else c
    elif kind == "mingru":
        a, z = np.split(given + bias, 2)
        h = (1 - sigmoid(z)) * h + sigmoid(z) * np.where(a >= 0, a + 0.5, sigmoid(a))
    elif kind == "lstm":
        i, f, g, o = np.split(given + direction.weight_hh.astype(np.float64) @ h + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    else:
        a, b = given, direction.weight_hh.astype(np.float64) @ h
        (a_r, a_z, a_n), (h_r, h_z, h_n) = np.split(a, 3), np.split(b, 3)
        b_r, b_z, b_n, b_hn = np.split(bias, 4)
        r, z = sigmoid(a_r + h_r + b_r), sigmoid(a_z + h_z + b_z)
        h = (1 - z) * np.tanh(a_n + b_n + r * (h_n + b_hn)) + z * h
    return h, c


def statistics(layer, direction, x):
    """(T, I) to (T, H) of a Statistical Recurrent Unit."""
    P, R = direction.weight_phi.shape
    b_phi, b_r, b_o = np.split(direction.bias.astype(np.float64), [P, P + R])
    alphas = direction.alphas.astype(np.float64)[:, None]
    mu, found = np.zeros((len(alphas), P)), []
    for x_t in x:
        r = activate(layer.activation, direction.weight_r.astype(np.float64) @ mu.ravel() + b_r)
        phi = (
            direction.weight_ih.astype(np.float64) @ x_t + direction.weight_phi.astype(np.float64) @ r + b_phi
        )
        mu = alphas * mu + (1 - alphas) * activate(layer.activation, phi)
        found.append(activate(layer.activation, direction.weight_o.astype(np.float64) @ mu.ravel() + b_o))
    return found


def walk(layer, x):
    """(T, I) to (T, sum of H)."""
    outputs = []
    for d, (direction, H) in enumerate(zip(layer.directions, layer.hidden_sizes, strict=True)):
        read = x[::-1] if d else x
        if layer.window == 2:
            read = np.concatenate([read, np.concatenate([np.zeros_like(read[:1]), read[:-1]])], axis=1)
        state, found = (np.zeros(H), np.zeros(H)), []
        if layer.kind == "statistical":
            found = statistics(layer, direction, read)
        else:
            for x_t in read:
                state = step(layer, direction, x_t, state)
                found.append(state[0])
        outputs.append(np.array(found[::-1] if d else found).reshape(len(x), H))
    return np.concatenate(outputs, axis=1)


def pool(spec, h):
    if spec.pooling == "last":
        H = spec.layers[-1].hidden_sizes[0] if spec.layers else h.shape[1]
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
        if spec.pairs is not None:
            table = {
                tuple(pair): row for pair, row in zip(spec.pairs.tolist(), spec.pair_scores, strict=True)
            }
            found = [table[pair] for pair in itertools.pairwise(tokens) if pair in table]
            total = total + np.sum(found, axis=0, dtype=np.float64) / np.sqrt(len(tokens))
        rows.append(total)
    return np.array(rows).reshape(len(texts), len(spec.output_bias))
