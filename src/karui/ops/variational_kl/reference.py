"""KL divergence between a Gaussian weight posterior and the log-uniform prior, in plain torch.

Molchanov, Ashukha, Vetrov, "Variational Dropout Sparsifies Deep Neural Networks", ICML 2017, equation 14; within 0.0091
of a Monte Carlo estimate on log alpha in [-8, 8]. log alpha is clipped to that range: no gradient outside.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

K1, K2, K3 = 0.63576, 1.87320, 1.48695
LIMIT = 8.0
SMALL = 1e-8  # keeps log(weight**2) finite at zero


def log_alpha(weight: Tensor, log_sigma2: Tensor) -> Tensor:
    """log(sigma^2 / mu^2), any shape; large means noise drowns the weight: prune."""
    return log_sigma2 - torch.log(weight * weight + SMALL)


def variational_kl(weight: Tensor, log_sigma2: Tensor) -> Tensor:
    """Sum over all weights, in nats; never negative."""
    a = log_alpha(weight, log_sigma2).clamp(-LIMIT, LIMIT)
    return (K1 * torch.sigmoid(-(K2 + K3 * a)) + 0.5 * F.softplus(-a)).sum()
