"""LSTM and GRU: what they add to torch's layers, against loops written from the equations in float64."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

from karui.nn import GRU, LSTM

OPTIONS: list[tuple[type[nn.Module], dict[str, Any]]] = [
    (LSTM, {"num_layers": 2}),
    (LSTM, {"num_layers": 2, "bidirectional": True, "proj_size": 3}),
    (LSTM, {"num_layers": 2, "bidirectional": True, "layer_norm": "pre", "bias": False}),
    (LSTM, {"layer_norm": "post", "proj_size": 2, "num_layers": 2}),
    (GRU, {"num_layers": 2, "bidirectional": True}),
    (GRU, {"num_layers": 2, "bidirectional": True, "layer_norm": "post"}),
    (GRU, {"num_layers": 2, "layer_norm": "pre", "bias": False}),
]
every_option = pytest.mark.parametrize(
    ("kind", "options"),
    OPTIONS,
    ids=lambda value: getattr(value, "__name__", "") or "-".join(map(str, value)),
)
T, B, N, H = 8, 4, 5, 6  # N features in
# Right, left, both sides and a hole, nothing but padding.
PADDING = torch.tensor(
    [
        [0, 0, 0, 0, 0, 1, 1, 1],
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 0, 0, 1, 1, 0, 0, 1],
        [1, 1, 1, 1, 1, 1, 1, 1],
    ],
    dtype=torch.bool,
)


def build(kind: type[nn.Module], **options: Any) -> Any:
    torch.manual_seed(3)
    layer = kind(N, H, **options, dtype=torch.float64)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.startswith("norm"):
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return layer


def first_state(layer: Any, batch_size: int = B) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(5)
    many = layer.num_layers * (2 if layer.bidirectional else 1)
    sizes = [layer.proj_size or H] + ([H] if isinstance(layer, LSTM) else [])
    return tuple(torch.randn(many, batch_size, n, generator=generator, dtype=torch.float64) for n in sizes)


def flat(state: Any) -> Any:
    return state if isinstance(state, tuple) else (state,)


def as_hx(state: Any) -> Any:
    return state if len(state) > 1 else state[0]


def inputs(batch_size: int = B) -> Tensor:
    return torch.randn(T, batch_size, N, generator=torch.Generator().manual_seed(8), dtype=torch.float64)


def cell(layer: Any, p: dict[str, Tensor], x: Tensor, state: list[Tensor], h: Tensor) -> list[Tensor]:
    """One step from the equations in the docstrings; h is the state that the recurrent product reads."""
    a, u = p["weight_ih"] @ x, p["weight_hh"] @ h
    if layer.bias:
        a, u = a + p["bias_ih"], u + p["bias_hh"]
    if isinstance(layer, LSTM):
        i, f, g, o = (a + u).chunk(4)
        c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        new = o.sigmoid() * c.tanh()
        return [p["weight_hr"] @ new if layer.proj_size else new, c]
    (r, z, n), (ur, uz, un) = a.chunk(3), u.chunk(3)
    r, z = (r + ur).sigmoid(), (z + uz).sigmoid()
    return [(1 - z) * (n + r * un).tanh() + z * state[0]]


def loop(
    layer: Any, x: Tensor, state: tuple[Tensor, ...], padding: Tensor | None = None, masks: Any = None
) -> Any:
    """The whole layer, one sequence, direction and step at a time: a truth without any batching."""
    D, lasts, source = 2 if layer.bidirectional else 1, [], x
    for layer_index in range(layer.num_layers):
        norm = [getattr(layer, f"norm_{k}_l{layer_index}", None) for k in ("weight", "bias")]
        if layer.layer_norm == "pre":
            source = F.layer_norm(source, source.shape[-1:], *norm)
        outputs = []
        for d in range(D):
            name = f"_l{layer_index}" + "_reverse" * d
            p = {n.removesuffix(name): w for n, w in layer.named_parameters() if n.endswith(name)}
            k, rows, ends = layer_index * D + d, [], []
            for b in range(x.shape[1]):
                own, row = (
                    [part[k, b] for part in state],
                    [torch.zeros(layer.proj_size or H, dtype=x.dtype)] * T,
                )
                for t in range(T - 1, -1, -1) if d else range(T):
                    if padding is None or not padding[b, t]:
                        h = own[0] if masks is None else own[0] * masks[k][b]
                        own = cell(layer, p, source[t, b], own, h)
                        row[t] = own[0]
                rows.append(torch.stack(row))
                ends.append(own)
            outputs.append(torch.stack(rows, 1))
            lasts.append([torch.stack(part) for part in zip(*ends, strict=True)])
        source = torch.cat(outputs, 2)
        if layer.layer_norm == "post":
            source = F.layer_norm(source, source.shape[-1:], *norm)
        if padding is not None:
            source = source.masked_fill(padding.t()[..., None], 0.0)
    return source, tuple(torch.stack(part) for part in zip(*lasts, strict=True))


def gradients(layer: Any, output: Tensor, state: Any, *leaves: Tensor) -> list[Tensor]:
    generator = torch.Generator().manual_seed(6)
    parts = [output, *flat(state)]
    loss = sum((p * torch.randn(p.shape, generator=generator, dtype=p.dtype)).sum() for p in parts)
    found = torch.autograd.grad(loss, [*layer.parameters(), *leaves], allow_unused=True)
    return [torch.zeros(()) if g is None else g for g in found]


def assert_same(found: Any, expected: Any) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() < 1e-11 * (1 + b.abs().max())


@pytest.mark.parametrize("batch_first", [False, True])
@every_option
def test_padding_anywhere_equals_the_equations(
    kind: type[nn.Module], options: Any, batch_first: bool
) -> None:
    layer = build(kind, **options, batch_first=batch_first)
    clean, state = inputs().requires_grad_(), tuple(s.requires_grad_() for s in first_state(layer))
    expected, last = loop(layer, clean, state, PADDING)
    truth = gradients(layer, expected, last, clean, *state)
    x = inputs()
    x[PADDING.t()] = torch.nan
    x.requires_grad_()
    output, found = layer(x.transpose(0, 1) if batch_first else x, as_hx(state), padding_mask=PADDING)
    output = output.transpose(0, 1) if batch_first else output
    assert_same([output, *flat(found)], [expected, *last])
    assert output[PADDING.t()].count_nonzero() == 0
    assert_same(gradients(layer, output, found, x, *state), truth)


@pytest.mark.parametrize("rows", [[1, 0, 3], [2, 0]], ids=["sides", "holes"])
@every_option
def test_padding_from_a_zero_state_equals_the_equations(
    kind: type[nn.Module], options: Any, rows: Any
) -> None:
    """Without hx torch's kernels can run over padding before the valid steps too."""
    layer, x, padding = build(kind, **options), inputs(len(rows)).requires_grad_(), PADDING[rows]
    output, found = layer(x, padding_mask=padding)
    expected, last = loop(
        layer, x, tuple(torch.zeros_like(s) for s in first_state(layer, len(rows))), padding
    )
    assert_same([output, *flat(found)], [expected, *last])
    assert_same(gradients(layer, output, found, x), gradients(layer, expected, last, x))


