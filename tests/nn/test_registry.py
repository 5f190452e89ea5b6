"""Every name builds a layer that runs; unknown names and options are refused by name."""

import pytest
import torch

from karui.nn.registry import RECURRENT, build_recurrent, recurrent_class


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_every_name_builds_a_layer_that_runs(name: str, bidirectional: bool) -> None:
    layer = build_recurrent(name, 3, 4, 2, bidirectional=bidirectional, dropout=0.25)
    assert isinstance(layer, recurrent_class(name))
    output = layer(torch.randn(5, 2, 3))[0]
    assert output.shape == (5, 2, 8 if bidirectional else 4)


@pytest.mark.parametrize("name", RECURRENT)
def test_one_layer_has_no_dropout_between_layers(name: str, recwarn: pytest.WarningsRecorder) -> None:
    layer = build_recurrent(name, 3, 4, dropout=0.5).train()
    x = torch.randn(5, 2, 3)
    assert torch.equal(layer(x)[0], layer(x)[0])
    assert not recwarn.list


def test_options_reach_the_layer() -> None:
    assert build_recurrent("sru", 3, 4, options={"activation": "tanh"}).activation == "tanh"


def test_unknown_names_and_options_are_refused() -> None:
    with pytest.raises(ValueError, match=r"recurrent must be one of \('sru', 'statistical-ru', .* got 'rnn'"):
        build_recurrent("rnn", 3, 4)
    with pytest.raises(ValueError, match="sru has no option 'window'; it has activation, "):
        build_recurrent("sru", 3, 4, options={"window": 2})
    with pytest.raises(ValueError, match="gru has no option 'hidden_size'"):
        build_recurrent("gru", 3, 4, options={"hidden_size": 2})
