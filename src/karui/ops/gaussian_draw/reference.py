"""Draws from Gaussian posteriors in plain torch.

Kingma, Salimans, Welling, "Variational Dropout and the Local Reparameterization Trick", NIPS 2015, equations 2 and 6.
"""

import torch
from torch import Tensor

SMALL = 1e-8  # keeps the square root's slope finite


def weights(mean: Tensor, log_sigma2: Tensor, noise: Tensor) -> Tensor:
    """theta + sigma eps, any one shape."""
    return mean + torch.exp(0.5 * log_sigma2) * noise


def outputs(mean: Tensor, variance: Tensor, noise: Tensor) -> Tensor:
    """gamma + sqrt(delta) eps, any one shape."""
    return mean + torch.sqrt(variance + SMALL) * noise
