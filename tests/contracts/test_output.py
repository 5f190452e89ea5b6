"""What every output layer promises; a new layer is one row of CASES."""

import copy
import io
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from karui.output.registry import FLAT, OUTPUTS, build_output
from tests.support.allocations import Allocations

V, H = 23, 6
COUNTS = torch.tensor(
    [5, 0, 71, 3, 1, 9, 30, 2, 2, 250, 1, 4, 8, 0, 6, 13, 1, 40, 7, 3, 2, 18, 1]
)  # unsorted


class Case(NamedTuple):
    """A layer by its name and its options."""

    name: str
    options: dict[str, Any] = {}  # noqa: RUF012  never changed

    def build(self, counts: Tensor | int = COUNTS, hidden_size: int = H, **more: Any) -> Any:
        torch.manual_seed(4)
        layer = build_output(self.name, hidden_size, counts, options=self.options, **more)
        with torch.no_grad():
            for parameter in layer.parameters():  # larger than at the start, so that probabilities differ
                parameter += 0.3 * torch.randn(parameter.shape)
        return layer.double()

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{k}={v}" for k, v in self.options.items() if k != "num_samples")])


K = {"num_samples": 11}
CASES = [
    Case("full"),
    Case("full", {"chunk_size": 2}),
    Case("importance", {"num_samples": 80}),  # few samples leave its loss without a bottom
    Case("importance-target", K | {"noise": "log-uniform"}),
    Case("sampled", K),
    Case("sampled", K | {"num_splits": 3, "noise": "uniform"}),
    Case("sampled", K | {"unique": True, "noise": "log-uniform"}),
    Case("nce", K),
    Case("nce", K | {"log_z": "learned", "log_z_init": 2.0}),
    Case("negative", K),
    Case("blackout", K),
    Case("blackout", K | {"remove_accidental_hits": "merge"}),
    Case("self-normalized"),
    Case("self-normalized", {"fraction": 0.4}),
    Case("huffman"),
    Case("class"),
    Case("class", {"n_clusters": 4}),
    Case("adaptive", {"cutoffs": [3, 9], "min_dim": 2}),
]
FLAT_CASES = [case for case in CASES if case.name in FLAT]
SAMPLED_CASES = [case for case in FLAT_CASES if "num_samples" in case.options]
EXACT = {"full", "huffman", "class", "adaptive"}  # forward is the exact nll

every_case = pytest.mark.parametrize("case", CASES, ids=str)
flat_case = pytest.mark.parametrize("case", FLAT_CASES, ids=str)
sampled_case = pytest.mark.parametrize("case", SAMPLED_CASES, ids=str)


