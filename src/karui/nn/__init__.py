"""Recurrent modules with `torch.nn.LSTM`'s call."""

from karui.nn.gru import GRU
from karui.nn.lstm import LSTM
from karui.nn.min_gru import MinGRU
from karui.nn.qrnn import QRNN
from karui.nn.sru import SRU
from karui.nn.srupp import SRUpp
from karui.nn.statistical import StatisticalRecurrentUnit

__all__ = ["GRU", "LSTM", "QRNN", "SRU", "MinGRU", "SRUpp", "StatisticalRecurrentUnit"]
