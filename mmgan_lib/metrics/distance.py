"""Distances between the distributions of real and fake feature vectors: Fréchet and kernel."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mmgan_lib.metrics.estimate import Basis, Estimate, Features, together

BLOCK = 2**22  # numbers of float64 held at once where every sample meets every other: 32 MiB
ROWS = 8192  # samples in double precision at once


def frechet_distance(
    *, real: Tensor | Features, fake: Tensor | Features, resamples: int = 1000, generator: torch.Generator | None = None
) -> Estimate:
    r"""Computes the Fréchet distance (FID) of Gaussians with the samples' means and covariances (Heusel et al., 2017).

    .. math:: \lVert \mu_r - \mu_f \rVert^2
        + \operatorname{tr}\bigl(\Sigma_r + \Sigma_f - 2 (\Sigma_r \Sigma_f)^{1/2}\bigr)

    With a factor :math:`\Sigma_r = R^\top R`, the eigenvalues of :math:`\Sigma_r \Sigma_f` are those of the symmetric
    :math:`R \Sigma_f R^\top`, and none is negative: the result is real also where there are fewer samples than
    dimensions, N ≤ D, and the covariances singular. Identical features are at distance 0 exactly.

    Finite samples are further apart than what they come from: the distance is biased upwards by about a constant / N,
    and the constant depends on the model (Chong & Forsyth, 2020). The interval tells where other samples of this number
    would put the distance, bias and all, and not where infinitely many would: compare at equal N only. It is drawn from
    the linearised distance, since a bootstrap of the distance itself is biased once more, by samples drawn twice. Where
    fake and real differ by little more than chance it is up to twice too wide: there the derivative is chance as well.

    Its short name is ``fid``, though published numbers of that name are of Inception's features alone.

    Args:
        real: (N, D).
        fake: (M, D), from the same extractor.
        resamples: of the bootstrap; 0 for no interval, which in thousands of dimensions is most of the time.
        generator: draws the resamples.

    Raises:
        ValueError: as in :func:`~mmgan_lib.metrics.estimate.together`.

    >>> real = torch.tensor([[-1.0], [0.0], [1.0]])
    >>> frechet_distance(real=real, fake=3 * real + 2).value  # 2² from the means, (3 - 1)² from the deviations
    8.0
    """
    (real, fake), extractor = together(real=real, fake=fake)
    basis = Basis(len(real), len(fake), extractor, resamples, generator)
    few, many = sorted((real, fake), key=len)
    shift = few.mean(dim=0, dtype=torch.float64) - many.mean(dim=0, dtype=torch.float64)
    root, covariance = _root(few), _covariance(many)
    product = root @ covariance
    common = torch.linalg.eigvalsh(product @ root.T).clamp(min=0).sqrt().sum()
    distance = shift.square().sum() + root.square().sum() + covariance.trace() - 2 * common
    value = 0.0 if torch.equal(real, fake) else max(0.0, distance.item())
    influences = []
    if resamples:
        towards_few, towards_many = _roots_of_maps(root, product)
        influences = [_influence(few, towards_many, shift), _influence(many, towards_few, -shift)]
    return basis.estimate(value, *influences)


def _centred(x: Tensor) -> Iterator[Tensor]:
    """Yields the samples without their mean, in double precision, some at a time."""
    mean = x.mean(dim=0, dtype=torch.float64)
    return (part - mean for part in x.split(ROWS))


def _covariance(x: Tensor) -> Tensor:
    """Computes Σ (D, D) of samples (N, D), unbiased."""
    return sum(part.T @ part for part in _centred(x)) / (len(x) - 1)


def _root(x: Tensor) -> Tensor:
    """Computes R with RᵀR = Σ: by Cholesky, or where Σ is singular as the triangle of a QR decomposition."""
    if len(x) > x.shape[1]:
        root, failed = torch.linalg.cholesky_ex(_covariance(x), upper=True)
        if not failed:
            return root
    root = x.new_empty(0, x.shape[1], dtype=torch.float64)
    for part in _centred(x):
        root = torch.linalg.qr(torch.cat([root, part]), mode="r").R
    return root / (len(x) - 1) ** 0.5


def _roots_of_maps(root: Tensor, product: Tensor) -> tuple[Tensor, Tensor]:
    r"""Computes factors :math:`W` of the maps :math:`T = W^\top W` that carry each Gaussian to the other one.

    They are the derivatives of the common trace: :math:`2\, d \operatorname{tr}(\Sigma_a \Sigma_b)^{1/2}
    = \operatorname{tr}(T_{ab}\, d\Sigma_a) + \operatorname{tr}(T_{ba}\, d\Sigma_b)`. With :math:`\Sigma_a = R^\top R`
    and :math:`R \Sigma_b R^\top = U S^2 U^\top`, :math:`W_{ba} = S^{-1/2} U^\top R` and
    :math:`W_{ab} = S^{-3/2} U^\top R \Sigma_b`. Directions in which there is nothing to carry are left out.
    """
    eigenvalues, directions = torch.linalg.eigh(product @ root.T)
    there = eigenvalues > 1e-12 * eigenvalues[-1]
    scale, directions = eigenvalues[there].sqrt(), directions[:, there]
    return (directions / scale.sqrt()).T @ root, (directions / scale.pow(1.5)).T @ product


def _influence(x: Tensor, map_root: Tensor, shift: Tensor) -> Tensor:
    r"""Computes each sample's influence: :math:`\lVert x \rVert^2 - x^\top T x + 2 x^\top \text{shift}`."""
    return torch.cat(
        [part.square().sum(dim=1) - (part @ map_root.T).square().sum(dim=1) + 2 * part @ shift for part in _centred(x)]
    )


