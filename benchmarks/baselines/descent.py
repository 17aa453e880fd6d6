"""Gradient descent that ends where validation rows say so: what the routers that are neural networks share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.outcomes import Floats


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's randomness from ``seed`` within, and as it was afterwards."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def tensor(values: Floats) -> Any:
    """As torch wants it: single precision."""
    import torch

    return torch.as_tensor(np.ascontiguousarray(values), dtype=torch.float32)


def descend(
    network: Any,
    loss: Callable[[], Any],
    validation: Callable[[], float],
    rate: float,
    decay: float,
    steps: int = 1500,
    every: int = 25,
    patience: int = 6,
) -> float:
    """Adam with weight decay on ``loss``, which draws its own batch, until ``validation``, asked after ``every`` steps,
    has not fallen for ``patience`` times. The network is left where it was lowest; that value comes back.
    """
    import torch

    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay, fused=True)
    lowest, kept, since = np.inf, None, 0
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        if step % every:
            continue
        with torch.no_grad():
            found = validation()
        if found < lowest:
            lowest, since = found, 0
            kept = {name: value.clone() for name, value in network.state_dict().items()}
        elif (since := since + 1) == patience:
            break
    if kept is not None:
        network.load_state_dict(kept)
    return float(lowest)
