"""What every network of a GAN asks of its arguments."""

import math

from torch import Tensor

from mmgan_lib.encoders.base import check_shape


def doublings(size: int) -> int:
    """How often a side of 4 pixels doubles to reach ``size``."""
    steps = int(math.log2(size / 4)) if size >= 8 else 0
    if size != 4 * 2**steps or steps == 0:
        raise ValueError(f"size is {size}; expected 8, 16, 32, 64 or another 4 × a power of two.")
    return steps


def check_counts(**counts: int) -> None:
    """Refuse a count below 1."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count}; expected at least 1.")


def check_floating(name: str, x: Tensor | None, *shape: int | str) -> None:
    """Refuse an ``x`` that is missing, of another shape, or of whole numbers."""
    check_shape(name, x, *shape)
    if not x.is_floating_point():
        raise ValueError(f"{name}: found numbers of type {x.dtype}; expected floating point, as by .float().")


def check_condition(condition: Tensor | None, batch: int, condition_dim: int) -> None:
    """Refuse a condition that is missing, not wanted, or of another shape than (batch, condition_dim)."""
    if condition_dim:
        check_floating("condition", condition, batch, condition_dim)
    elif condition is not None:
        raise ValueError("condition was given, but the network was built with condition_dim=0; expected none.")
