import pytest
import torch
from torch import nn

from karui.train.averaging import WeightAverage


def test_average_is_the_weighted_mean_of_all_past_weights():
    model, decay = nn.Linear(2, 3).double(), 0.9
    average = WeightAverage(model, decay)
    history = []
    generator = torch.Generator().manual_seed(1)
    for _ in range(7):
        with torch.no_grad():
            model.weight.copy_(torch.randn(3, 2, generator=generator, dtype=torch.float64))
        average.update()
        history.append(model.weight.detach().clone())
    shares = [decay ** (len(history) - 1 - t) for t in range(len(history))]
    wanted = sum(share * weight for share, weight in zip(shares, history, strict=True)) / sum(shares)
    assert torch.allclose(average.averages()["weight"], wanted, rtol=1e-12, atol=0)


def test_first_average_is_the_weights_themselves():
    model = nn.Linear(2, 3)
    average = WeightAverage(model, 0.999)
    average.update()
    assert torch.allclose(average.averages()["weight"], model.weight, rtol=1e-4)


def test_weights_are_back_bit_for_bit_after_an_error():
    model = nn.Linear(2, 3)
    average = WeightAverage(model, 0.5)
    average.update()
    with torch.no_grad():
        model.weight.mul_(3.0)
    average.update()
    own = model.weight.detach().clone()
    with pytest.raises(RuntimeError, match="inside"), average.applied():
        assert not torch.equal(model.weight, own)
        assert torch.equal(model.weight, average.averages()["weight"])
        raise RuntimeError("inside")
    assert torch.equal(model.weight, own)