@every_option
def test_every_form_of_input_equals_the_equations(kind: type[nn.Module], options: Any) -> None:
    layer, x, lengths = build(kind, **options), inputs(), torch.tensor([3, 8, 1, 5])
    state = first_state(layer)
    expected = loop(layer, x, state)
    assert_same((layer(x, as_hx(state))[0], *flat(layer(x, as_hx(state))[1])), (expected[0], *expected[1]))
    padding = torch.arange(T) >= lengths[:, None]
    expected, last = loop(layer, x, state, padding)
    output, found = layer(x, as_hx(state), lengths=lengths)
    assert_same([output, *flat(found)], [expected, *last])
    packed = pack_sequence([x[:n, b] for b, n in enumerate(lengths.tolist())], enforce_sorted=False)
    output, found = layer(packed, as_hx(state))
    assert_same([pad_packed_sequence(output)[0], *flat(found)], [expected, *last])
    alone, found = layer(x[:, 0], as_hx(tuple(s[:, 0] for s in state)))
    assert_same([alone], [loop(layer, x[:, :1], tuple(s[:, :1] for s in state))[0][:, 0]])


@pytest.mark.parametrize("form", ["dense", "mask", "packed"])
@every_option
def test_recurrent_dropout_is_one_mask_a_sequence_on_the_recurrent_product(
    kind: type[nn.Module], options: Any, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = build(kind, **options, recurrent_dropout=0.4)
    x, state = inputs().requires_grad_(), tuple(s.requires_grad_() for s in first_state(layer))
    lengths = torch.tensor([8, 6, 6, 2])  # sorted, so that packed sequences meet the masks in this order
    padding = {"dense": None, "mask": PADDING, "packed": torch.arange(T) >= lengths[:, None]}[form]
    drawn: list[Tensor] = []
    plain_dropout = F.dropout

    def dropout(input: Tensor, p: float = 0.5, training: bool = True, **rest: Any) -> Tensor:  # noqa: A002
        mask = plain_dropout(input, p, training, **rest)
        if p == 0.4:
            assert input.eq(1).all()
            drawn.append(mask)
        return mask

    monkeypatch.setattr(F, "dropout", dropout)
    if form == "packed":
        packed = pack_sequence([x[:n, b] for b, n in enumerate(lengths.tolist())])
        output, found = layer(packed, as_hx(state))
        output = pad_packed_sequence(output)[0]
    else:
        output, found = layer(x, as_hx(state), padding_mask=padding)
    assert len(drawn) == layer.num_layers * (2 if layer.bidirectional else 1)
    assert all(mask.shape == (B, layer.proj_size or H) for mask in drawn)
    assert 0 < sum(int(m.count_nonzero()) for m in drawn) < sum(m.numel() for m in drawn)
    assert all(((m == 0) | ((m - 1 / 0.6).abs() < 1e-12)).all() for m in drawn)
    expected, last = loop(layer, x, state, padding, drawn)
    assert_same([output, *flat(found)], [expected, *last])
    assert_same(gradients(layer, output, found, x, *state), gradients(layer, expected, last, x, *state))
    layer.eval()
    drawn.clear()
    assert_same([layer(x, as_hx(state))[0]], [loop(layer, x, state)[0]])
    assert not drawn


@every_option
def test_steps_equal_the_whole_sequence(kind: type[nn.Module], options: Any) -> None:
    layer, x = build(kind, **options), inputs()
    if layer.bidirectional:
        with pytest.raises(ValueError, match="step needs bidirectional=False"):
            layer.step(x[0])
        return
    whole, last = layer(x, as_hx(first_state(layer)))
    state, outputs = as_hx(first_state(layer)), []
    for t in range(T):
        output, state = layer.step(x[t], state)
        outputs.append(output)
    assert_same([torch.stack(outputs), *flat(state)], [whole, *flat(last)])
    assert_same([layer.step(x[0])[0]], [layer(x[:1])[0][0]])


@every_option
def test_nothing_to_read_is_answered(kind: type[nn.Module], options: Any) -> None:
    layer, D = build(kind, **options), 2 if options.get("bidirectional") else 1
    state = first_state(layer)
    width = D * (layer.proj_size or H)
    for x, mask, shape in (
        (inputs()[:0], None, (0, B, width)),
        (inputs(), torch.ones(B, T, dtype=torch.bool), (T, B, width)),
    ):
        output, last = layer(x, as_hx(state), padding_mask=mask)
        assert output.shape == shape
        assert output.count_nonzero() == 0
        assert_same(flat(last), state)
        (output.sum() + sum(part.sum() for part in flat(last))).backward()
        assert layer.weight_ih_l0.grad is not None
        assert layer.weight_ih_l0.grad.count_nonzero() == 0
    output, last = layer(inputs(0))
    assert output.shape == (T, 0, width)
    assert flat(last)[0].shape == (layer.num_layers * D, 0, layer.proj_size or H)


@pytest.mark.parametrize("kind", [LSTM, GRU])
def test_double_backward(kind: type[nn.Module]) -> None:
    layer = build(kind, layer_norm="pre")
    x, mask = inputs(2)[:2].requires_grad_(), torch.tensor([[False, False], [True, False]])
    assert torch.autograd.gradgradcheck(lambda x: layer(x, padding_mask=mask)[0], x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("recurrent_dropout", [0.0, 1e-9])
@pytest.mark.parametrize("kind", [LSTM, GRU])
def test_half_precision_and_autocast(kind: Any, recurrent_dropout: float, dtype: torch.dtype) -> None:
    """Autocast gives one dtype whatever the form of the input; torch's own layers give several on a CPU."""
    torch.manual_seed(0)
    layer = kind(N, H, 2, layer_norm="post", recurrent_dropout=recurrent_dropout)
    x, lengths = torch.randn(T, 3, N), torch.tensor([8, 3, 0])
    expected = layer(x, lengths=lengths)[0]
    with torch.autocast("cpu", dtype):
        found = [layer(x)[0], *flat(layer(x)[1]), layer(x, lengths=lengths)[0], layer.eval().step(x[0])[0]]
        layer.train()
        packed = layer(pack_sequence([x[:, 0], x[:4, 1]]))[0]
    assert [part.dtype for part in (*found, packed.data)] == [dtype] * (len(found) + 1)
    assert (found[-2].float() - expected).abs().max() < 0.1
    found[0].float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in layer.parameters())
    half = layer.to(dtype)(x.to(dtype), lengths=lengths)[0]
    assert half.dtype == dtype
    assert (half.float() - expected).abs().max() < 0.1


def test_first_values() -> None:
    """Without an option the parameters are torch's, draw for draw; a gate bias is the sum of torch's two."""
    for kind, twin, option in ((LSTM, nn.LSTM, "forget_bias"), (GRU, nn.GRU, "update_bias")):
        torch.manual_seed(1)
        plain = kind(N, H, 2, layer_norm="pre")
        torch.manual_seed(1)
        for name, parameter in twin(N, H, 2).named_parameters():
            assert torch.equal(parameter, plain.get_parameter(name))
        layer = kind(N, H, 2, bidirectional=True, layer_norm="post", **{option: 1.5})
        assert f"{option}=1.5" in repr(layer)
        assert "layer_norm='post'" in repr(layer)
        for _ in range(2):
            for name in ("l0", "l1_reverse"):
                whole = layer.get_parameter(f"bias_ih_{name}") + layer.get_parameter(f"bias_hh_{name}")
                assert whole[H : 2 * H].eq(1.5).all()
                assert whole[:H].ne(1.5).all()
            assert layer.norm_weight_l1.shape == (2 * H,)
            assert layer.norm_weight_l1.eq(1).all()
            assert layer.norm_bias_l0.eq(0).all()
            torch.nn.init.normal_(layer.norm_weight_l1)
            layer.reset_parameters()
        with pytest.raises(ValueError, match=f"{option}=1.0 needs bias=True"):
            kind(N, H, bias=False, **{option: 1.0})


def test_weights_replaced_for_one_call_are_used_on_every_path() -> None:
    """`sparsify` lays drawn weights into `_flat_weights`, `functional_call` swaps the parameters."""
    for kind in (LSTM, GRU):
        layer, x = build(kind, layer_norm="pre", num_layers=2, recurrent_dropout=0.5), inputs()
        other = build(kind, layer_norm="pre", num_layers=2)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.mul_(1.5)
        norms = {n: p for n, p in layer.named_parameters() if n.startswith("norm")}
        other.load_state_dict(dict(other.state_dict()) | norms)
        own = layer._flat_weights
        other.recurrent_dropout = layer.recurrent_dropout
        for train, step, mask in ((0, 0, None), (0, 0, PADDING), (0, 1, None), (1, 0, None)):

            def call(m: Any, *, train: int = train, step: int = step, mask: Any = mask) -> Tensor:
                torch.manual_seed(0)
                m.train(bool(train))
                return (m.step(inputs()[0]) if step else m(inputs(), padding_mask=mask))[0]

            expected, before = call(other), call(layer)
            layer._flat_weights = list(other._flat_weights)
            assert torch.equal(call(layer), expected)
            layer._flat_weights = own
            assert torch.equal(call(layer), before)
            assert not torch.equal(before, expected)
        swapped = torch.func.functional_call(layer.eval(), dict(other.named_parameters()), (x,))[0]
        assert_same([swapped], [other.eval()(x)[0]])
        assert_same(
            [layer(x)[0]], [loop(layer, x, tuple(torch.zeros_like(s) for s in first_state(layer)))[0]]
        )


def test_what_does_not_fit_is_refused_by_name() -> None:
    layer, x = LSTM(N, H, recurrent_dropout=0.5), torch.zeros(T, B, N)
    for options, message in (
        ({"recurrent_dropout": 1.0}, r"recurrent_dropout must be in \[0, 1\), got 1.0"),
        ({"layer_norm": "both"}, "layer_norm must be None, 'pre' or 'post', got 'both'"),
    ):
        for kind in (LSTM, GRU):
            with pytest.raises(ValueError, match=message):
                kind(N, H, **options)
    with pytest.raises(ValueError, match="step needs eval.. where dropout is set"):
        layer.step(x[0])
    layer.eval()
    for arguments, message in (
        ({"lengths": torch.tensor([9, 1, 1, 1])}, r"lengths must lie in \[0, 8\], got 1 to 9"),
        ({"lengths": torch.ones(3)}, r"lengths must have shape \(4,\), got \(3,\)"),
        ({"padding_mask": torch.zeros(T, B, dtype=torch.bool)}, r"boolean of shape \(4, 8\), got .*\(8, 4\)"),
        ({"padding_mask": torch.zeros(B, T)}, "padding_mask must be boolean .* got torch.float32"),
        ({"padding_mask": PADDING, "lengths": torch.ones(B)}, "give lengths or padding_mask, not both"),
        ({"hx": (torch.zeros(1, B, H),)}, r"hx must have shape \(1, 4, 6\) and \(1, 4, 6\), got \(1, 4, 6\)"),
    ):
        with pytest.raises(ValueError, match=message):
            layer(x, **arguments)
    with pytest.raises(ValueError, match=r"input must have 5 features in three dimensions, got \(8, 4, 6\)"):
        layer(torch.zeros(T, B, 6))
    with pytest.raises(ValueError, match=r"input must have shape \(B, 5\), got \(4, 6\)"):
        layer.step(torch.zeros(B, 6))
    with pytest.raises(
        ValueError, match="input must have the dtype of the weights, torch.float32, got torch.f"
    ):
        layer(x.double())
    packed = pack_sequence([x[:, 0]])
    with pytest.raises(ValueError, match="must be None with a PackedSequence"):
        layer(packed, lengths=torch.tensor([8]))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [LSTM, GRU])
def test_layer_norm_leaves_cudnn_its_layout(kind: type[nn.Module]) -> None:
    """A warning (an error here) would tell that cuDNN compacts the weights at every call."""
    layer, x = build(kind, num_layers=2, bidirectional=True, layer_norm="pre"), inputs()
    expected = layer(x, padding_mask=PADDING)[0]
    found = layer.cuda()(x.cuda(), padding_mask=PADDING.cuda())[0].cpu()
    assert (found - expected).abs().max() < 1e-6
