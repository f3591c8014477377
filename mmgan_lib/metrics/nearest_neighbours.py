"""Nearest-neighbour metrics: fidelity, diversity, and memorisation of the training set.

Around each sample of a set lies a ball that reaches to its k-th nearest neighbour in that set. The balls together stand
for the region the set comes from. Intervals of what is read from balls are given those balls: only the samples that are
looked up in them are drawn again, since the bootstrap fails for nearest neighbours (Abadie & Imbens, 2008). They are
narrower than what two new sets would show, by up to a quarter in our tests, and for the coverage by 40%.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mmgan_lib.metrics.distance import BLOCK
from mmgan_lib.metrics.estimate import Basis, Estimate, Features, together

SAME = 1e-10  # squared distances that differ by less than this share of them are equal
CLOSE = 1e-3  # of a squared norm: squared distances below it are not computed from norms
CACHED = 2**16  # numbers of float64 that a core's own memory holds: 512 KiB
SIDE = 1024  # samples whose distances to as many others are held at once: 8 MiB


class PrecisionRecall(NamedTuple):
    """The result of :func:`precision_recall`."""

    precision: Estimate
    """Share of the fakes that look real."""
    recall: Estimate
    """Share of the real samples that the fakes reach."""


class DensityCoverage(NamedTuple):
    """The result of :func:`density_coverage`."""

    density: Estimate
    """Mean number of balls that a fake lies in, over k; about 1 where both are alike, and it may be more."""
    coverage: Estimate
    """Share of the real samples that have a fake nearby."""


def precision_recall(
    *,
    real: Tensor | Features,
    fake: Tensor | Features,
    neighbours: int = 3,
    resamples: int = 1000,
    generator: torch.Generator | None = None,
) -> PrecisionRecall:
    r"""Computes the share of fakes within the real samples' balls, and the reverse (Kynkäänniemi et al., 2019).

    .. math:: \text{precision} = \frac1M \sum_j \max_i\, [\lVert y_j - x_i \rVert \le r_i], \qquad
        \text{recall} = \frac1N \sum_i \max_j\, [\lVert x_i - y_j \rVert \le r_j]

    where :math:`r` is the distance of a sample to the k-th nearest neighbour in its own set. An outlier has a large
    ball, and may vouch for many, as the fake at 9 does below: see :func:`density_coverage`.

    Args:
        real: x, (N, D).
        fake: y, (M, D), from the same extractor.
        neighbours: k.
        resamples: of the bootstrap; 0 for no interval.
        generator: draws the resamples.

    Raises:
        ValueError: as in :func:`~mmgan_lib.metrics.estimate.together`, or too few samples to have k neighbours.

    >>> real = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    >>> found = precision_recall(real=real, fake=torch.tensor([[0.5], [0.6], [0.7], [9.0]]), neighbours=1)
    >>> found.precision.value, found.recall.value
    (0.75, 0.75)
    """
    (real, fake), extractor = together(real=real, fake=fake)
    basis = Basis(len(real), len(fake), extractor, resamples, generator)
    real_radii, fake_radii = (
        (1 + SAME) * _squared_radii(x, neighbours, name) for name, x in (("real", real), ("fake", fake))
    )
    looks_real, reached = [], torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for distance, radii in zip(_blocks(fake, real), fake_radii.split(_rows(real)), strict=True):
        looks_real.append((distance <= real_radii).any(dim=1))
        reached |= (distance <= radii[:, None]).any(dim=0)
    return PrecisionRecall(basis.mean(torch.cat(looks_real)), basis.mean(reached))


def density_coverage(
    *,
    real: Tensor | Features,
    fake: Tensor | Features,
    neighbours: int = 5,
    resamples: int = 1000,
    generator: torch.Generator | None = None,
) -> DensityCoverage:
    r"""Computes how many real samples' balls hold a fake, and the share of balls that hold any (Naeem et al., 2020).

    .. math:: \text{density} = \frac{1}{kM} \sum_{i,j} [\lVert y_j - x_i \rVert < r_i], \qquad
        \text{coverage} = \frac1N \sum_i \max_j\, [\lVert y_j - x_i \rVert < r_i]

    with the balls of :func:`precision_recall`, of the real samples only. Where both sets come from one distribution the
    density is 1 on average and the coverage, for M = N large, :math:`1 - 2^{-k}`. The ball of a real sample that has k
    copies has no radius, and nothing lies in it.

    Args:
        real: x, (N, D).
        fake: y, (M, D), from the same extractor.
        neighbours: k.
        resamples: of the bootstrap; 0 for no interval.
        generator: draws the resamples.

    Raises:
        ValueError: as in :func:`precision_recall`.

    >>> real = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    >>> found = density_coverage(real=real, fake=torch.tensor([[0.5], [0.6], [0.7], [9.0]]), neighbours=1)
    >>> found.density.value, found.coverage.value
    (1.5, 0.5)
    """
    (real, fake), extractor = together(real=real, fake=fake)
    basis = Basis(len(real), len(fake), extractor, resamples, generator)
    radii = (1 - SAME) * _squared_radii(real, neighbours, "real")
    crowd, covered = [], torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for distance in _blocks(fake, real):
        inside = distance < radii
        crowd.append(inside.sum(dim=1).double() / neighbours)
        covered |= inside.any(dim=0)
    return DensityCoverage(basis.mean(torch.cat(crowd)), basis.mean(covered))


def memorisation(
    *,
    train: Tensor | Features,
    real: Tensor | Features,
    fake: Tensor | Features,
    resamples: int = 1000,
    generator: torch.Generator | None = None,
) -> Estimate:
    r"""Computes how often a fake is nearer to the training set than a held-out sample (Meehan et al., 2020).

    .. math:: P\bigl(d(y) < d(x)\bigr) + \tfrac12 P\bigl(d(y) = d(x)\bigr), \qquad d(z) = \min_t \lVert z - t \rVert

    over all pairs of a fake y and a held-out x. About 0.5 for fakes as new as held-out samples, 1 for copies, and below
    0.5 where fakes lie further off than real samples do: no sign of memorising, but not of quality either. It is the
    statistic of Mann and Whitney's test, here over the whole space, where the paper also looks at parts of it: a
    generator that copies some and misses the rest may balance out.

    Args:
        train: (T, D), what the generator was trained on.
        real: x, (N, D), real samples that it was not trained on.
        fake: y, (M, D).
        resamples: of the bootstrap; 0 for no interval. The training set is held fixed.
        generator: draws the resamples.

    Raises:
        ValueError: as in :func:`~mmgan_lib.metrics.estimate.together`.

    >>> train = torch.tensor([[0.0], [1.0], [2.0]])
    >>> memorisation(train=train, real=train + 0.2, fake=train[:2]).value
    1.0
    """
    (train, real, fake), extractor = together(train=train, real=real, fake=fake)
    basis = Basis(len(real), len(fake), extractor, resamples, generator)
    of_real, of_fake = (_nearest(x, train) for x in (real, fake))
    nearer = (_share_above(of_fake, of_real), 1 - _share_above(of_real, of_fake))
    return basis.estimate(nearer[0].mean().item(), *nearer)


def pairwise_diversity(
    *, fake: Tensor | Features, resamples: int = 1000, generator: torch.Generator | None = None
) -> Estimate:
    r"""Computes the mean distance between two different fakes: 0 where all are the same.

    .. math:: \frac{1}{M(M-1)} \sum_{i \ne j} \lVert y_i - y_j \rVert

    It has no scale of its own: compare it with that of real samples, given as ``fake``. Fakes that all look wrong may
    be as diverse as any.

    Args:
        fake: y, (M, D).
        resamples: of the bootstrap; 0 for no interval.
        generator: draws the resamples.

    Raises:
        ValueError: as in :func:`~mmgan_lib.metrics.estimate.together`.

    >>> pairwise_diversity(fake=torch.tensor([[0.0, 0.0], [3.0, 4.0]])).value
    5.0
    """
    (fake,), extractor = together(fake=fake)
    basis = Basis(0, len(fake), extractor, resamples, generator)
    to_all = torch.cat([distance.sqrt().sum(dim=1) for distance in _blocks(fake, fake)])
    to_others = to_all / (len(fake) - 1)
    return basis.estimate(to_others.mean().item(), 2 * to_others)


class _Points(NamedTuple):
    """Samples as they are (N, D), around a middle in double precision (N, D), and their squared norms there (N,)."""

    raw: Tensor
    centred: Tensor
    norms: Tensor


def _around(middle: Tensor, x: Tensor) -> _Points:
    centred = x.double() - middle
    return _Points(x, centred, _squared_norms(centred))


def _middle(x: Tensor) -> Tensor:
    """Computes the median of about a hundred samples, (D,): norms around it are small, however far off a few lie."""
    few = x[:: 1 + len(x) // 100].contiguous()  # the median of an expanded tensor is wrong in PyTorch 2.11
    return few.median(dim=0).values.double()


def _blocks(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Yields squared distances (N, M), some rows at a time."""
    middle = _middle(y)
    centres = _around(middle, y)
    return (_squared_distances(_around(middle, part), centres) for part in x.split(_rows(y)))