def inputs(*shape: int, n_classes: int = V, seed: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(*shape, H, dtype=torch.float64, generator=generator)
    return hidden, torch.randint(n_classes, shape, generator=generator)


def equal(found: Tensor, expected: Tensor, allowed: float = 1e-12) -> None:
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    if found.numel():
        scale = max(1.0, expected.abs().max().item())
        assert (found - expected).abs().max() <= allowed * scale


def loss_of(layer: Any, hidden: Tensor, target: Tensor, **words: Any) -> Tensor:
    """The training loss under a seed of its own."""
    torch.manual_seed(17)
    return layer(hidden, target, **words)


def gradients(layer: nn.Module, loss: Tensor, *others: Tensor, retain: bool = False) -> list[Tensor]:
    """Dense gradients of all parameters and of others; zeros where the loss does not reach."""
    likes = [*layer.parameters(), *others]
    found = torch.autograd.grad(loss, likes, retain_graph=retain, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g.to_dense() for g, x in zip(found, likes, strict=True)]


def test_every_name_has_a_row() -> None:
    assert {case.name for case in CASES} == set(OUTPUTS)


@every_case
def test_log_prob_sums_to_one(case: Case) -> None:
    log_prob = case.build().log_prob(inputs(2, 3)[0])
    assert log_prob.shape == (2, 3, V)
    equal(log_prob.logsumexp(-1), torch.zeros(2, 3, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(), (1,), (5,), (4, 3), (2, 1, 4), (0,), (2, 0)])
@every_case
def test_nll_is_the_log_prob_of_the_target(case: Case, shape: tuple[int, ...]) -> None:
    layer, (hidden, target) = case.build(), inputs(*shape)
    expected = -layer.log_prob(hidden).gather(-1, target.unsqueeze(-1)).squeeze(-1)
    for chunk in (None, 1, 2, 100):
        equal(layer.nll(hidden, target, reduction="none", chunk=chunk), expected)
        equal(layer.nll(hidden, target, reduction="sum", chunk=chunk), expected.sum())
        mean = expected.mean() if expected.numel() else expected.new_zeros(())
        equal(layer.nll(hidden, target, chunk=chunk), mean)
    assert loss_of(layer, hidden, target, reduction="none").shape == shape
    if case.name in EXACT:
        equal(loss_of(layer, hidden, target, reduction="none"), expected)


@every_case
def test_nll_has_the_gradient_of_log_prob(case: Case) -> None:
    layer, (hidden, target) = case.build(), inputs(4, 3)
    hidden.requires_grad_()
    ramp = torch.arange(1.0, 13.0).view(4, 3)
    plain = -layer.log_prob(hidden).gather(-1, target.unsqueeze(-1)).squeeze(-1)
    whole, mean = (
        gradients(layer, loss, hidden, retain=True) for loss in ((plain * ramp).sum(), 3 * plain.mean())
    )
    for chunk in (None, 5):
        rows = layer.nll(hidden, target, reduction="none", chunk=chunk)
        for a, b in zip(gradients(layer, (rows * ramp).sum(), hidden), whole, strict=True):
            equal(a, b)
        for a, b in zip(
            gradients(layer, 3 * layer.nll(hidden, target, chunk=chunk), hidden), mean, strict=True
        ):
            equal(a, b)


@pytest.mark.parametrize("k", [1, 4, V])
@every_case
def test_topk_and_predict_equal_a_full_sort(case: Case, k: int) -> None:
    layer, (hidden, _) = case.build(), inputs(3, 2)
    values, ids = layer.log_prob(hidden).sort(-1, descending=True)
    found, places = layer.topk(hidden, k)
    equal(found, values[..., :k].detach())
    assert places.dtype == torch.int64
    assert torch.equal(places, ids[..., :k])
    assert torch.equal(layer.predict(hidden), ids[..., 0])
    assert layer.predict(hidden[0, 0]).shape == ()
    assert layer.topk(hidden[:0], k)[0].shape == (0, 2, k)


@every_case
def test_samples_follow_the_exact_distribution(case: Case) -> None:
    layer, draws = case.build(), 4000
    hidden = inputs(1)[0].expand(draws, H)
    for temperature, top_k in ((1.0, 0), (0.7, 0), (1.5, 5)):
        words = layer.sample(
            hidden, temperature=temperature, top_k=top_k, generator=torch.Generator().manual_seed(3)
        )
        assert words.dtype == torch.int64
        log_prob = layer.log_prob(hidden[0]) / temperature
        if top_k:
            log_prob = torch.where(log_prob >= log_prob.topk(top_k).values[-1], log_prob, -torch.inf)
        expected = log_prob.softmax(0).detach() * draws
        likely = expected >= 5
        found = words.bincount(minlength=V).double()
        groups = torch.cat([found[likely], found[~likely].sum()[None]])
        wanted = torch.cat([expected[likely], expected[~likely].sum()[None]]).clamp_min(1e-9)
        assert found[expected == 0].sum() == 0
        chi_square = ((groups - wanted).square() / wanted).sum()
        freedom = len(groups) - 1
        assert chi_square <= freedom + 5 * (2 * freedom) ** 0.5 + 5
    again = [layer.sample(hidden, generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*again)
    assert torch.equal(layer.sample(hidden[:2], temperature=0), layer.predict(hidden[:2]))


@every_case
def test_ignored_positions_cost_nothing(case: Case) -> None:
    layer, (hidden, target) = case.build(), inputs(4, 3)
    target[1, 2], target[3, 0] = -100, -100
    kept = target != -100
    hidden[1, 2] = torch.nan
    hidden.requires_grad_()
    for call in (lambda *a, **w: loss_of(layer, *a, **w), layer.nll):
        losses = call(hidden, target, reduction="none")
        equal(losses[kept], call(hidden[kept], target[kept], reduction="none"))
        assert losses[1, 2] == 0
        assert losses[3, 0] == 0
        equal(call(hidden, target), losses[kept].mean())
        (gradient,) = torch.autograd.grad(call(hidden, target), [hidden])
        assert gradient[~kept].count_nonzero() == 0
        assert gradient[kept].isfinite().all()
        other = target.masked_fill(~kept, 7).masked_fill(kept & (target == 7), 8)
        equal(call(hidden, other, ignore_index=7), call(hidden[kept], other[kept]))


@every_case
def test_nothing_to_learn_from_is_zero_with_zero_gradients(case: Case) -> None:
    layer, (hidden, target) = case.build(), inputs(4, 3)
    for x, y in ((hidden, torch.full_like(target, -100)), (hidden[:0], target[:0])):
        x = x.clone().requires_grad_()
        for call in (layer, layer.nll):
            for reduction in ("mean", "sum"):
                loss = call(x, y, reduction=reduction)
                assert loss == 0
                for gradient in gradients(layer, loss, x):
                    assert gradient.count_nonzero() == 0
            assert call(x, y, reduction="none").count_nonzero() == 0


@every_case
def test_reductions_agree(case: Case) -> None:
    layer, (hidden, target) = case.build(), inputs(4, 3)
    hidden.requires_grad_()
    rows = loss_of(layer, hidden, target, reduction="none")
    for reduction, expected in (("mean", rows.mean()), ("sum", rows.sum())):
        found = loss_of(layer, hidden, target, reduction=reduction)
        equal(found, expected)
        pairs = zip(
            gradients(layer, 2 * found, hidden),
            gradients(layer, 2 * expected, hidden, retain=True),
            strict=True,
        )
        for a, b in pairs:
            equal(a, b)


@every_case
def test_modes_do_not_change_the_loss(case: Case) -> None:
    layer, (hidden, target) = case.build(), inputs(4, 3)
    loss = loss_of(layer, hidden, target)
    assert torch.equal(loss_of(layer, hidden, target), loss)  # the same seed, the same noise words
    assert torch.equal(loss_of(layer.eval(), hidden, target), loss)
    with torch.no_grad():
        assert torch.equal(loss_of(layer, hidden, target), loss)
    with torch.inference_mode():
        assert torch.equal(loss_of(layer, hidden, target), loss)


@every_case
def test_a_second_backward_repeats_the_first(case: Case) -> None:
    layer, (hidden, target) = case.build(), inputs(5)
    loss = loss_of(layer, hidden.requires_grad_(), target)
    first = gradients(layer, loss, hidden, retain=True)
    for a, b in zip(first, gradients(layer, loss, hidden, retain=True), strict=True):
        equal(a, b)


@every_case
def test_weights_travel(case: Case) -> None:
    layer, (hidden, target) = case.build(), inputs(4, 3)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    for other in (case.build(), copy.deepcopy(layer)):
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.zero_()
        file.seek(0)
        other.load_state_dict(torch.load(file, weights_only=True))
        assert torch.equal(other.log_prob(hidden), layer.log_prob(hidden))
        assert torch.equal(loss_of(other, hidden, target), loss_of(layer, hidden, target))
    assert str(V) in repr(layer)


@every_case
def test_training_finds_the_pattern(case: Case) -> None:
    layer = case.build().float()
    target = torch.arange(V).repeat(6)
    hidden = (torch.eye(V)[:, :H] + torch.randn(V, H, generator=torch.Generator().manual_seed(5))).repeat(
        6, 1
    )
    first = layer.nll(hidden, target).item()
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(120):
        optimizer.zero_grad()
        layer(hidden, target).backward()
        optimizer.step()
    assert layer.nll(hidden, target).item() < 0.35 * first


@every_case
def test_narrow_numbers(case: Case) -> None:
    layer, (hidden, target) = case.build().float(), inputs(4, 3)
    hidden = hidden.float().bfloat16().float()
    exact = loss_of(layer, hidden, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden.requires_grad_()
        for found in (loss_of(layer, hidden, target), loss_of(layer, hidden.bfloat16(), target)):
            assert found.dtype == torch.float32
            assert abs(found - exact) <= 0.03 * abs(exact)
        nll = layer.nll(hidden, target)
        assert nll.dtype == layer.log_prob(hidden).dtype == torch.float32
        gradient = torch.autograd.grad(nll, [hidden])[0]
    assert gradient.dtype == torch.float32
    assert layer.topk(hidden, 3)[0].dtype == torch.float32
    for dtype in (torch.bfloat16, torch.float16):
        narrow = copy.deepcopy(layer).to(dtype)
        found = loss_of(narrow, hidden.detach().to(dtype), target)
        found.backward()
        assert found.dtype == torch.float32
        assert abs(found - exact) <= 0.05 * abs(exact)
        assert all(p.grad is None or p.grad.dtype == dtype for p in narrow.parameters())
        assert all(p.grad is None or p.grad.to_dense().isfinite().all() for p in narrow.parameters())


@pytest.mark.parametrize("n_classes", [1, 2, 3])
@every_case
def test_few_classes(case: Case, n_classes: int) -> None:
    options = {word: value for word, value in case.options.items() if word not in {"cutoffs", "n_clusters"}}
    if case.options.get("unique"):
        options["num_samples"] = n_classes
    case = Case(case.name, options)
    layer = case.build(counts=n_classes)
    hidden, target = inputs(4, 3, n_classes=n_classes)
    assert loss_of(layer, hidden, target).isfinite()
    equal(layer.log_prob(hidden).logsumexp(-1), torch.zeros(4, 3, dtype=torch.float64))
    if n_classes == 1:
        assert layer.nll(hidden, target).abs() <= 1e-12
        assert layer.predict(hidden).count_nonzero() == 0


@every_case
def test_nan_is_not_hidden(case: Case) -> None:
    layer, (hidden, target) = case.build(), inputs(4, 3)
    hidden[2, 1, 0] = torch.nan
    assert loss_of(layer, hidden, target).isnan()
    assert layer.nll(hidden, target).isnan()


@every_case
def test_wrong_input_is_refused(case: Case) -> None:
    layer, (hidden, target) = case.build(), inputs(4, 3)
    for wrong in (V, V + 4, -1, -101):
        bad = target.clone()
        bad[2, 1] = wrong
        for call in (layer, layer.nll):
            with pytest.raises(
                ValueError, match=rf"target must be in \[0, 22\] or ignore_index=-100, got {wrong}"
            ):
                call(hidden, bad)
        with pytest.raises(ValueError, match=rf"target must be in \[0, 22\], got {wrong}"):
            layer.score(hidden, bad)
    with pytest.raises(ValueError, match="target must hold integer class ids, got torch.float64"):
        layer(hidden, target.double())
    with pytest.raises(ValueError, match="target must hold integer class ids, got torch.bool"):
        layer(hidden, target > 3)
    with pytest.raises(ValueError, match=r"target must have shape \(4, 3\), got \(3, 4\)"):
        layer(hidden, target.t())
    with pytest.raises(ValueError, match=r"hidden must have shape \(..., 6\), got \(4, 3, 5\)"):
        layer(hidden[..., 1:], target)
    with pytest.raises(
        ValueError, match="hidden must have the dtype of the weights, torch.float64, got torch.float32"
    ):
        layer(hidden.float(), target)
    with pytest.raises(ValueError, match="hidden must hold floating point numbers, got torch.int64"):
        layer(hidden.long(), target)
    with pytest.raises(ValueError, match="reduction must be one of .*got 'max'"):
        layer(hidden, target, reduction="max")
    for k in (0, V + 1):
        with pytest.raises(ValueError, match=rf"k must be in \[1, 23\], got {k}"):
            layer.topk(hidden, k)
    with pytest.raises(ValueError, match=r"top_k must be in \[0, 23\], got 24"):
        layer.sample(hidden, top_k=24)
    with pytest.raises(ValueError, match="temperature must be >= 0, got -1"):
        layer.sample(hidden, temperature=-1)
    with pytest.raises(ValueError, match="chunk must be >= 1, got 0"):
        layer.nll(hidden, target, chunk=0)
    with pytest.raises(ValueError, match=r"counts must have shape \(V,\)"):
        case.build(counts=COUNTS[:, None])
    with pytest.raises(ValueError, match="counts must be >= 0, got -2 for class 1"):
        case.build(counts=COUNTS.index_fill(0, torch.tensor([1]), -2))
    with pytest.raises(ValueError, match="counts must be integers, got torch.float32"):
        case.build(counts=COUNTS.float())
    with pytest.raises(ValueError, match="at least 1 class, got 0"):
        case.build(counts=0)
    with pytest.raises(ValueError, match="hidden_size must be >= 1, got 0"):
        case.build(hidden_size=0)
    with pytest.raises(ValueError, match=f"{case.name} has no option 'colour'"):
        build_output(case.name, H, COUNTS, options={"colour": 1})


# --- the flat family: one table, one state dict ---------------------------------------------------------------------


@flat_case
def test_the_first_model_is_the_unigram(case: Case) -> None:
    layer = build_output(case.name, H, COUNTS, options=case.options)
    unigram = COUNTS.clamp_min(1).double().log().log_softmax(0)
    equal(layer.log_prob(torch.zeros(H)).double(), unigram, 1e-6)
    assert (
        layer.log_z(torch.zeros(H)).abs() <= 3
    )  # log_z_init of one case, the missing log K of negative sampling


@flat_case
def test_layers_of_the_family_load_each_other(case: Case) -> None:
    layer, (hidden, target) = case.build(), inputs(4, 3)
    for other in FLAT_CASES:
        twin = other.build()
        with torch.no_grad():
            twin.weight.zero_()
        twin.load_softmax_state_dict(layer.softmax_state_dict())
        equal(twin.log_prob(hidden), layer.log_prob(hidden))
        equal(twin.nll(hidden, target), layer.nll(hidden, target))
        assert loss_of(twin, hidden, target).isfinite()
        twin.load_state_dict(layer.state_dict())  # strict: the names are the same
        assert torch.equal(twin.weight, layer.weight)


@flat_case
def test_loaded_counts_make_new_noise(case: Case) -> None:
    layer, (hidden, target) = case.build(), inputs(4, 3)
    other = case.build(counts=V)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(loss_of(other, hidden, target), loss_of(layer, hidden, target))
    assert torch.equal(other.log_prob(hidden), layer.log_prob(hidden))


@flat_case
def test_a_table_is_shared_with_an_embedding(case: Case) -> None:
    embedding = nn.Embedding(V, H, sparse=True, dtype=torch.float64)
    first = embedding.weight.detach().clone()
    layer = build_output(case.name, H, COUNTS, weight=embedding.weight, options=case.options)
    assert layer.weight is embedding.weight
    assert torch.equal(embedding.weight, first)
    layer.reset_parameters()
    assert torch.equal(embedding.weight, first)
    if case in SAMPLED_CASES:
        layer = build_output(
            case.name, H, COUNTS, weight=embedding.weight, sparse=True, options=case.options
        ).double()
        target = torch.tensor([3, 4, 3, 22])
        loss_of(layer, embedding(torch.tensor([1, 3, 9, 1])), target).backward()
        assert embedding.weight.grad.layout == torch.sparse_coo  # both uses are sparse, so is their sum
    with pytest.raises(ValueError, match=r"weight must have shape \(23, 6\), got \(6, 23\)"):
        build_output(case.name, H, COUNTS, weight=nn.Parameter(torch.zeros(H, V)), options=case.options)


@flat_case
def test_layers_work_without_a_bias(case: Case) -> None:
    layer, (hidden, target) = case.build(bias=False), inputs(4, 3)
    assert layer.bias is None
    expected = -layer.log_prob(hidden).gather(-1, target.unsqueeze(-1)).squeeze(-1)
    equal(layer.nll(hidden, target, reduction="none"), expected)
    assert all(g.isfinite().all() for g in gradients(layer, loss_of(layer, hidden, target)))


@sampled_case
def test_sparse_gradients_equal_dense_ones(case: Case) -> None:
    hidden, target = inputs(9, 5)
    target[:, 1] = 9  # repeats, and hits of the likeliest noise word
    found = []
    for sparse in (True, False):
        layer = case.build(sparse=sparse)
        loss_of(layer, hidden, target).backward()
        assert layer.sparse_parameters() == ([layer.weight, layer.bias] if sparse else [])
        for parameter in (layer.weight, layer.bias):
            assert parameter.grad.layout == (torch.sparse_coo if sparse else torch.strided)
        if sparse:
            rows = layer.weight.grad._indices()[0]
            assert (rows[1:] > rows[:-1]).all()  # each row once, in order
            assert len(rows) <= V
        found.append([layer.weight.grad.to_dense(), layer.bias.grad.to_dense()])
    for a, b in zip(*found, strict=True):
        equal(a, b)
    assert build_output(case.name, 2, 50_000, options=case.options).sparse_parameters()
    assert not build_output(case.name, 2, 49_999, options=case.options).sparse_parameters()


@sampled_case
def test_a_step_allocates_nothing_as_long_as_the_vocabulary(case: Case) -> None:
    n_classes = 60_000
    layer = build_output(case.name, H, torch.arange(n_classes) % 977, options=case.options)
    hidden, target = inputs(4, 8, n_classes=n_classes)
    with Allocations([*layer.parameters(), *layer.buffers()]) as seen:
        layer(hidden.float().requires_grad_(), target).backward()
    assert layer.weight.grad.layout == torch.sparse_coo
    assert seen.largest <= 8000, f"{seen.operation} made {seen.largest} numbers"


@sampled_case
def test_a_score_reads_the_rows_of_its_targets_alone(case: Case) -> None:
    layer, (hidden, target) = case.build(), inputs(4, 3)
    log_prob = layer.log_prob(hidden).gather(-1, target.unsqueeze(-1)).squeeze(-1)
    shift = layer.score(hidden, target) + getattr(layer, "_offset", float)() - log_prob
    equal(shift, layer.log_z(hidden).expand_as(shift))
    n_classes = 60_000
    layer = build_output(case.name, H, torch.arange(n_classes) % 977, options=case.options)
    hidden, target = inputs(4, 8, n_classes=n_classes)
    with Allocations([*layer.parameters(), *layer.buffers()]) as seen:
        layer.score(hidden.float(), target).sum().backward()
    assert layer.weight.grad.layout == torch.sparse_coo
    assert seen.largest <= 8000, f"{seen.operation} made {seen.largest} numbers"


def test_the_guard_sees_a_dense_gradient() -> None:
    layer = build_output("sampled", H, 60_000, sparse=False, options=K)
    hidden, target = inputs(4, 8, n_classes=60_000)
    with Allocations([*layer.parameters(), *layer.buffers()]) as seen:
        layer(hidden.float(), target).backward()
    assert seen.largest == 60_000 * H


def test_the_registry_refuses_what_a_layer_lacks() -> None:
    with pytest.raises(ValueError, match="output must be one of .*got 'soft'"):
        build_output("soft", H, COUNTS)
    with pytest.raises(ValueError, match="sparse must be"):
        build_output("full", H, COUNTS, sparse=True)
    with pytest.raises(ValueError, match="sparse must be"):
        build_output("sampled", H, COUNTS, sparse="yes")
    with pytest.raises(ValueError, match="importance has no option 'include_target'"):
        build_output("importance", H, COUNTS, options={"include_target": True})
