"""Problems made by a generator of random numbers, to see how far back a recurrent layer can look.

B batch, T time steps.
"""

import numpy as np

COPY_SYMBOLS = 8
"""Symbols that the copy problem remembers; two more are the blank and the mark that asks for them."""

BLANK, ASK = COPY_SYMBOLS, COPY_SYMBOLS + 1
COPY_VOCABULARY = COPY_SYMBOLS + 2
COPY_LENGTH = 10
"""Symbols to remember."""


def adding_batch(random: np.random.Generator, batch_size: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs (B, T, 2) and sums (B,), both float32: the adding problem.

    Feature 0 is uniform in [0, 1), feature 1 marks one step of the first half and one of the second; the target is the
    sum of the two marked values. Always answering 1 has a mean squared error of 1/6. The problem is from Hochreiter and
    Schmidhuber, Neural Computation 1997, section 5.4, in the form of Arjovsky, Shah, Bengio 2016.
    """
    if steps < 2:
        raise ValueError(f"steps must be at least 2, got {steps}")
    inputs = np.zeros((batch_size, steps, 2), np.float32)
    inputs[..., 0] = random.random((batch_size, steps), np.float32)
    half = steps // 2
    rows = np.arange(batch_size)
    sums = np.zeros(batch_size, np.float32)
    for low, high in ((0, half), (half, steps)):
        marked = random.integers(low, high, batch_size)
        inputs[rows, marked, 1] = 1.0
        sums += inputs[rows, marked, 0]
    return inputs, sums


def copy_batch(random: np.random.Generator, batch_size: int, delay: int) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and targets (B, delay + 20), both int64 below 10: the copy memory problem.

    Input: 10 symbols of 8, `delay` blanks of which the last is the mark that asks, 10 blanks. Target: blank until the
    mark and through it, then the 10 symbols. Without memory the best mean cross-entropy is 10 ln 8 / (delay + 20).
    Arjovsky, Shah, Bengio 2016, section 4.1, after Hochreiter and Schmidhuber 1997.
    """
    if delay < 1:
        raise ValueError(f"delay must be at least 1, got {delay}")
    symbols = random.integers(0, COPY_SYMBOLS, (batch_size, COPY_LENGTH))
    inputs = np.full((batch_size, delay + 2 * COPY_LENGTH), BLANK, np.int64)
    targets = inputs.copy()
    inputs[:, :COPY_LENGTH] = symbols
    inputs[:, COPY_LENGTH + delay - 1] = ASK
    targets[:, -COPY_LENGTH:] = symbols
    return inputs, targets