def _rows(centres: Tensor) -> int:
    """Returns the number of points whose matrix of distances to these centres is small."""
    return max(1, BLOCK // len(centres))


def _squared_distances(x: _Points, y: _Points) -> Tensor:
    r"""Computes :math:`\lVert x_i \rVert^2 - 2 x_i^\top y_j + \lVert y_j \rVert^2`, (N, M), to :data:`SAME`.

    Where two samples are so close that the subtraction takes the leading digits, their difference is squared instead.
    """
    distance = torch.addmm(y.norms, x.centred, y.centred.T, alpha=-2).add_(x.norms[:, None])
    close = (distance < CLOSE * y.norms).nonzero()
    for pairs in close.split(1 + CACHED // x.raw.shape[1]):
        i, j = pairs.unbind(1)
        distance[i, j] = _squared_norms(x.raw.index_select(0, i).double().sub_(y.raw.index_select(0, j)))
    return distance


def _squared_norms(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=1).square()


def _squared_radii(x: Tensor, neighbours: int, name: str) -> Tensor:
    """Computes the squared distance of each sample to its k-th nearest neighbour, (N,), using each pair twice."""
    if not 1 <= neighbours < len(x):
        raise ValueError(f"neighbours is {neighbours}; expected 1 to {len(x) - 1}, as {name} has {len(x)} samples.")
    middle = _middle(x)
    nearest = torch.full((len(x), neighbours + 1), torch.inf, dtype=torch.float64, device=x.device)
    parts = [(_around(middle, part), found) for part, found in zip(x.split(SIDE), nearest.split(SIDE), strict=True)]
    for i, (part, found) in enumerate(parts):
        for other, found_there in parts[: i + 1]:
            distance = _squared_distances(part, other)
            _keep_smallest(found, distance)
            if found_there is not found:
                _keep_smallest(found_there, distance.T.contiguous())
    return nearest[:, -1]


def _keep_smallest(found: Tensor, more: Tensor) -> None:
    """Puts the smallest numbers of each row of both, in rising order, in the place of those found (N, k)."""
    k = found.shape[1]
    more = more.topk(min(k, more.shape[1]), largest=False).values
    found.copy_(torch.cat([found, more], dim=1).topk(k, largest=False).values)


def _nearest(x: Tensor, centres: Tensor) -> Tensor:
    """Computes the squared distance of each sample to the nearest centre, (N,)."""
    nearest = torch.cat([distance.argmin(dim=1) for distance in _blocks(x, centres)])
    return _squared_norms(x.double() - centres[nearest].double())


def _share_above(of: Tensor, others: Tensor) -> Tensor:
    """Computes for each number the share of the others that are larger, plus half the share that are equal."""
    others = others.sort().values
    up_to, below = (torch.searchsorted(others, of, right=right).double() for right in (True, False))
    return 1 - (up_to + below) / (2 * len(others))
