r"""Estimates: numbers with what they were computed on, and intervals of how they would move with other samples.

Every metric tells how much each of its samples sways it. That is its *influence*, the derivative of the metric in the
weight of that sample: :math:`\text{metric}(w) \approx \text{value} + \sum_i w_i \text{influence}_i` for small changes
:math:`w` of the weights. What other samples would have given is then found by drawing the influences again with
replacement: a bootstrap (Efron, 1979) of the linearised metric, also known as the infinitesimal jackknife (Jaeckel,
1972). The metric itself is computed once, and never on samples drawn twice: copies would shrink covariances and
distances to neighbours.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

TAILS = torch.tensor([0.025, 0.975], dtype=torch.float64)  # of a 95 % interval
UNNAMED = "unnamed features"


@dataclass(frozen=True)
class Features:
    """Vectors, and what made them; every metric takes them wherever it takes a tensor (N, D).

    Attributes:
        vectors: (N, D).
        extractor: what made them, and what that was trained on.

    >>> features = Features(torch.zeros(100, 8), extractor="small ResNet trained on Shapes")
    >>> len(features[:30]), features[:30].extractor
    (30, 'small ResNet trained on Shapes')
    """

    vectors: Tensor
    extractor: str

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, index: slice | Tensor) -> "Features":
        return Features(self.vectors[index], self.extractor)


@dataclass(frozen=True, repr=False)
class Estimate:
    """A number with its interval, and what it was computed on. ``float(estimate)`` is its value.

    Attributes:
        value: the metric.
        low: lower end of the 95 % interval: where other samples of the same number would put the value. A share of 0
            or 1 has an interval without width, since no sample differs from the others.
        high: its upper end.
        n_real: how many real samples there were; 0 for metrics that look at none.
        n_fake: how many fake ones.
        extractor: what made the features.

    >>> Estimate(value=3.14159, low=2.9, high=3.3, n_real=5000, n_fake=1000, extractor="Inception v3")
    3.142 (2.9 to 3.3; 5,000 real, 1,000 fake; Inception v3)
    """

    value: float
    low: float
    high: float
    n_real: int
    n_fake: int
    extractor: str

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        counts = [f"{n:,} {name}" for name, n in (("real", self.n_real), ("fake", self.n_fake)) if n]
        interval = "no interval" if math.isnan(self.low) else f"{self.low:.4g} to {self.high:.4g}"
        return f"{self.value:.4g} ({interval}; {', '.join(counts)}; {self.extractor})"


def bootstrap(
    statistic: Callable[..., Tensor], *samples: Tensor, resamples: int = 1000, generator: torch.Generator | None = None
) -> Tensor:
    """Computes a statistic on samples drawn again with replacement (Efron, 1979).

    Rows are drawn, so what belongs together goes into one row: two models' scores of one image, for instance, which
    makes it a *paired* bootstrap.

    Args:
        statistic: a function of as many tensors as there are samples.
        samples: each (N, ...), and drawn independently of the others.
        resamples: how often.
        generator: on the CPU; None for the global one.

    Returns:
        (resamples, ...), the statistic of each.

    Raises:
        ValueError: fewer than one resample, or nothing to draw from.

    >>> heights = torch.tensor([1.6, 1.7, 1.8, 1.9])
    >>> means = bootstrap(torch.mean, heights, generator=torch.Generator().manual_seed(0))
    >>> means.quantile(torch.tensor([0.025, 0.975]))
    tensor([1.6500, 1.8500])
    """

    if resamples < 1 or not all(map(len, samples)):
        found = f"resamples is {resamples} and samples have the lengths {[len(x) for x in samples]}"
        raise ValueError(f"{found}; expected at least 1 of each.")

    def drawn_again(x: Tensor) -> Tensor:
        return x[torch.randint(len(x), (len(x),), generator=generator)]

    return torch.stack([statistic(*map(drawn_again, samples)) for _ in range(resamples)])


@dataclass(frozen=True)
class Basis:
    """The samples that estimates are computed on, and the way their intervals are drawn.

    Attributes:
        n_real: as in :class:`Estimate`.
        n_fake: as in :class:`Estimate`.
        extractor: as in :class:`Estimate`.
        resamples: of the bootstrap; 0 for no interval.
        generator: draws them.
    """

    n_real: int
    n_fake: int
    extractor: str
    resamples: int
    generator: torch.Generator | None

    def estimate(self, value: float, *influences: Tensor) -> Estimate:
        """Estimates a metric that each set of samples sways as its influences (N,) say."""
        low = high = math.nan
        if self.resamples:
            sways = [(x - x.mean()).cpu() for x in influences]
            moved = bootstrap(_sum_of_means, *sways, resamples=self.resamples, generator=self.generator)
            low, high = (value + moved.quantile(TAILS)).tolist()
        return Estimate(value, low, high, self.n_real, self.n_fake, self.extractor)

    def mean(self, each: Tensor) -> Estimate:
        """Estimates a metric that is a mean (N,): what it says of each sample is how that sample sways it."""
        each = each.double()
        return self.estimate(each.mean().item(), each)


def _sum_of_means(*samples: Tensor) -> Tensor:
    return sum(x.mean() for x in samples)


def together(**samples: Tensor | Features) -> tuple[list[Tensor], str]:
    """Returns the vectors of sets of samples that are to be compared, and the one extractor that made them.

    Raises:
        ValueError: a set is not (N, D) floating point with N at least 2, holds NaN or infinity, or differs from the
            first in D, device or extractor.
    """
    tensors = [vectors(name, x) for name, x in samples.items()]
    first, *others = samples
    extractors = [x.extractor if isinstance(x, Features) else UNNAMED for x in samples.values()]
    for name, tensor, extractor in zip(others, tensors[1:], extractors[1:], strict=True):
        for what, a, b in (
            ("length", tensors[0].shape[1], tensor.shape[1]),
            ("device", tensors[0].device, tensor.device),
            ("extractor", extractors[0], extractor),
        ):
            if a != b:
                raise ValueError(f"{name}: found {what} {b} of the vectors; expected {a}, that of {first}.")
    return tensors, extractors[0]


def vectors(name: str, samples: Tensor | Features) -> Tensor:
    """Returns the vectors (N, D) of a set of samples.

    Raises:
        ValueError: as in :func:`together`.
    """
    x = samples.vectors if isinstance(samples, Features) else samples
    if x.ndim != 2 or x.shape[1] == 0 or not x.is_floating_point():
        raise ValueError(f"{name}: found {tuple(x.shape)} {x.dtype}; expected (N, D) floating point.")
    if len(x) < 2:
        raise ValueError(f"{name}: found {len(x)} sample{'s' * (len(x) != 1)}; expected at least 2.")
    low, high = x.aminmax()
    if not (low > -torch.inf and high < torch.inf):  # also true for NaN
        raise ValueError(f"{name}: found NaN or infinity in sample {(~x.isfinite()).any(dim=1).nonzero()[0].item()}.")
    return x.detach().cpu() if x.device.type == "mps" else x.detach()  # metrics need float64, which mps lacks
