"""Recurrent modules with `torch.nn.LSTM`'s call."""

from karui.nn.gru import GRU
from karui.nn.lstm import LSTM
from karui.nn.sru import SRU
from karui.nn.statistical import StatisticalRecurrentUnit

__all__ = ["GRU", "LSTM", "SRU", "StatisticalRecurrentUnit"]