@dataclass(frozen=True, repr=False)
class KernelDistance(Estimate):
    """The result of :func:`kernel_distance`.

    Attributes:
        deviation: standard deviation of the distance over the subsets, which is what is published next to the mean.
    """

    deviation: float

    def __repr__(self) -> str:
        return f"{super().__repr__()}, deviation {self.deviation:.2g} over subsets"


def kernel_distance(
    *,
    real: Tensor | Features,
    fake: Tensor | Features,
    subsets: int = 100,
    subset_size: int = 1000,
    resamples: int = 1000,
    generator: torch.Generator | None = None,
) -> KernelDistance:
    r"""Computes the squared maximum mean discrepancy of a cubic kernel over subsets (KID, Bińkowski et al., 2018).

    .. math:: \frac{1}{m(m-1)} \sum_{i \ne j} \bigl(k(x_i, x_j) + k(y_i, y_j)\bigr)
        - \frac{2}{m^2} \sum_{i,j} k(x_i, y_j), \qquad k(x, y) = \Bigl(\frac{x^\top y}{D} + 1\Bigr)^3

    for m real samples x and m fakes y. It is unbiased at any m, and so below 0 about half of the time where both come
    from one distribution. For identical features it is exactly :math:`-2/m` times what :math:`k(x_i, x_i)` exceeds
    :math:`k(x_i, x_j)` by on average. The deviation over subsets is not the error of the mean, for they overlap; the
    interval is, and like that of :func:`frechet_distance` it errs on the wide side. Time grows with N². Its short name
    is ``kid``.

    Args:
        real: (N, D).
        fake: (M, D), from the same extractor.
        subsets: how many.
        subset_size: m, samples of either kind in a subset, drawn without replacement.
        resamples: of the bootstrap; 0 for no interval.
        generator: draws the subsets and the resamples.

    Raises:
        ValueError: as in :func:`~mmgan_lib.metrics.estimate.together`, or a subset of more samples than there are.

    >>> real = torch.tensor([[-1.0], [1.0]])
    >>> round(kernel_distance(real=real, fake=real, subset_size=2).value, 6)  # k is 8 on the diagonal, 0 off it
    -8.0
    """
    (real, fake), extractor = together(real=real, fake=fake)
    basis = Basis(len(real), len(fake), extractor, resamples, generator)
    if not (subsets >= 1 and 2 <= subset_size <= min(len(real), len(fake))):
        found = f"found {subsets} subsets of {subset_size} samples out of {len(real)} real and {len(fake)} fake"
        raise ValueError(f"subsets and subset_size: {found}; expected at least 1, of 2 to {min(len(real), len(fake))}.")
    drawn = [[torch.randperm(len(x), generator=generator)[:subset_size] for x in (real, fake)] for _ in range(subsets)]
    in_real, in_fake = (
        _membership(x, indices) for x, indices in zip((real, fake), zip(*drawn, strict=True), strict=True)
    )
    real_real, of_real, _ = _kernel_sums(real, real, in_real, in_real)
    fake_fake, of_fake, _ = _kernel_sums(fake, fake, in_fake, in_fake)
    real_fake, real_by_fake, fake_by_real = _kernel_sums(real, fake, in_real, in_fake)
    (own_real, own_fake), n, m = (_kernel(x) for x in (real, fake)), len(real), len(fake)
    same = real_real - own_real @ in_real + fake_fake - own_fake @ in_fake
    distances = same / (subset_size * (subset_size - 1)) - 2 * real_fake / subset_size**2
    influences = [
        2 * (of_real - own_real) / (n - 1) - 2 * real_by_fake / m,
        2 * (of_fake - own_fake) / (m - 1) - 2 * fake_by_real / n,
    ]
    score = basis.estimate(distances.mean().item(), *influences)
    return KernelDistance(**vars(score), deviation=distances.std(correction=0).item())


fid, kid = frechet_distance, kernel_distance


def _membership(x: Tensor, indices: tuple[Tensor, ...]) -> Tensor:
    """Marks the samples of each subset: (N, subsets) float64, 1 where a sample is in a subset."""
    members = torch.zeros(len(x), len(indices), dtype=torch.float64)
    return members.scatter_(0, torch.stack(indices, dim=1), 1).to(x.device)


def _kernel(x: Tensor) -> Tensor:
    """Computes k(x, x) of each sample, (N,)."""
    return torch.cat([(part.double().square().sum(dim=1) / x.shape[1] + 1).pow(3) for part in x.split(ROWS)])


def _kernel_sums(x: Tensor, y: Tensor, in_x: Tensor, in_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of k(x, y): over the pairs of each subset (subsets,), over y for each x (N,), over x for each y (M,).

    With K the kernel's matrix and Z the memberships, the first is the diagonal of Z_xᵀ K Z_y.
    """
    y, one = y.double(), y.new_ones(1, dtype=torch.float64)
    rows = max(1, BLOCK // len(y))
    pairs, by_x, by_y = torch.zeros_like(in_x[0]), [], torch.zeros_like(in_y[:, 0])
    for part, members in zip(x.split(rows), in_x.split(rows), strict=True):
        kernel = torch.addmm(one, part.double(), y.T, alpha=1 / y.shape[1]).pow_(3)
        pairs += (members * (kernel @ in_y)).sum(dim=0)
        by_x.append(kernel.sum(dim=1))
        by_y += kernel.sum(dim=0)
    return pairs, torch.cat(by_x), by_y
