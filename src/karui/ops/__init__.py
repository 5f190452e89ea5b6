"""Mathematics on tensors: one folder an operation, `reference.py` first, kernels beside it."""
