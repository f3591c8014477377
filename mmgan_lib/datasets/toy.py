"""Mixtures of Gaussians in the plane, on which a GAN's missing modes can be counted."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from mmgan_lib.checks import check_counts, check_not_negative


class GaussianMixture(NamedTuple):
    """Points of an equal mixture of round Gaussians, with what made them."""

    points: Tensor
    """(N, 2) float32."""
    centres: Tensor
    """(modes, 2) float32, the mean of each Gaussian."""
    std: float
    """Standard deviation of each Gaussian along each axis."""


def gaussian_ring(
    n: int, *, modes: int = 8, radius: float = 1.0, std: float = 0.01, generator: torch.Generator | None = None
) -> GaussianMixture:
    """Draws `n` points around `modes` centres on a circle: centre k is radius·(cos 2πk/modes, sin 2πk/modes).

    The defaults are the 2D-ring of VEEGAN (Srivastava et al. 2017, arXiv:1705.07761) with the numbers given in PacGAN
    (Lin et al. 2018, arXiv:1712.04086): 8 modes on the unit circle, standard deviation 0.01. Raises ValueError unless
    `n` and `modes` are positive and `std` is not negative.

    >>> ring = gaussian_ring(1000, generator=torch.Generator().manual_seed(0))
    >>> ring.points.shape, ring.centres[2].round(decimals=3)
    (torch.Size([1000, 2]), tensor([0., 1.]))
    """
    check_counts(n=n, modes=modes)
    angle = torch.arange(modes, dtype=torch.float64) * (2 * math.pi / modes)
    centres = radius * torch.stack([angle.cos(), angle.sin()], dim=1)
    return _sample(n, centres.float(), std, generator)


def gaussian_grid(
    n: int, *, side: int = 5, spacing: float = 2.0, std: float = 0.05, generator: torch.Generator | None = None
) -> GaussianMixture:
    """Draws `n` points around side² centres on a square grid about the origin, `spacing` apart.

    The defaults are the 2D-grid of VEEGAN (arXiv:1705.07761) with the numbers given in PacGAN (arXiv:1712.04086):
    25 modes at (2i - 4, 2j - 4) for i, j in 0…4, standard deviation 0.05. Raises ValueError unless `n` and `side` are
    positive and `std` is not negative.

    >>> grid = gaussian_grid(1000, generator=torch.Generator().manual_seed(0))
    >>> len(grid.centres), grid.centres.min().item(), grid.centres.max().item()
    (25, -4.0, 4.0)
    """
    check_counts(n=n, side=side)
    line = spacing * (torch.arange(side, dtype=torch.float32) - (side - 1) / 2)
    return _sample(n, torch.cartesian_prod(line, line), std, generator)


def _sample(n: int, centres: Tensor, std: float, generator: torch.Generator | None) -> GaussianMixture:
    """Draws points: the centre of a mode drawn uniformly, plus std·ε with ε ~ N(0, I)."""
    check_not_negative(std=std)
    mode = torch.randint(len(centres), (n,), generator=generator)
    return GaussianMixture(centres[mode] + std * torch.randn(n, 2, generator=generator), centres, std)
