"""Mode coverage: how many known modes of a distribution a generator draws, and how evenly."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mmgan_lib.checks import check_floating, check_shape


@dataclass(frozen=True)
class ModeCoverage:
    r"""The result of :func:`mode_coverage`.

    Attributes:
        modes: how many modes have at least one good sample.
        reverse_kl: :math:`\sum_k q_k \log (K q_k)` in nats, 0 where all K modes are drawn equally often, and at most
            log K; :math:`q_k` is the share of the samples in mode k.
        high_quality: share of the samples that are good.
    """

    modes: int
    reverse_kl: float
    high_quality: float


def mode_coverage(mode: Tensor, *, modes: int, good: Tensor | None = None) -> ModeCoverage:
    """Counts modes as PacGAN does (Lin et al., 2018), against a truth in which all modes are equally likely.

    More samples find more modes, so compare counts of equally many: 2,500 for mixtures of Gaussians, 26,000 for the
    1,000 modes of stacked MNIST.

    Args:
        mode: (N,) int64, the mode of each sample, 0 to ``modes`` - 1: by :func:`nearest_mode`, or told by a classifier.
        modes: K, how many modes there are, at least 2.
        good: (N,) bool, the samples good enough to count for a mode; None where all are.

    Raises:
        ValueError: another shape or type, no sample, or a mode outside 0 to ``modes`` - 1.

    >>> mode_coverage(torch.tensor([0, 0, 1, 1]), modes=4)  # two of four modes: log 4 - log 2
    ModeCoverage(modes=2, reverse_kl=0.6931..., high_quality=1.0)
    """
    good = torch.ones_like(mode, dtype=torch.bool) if good is None else good
    for name, x, dtype in (("mode", mode, torch.int64), ("good", good, torch.bool)):
        if x.dtype != dtype or x.dim() != 1 or len(x) == 0 or len(x) != len(mode):
            expected = f"(N,) {dtype}, the same N for mode and good"
            raise ValueError(f"{name}: found {tuple(x.shape)} {x.dtype}; expected {expected}.")
    if modes < 2:
        raise ValueError(f"modes is {modes}; expected at least 2.")
    low, high = mode.aminmax()
    if low < 0 or high >= modes:
        raise ValueError(f"mode: found modes from {low} to {high}; expected 0 to {modes - 1}.")
    mode, good = mode.cpu(), good.cpu()  # not every device has float64
    share = mode.bincount(minlength=modes).double() / len(mode)
    return ModeCoverage(
        modes=len(mode[good].unique()),
        reverse_kl=torch.special.xlogy(share, modes * share).sum().item(),
        high_quality=good.double().mean().item(),
    )


def nearest_mode(fake: Tensor, *, centres: Tensor, std: float) -> tuple[Tensor, Tensor]:
    """Finds each sample's nearest Gaussian, and whether it lies within three standard deviations of its centre.

    Args:
        fake: (N, D) samples.
        centres: (K, D), the means of the Gaussians.
        std: their standard deviation along each axis.

    Returns:
        ``mode`` (N,) int64 and ``good`` (N,) bool, as :func:`mode_coverage` takes them.

    Raises:
        ValueError: another shape, whole numbers, or ``std`` not above 0.

    >>> nearest_mode(torch.tensor([[0.0, 0.1], [9.0, 9.5]]), centres=torch.tensor([[0.0, 0.0], [9.0, 9.0]]), std=0.1)
    (tensor([0, 1]), tensor([ True, False]))
    """
    check_shape("centres", centres, "K", "D")
    check_floating("fake", fake, "N", centres.shape[1])
    if not std > 0:
        raise ValueError(f"std is {std}; expected more than 0.")
    fake = fake.to(torch.promote_types(fake.dtype, torch.float32))  # cdist knows no half precision
    centres = centres.to(fake)
    distance, mode = torch.cdist(fake, centres, compute_mode="donot_use_mm_for_euclid_dist").min(dim=1)
    return mode, distance < 3 * std
