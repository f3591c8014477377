r"""Bounds on the slopes of a discriminator, and other terms that are added to a player's loss.

The formulas are functions; the classes hold them with a weight and an interval, as values for
:class:`mmgan_lib.training.GANConfig`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmgan_lib.checks import check_counts, check_not_negative, check_same_shape


@dataclass(frozen=True)
class Penalty(ABC):
    """A term of the discriminator's loss that keeps its slopes in bounds.

    Args:
        weight: of the term, or a function of the step that gives it.
        every: compute it at every k-th step only, k times as strong (lazy regularisation, Karras et al., 2020).

    Raises:
        ValueError: a weight below 0, or an interval below 1.
    """

    weight: float | Callable[[int], float]
    every: int = 1

    of_logits: ClassVar[bool] = False  # computed from the step's own logits, of inputs that need a gradient

    def __post_init__(self) -> None:
        check_not_negative(weight=self.weight)
        check_counts(every=self.every)

    def at(self, step: int) -> float:
        """Returns the weight at a step."""
        return self.weight(step) if callable(self.weight) else self.weight

    @abstractmethod
    def __call__(
        self, discriminator: Callable, *, real: Tensor, fake: Tensor, real_logits: Tensor, fake_logits: Tensor
    ) -> Tensor:
        """Computes the term without its weight."""


class GradientPenalty(Penalty):
    """A term of :func:`gradient_penalty`, a pass of its own; the usual weight is 10."""

    def __call__(self, discriminator: Callable, *, real: Tensor, fake: Tensor, **_: Tensor) -> Tensor:
        """Computes the term by a pass between real and fake."""
        return gradient_penalty(discriminator, real=real, fake=fake)


class R1(Penalty):
    """A term of :func:`r1`, from the logits that are there; the weight is the paper's γ."""

    of_logits = True

    def __call__(self, discriminator: Callable, *, real: Tensor, real_logits: Tensor, **_: Tensor) -> Tensor:
        """Computes half the mean squared slope at the real samples."""
        return 0.5 * _squared_slope(real_logits, real).mean()


class R2(Penalty):
    """A term of :func:`r2`, from the logits that are there; the weight is the paper's γ."""

    of_logits = True

    def __call__(self, discriminator: Callable, *, fake: Tensor, fake_logits: Tensor, **_: Tensor) -> Tensor:
        """Computes half the mean squared slope at the fakes."""
        return 0.5 * _squared_slope(fake_logits, fake).mean()


def gradient_penalty(discriminator: Callable[[Tensor], Tensor], *, real: Tensor, fake: Tensor) -> Tensor:
    r"""Pulls the slope of the discriminator to 1 between real and fake: WGAN-GP (Gulrajani et al., 2017).

    .. math:: \mathbb{E} \left(\lVert \nabla_u D(u) \rVert - 1\right)^2,
        \qquad u = \epsilon x + (1 - \epsilon) G(z), \quad \epsilon \sim \mathcal{U}(0, 1) \text{ for each sample}

    The usual weight is 10. ``real`` and ``fake`` are (B, ...); neither receives a gradient, the discriminator's
    parameters do. A condition is bound by the caller: ``lambda x: discriminator(x, condition)``.

    Raises:
        ValueError: ``real`` and ``fake`` differ in shape.

    >>> critic = nn.Linear(2, 1)
    >>> _ = critic.weight.data.copy_(torch.tensor([[3.0, 4.0]]))  # a slope of 5 everywhere
    >>> gradient_penalty(critic, real=torch.ones(8, 2), fake=torch.zeros(8, 2)).item()
    16.0
    """
    check_same_shape(real=real, fake=fake)
    epsilon = torch.rand(len(real), *[1] * (real.dim() - 1), device=real.device)
    between = epsilon * real.detach() + (1 - epsilon) * fake.detach()
    slope = (_slope_at(discriminator, between) + 1e-12).sqrt()  # the root has no derivative at 0
    return (slope - 1).square().mean()


def r1(discriminator: Callable[[Tensor], Tensor], *, real: Tensor) -> Tensor:
    r"""Flattens the discriminator at the real images (Mescheder et al., 2018).

    .. math:: \tfrac12 \mathbb{E} \lVert \nabla_x D(x) \rVert^2

    The ½ is part of it, so that its weight is the γ of the paper. Gradients flow as in :func:`gradient_penalty`.

    >>> r1(lambda x: 3 * x.sum(1), real=torch.randn(8, 2))  # ½ (3² + 3²)
    tensor(9.)
    """
    return 0.5 * _slope_at(discriminator, real).mean()


def r2(discriminator: Callable[[Tensor], Tensor], *, fake: Tensor) -> Tensor:
    r"""Flattens the discriminator at the fake images (Mescheder et al., 2018): :func:`r1` at :math:`G(z)`.

    .. math:: \tfrac12 \mathbb{E} \lVert \nabla D(G(z)) \rVert^2

    >>> r2(lambda x: 3 * x.sum(1), fake=torch.randn(8, 2))
    tensor(9.)
    """
    return 0.5 * _slope_at(discriminator, fake).mean()


@torch.no_grad()
def clip_weights(module: nn.Module, limit: float) -> None:
    """Clamps every parameter into [-limit, limit], in place: the first WGAN's bound on slopes (Arjovsky et al., 2017).

    Raises:
        ValueError: ``limit`` is not positive.

    >>> critic = nn.Linear(100, 1)
    >>> clip_weights(critic, 0.01)
    >>> bool(critic.weight.abs().max() <= 0.01)
    True
    """
    if not limit > 0:
        raise ValueError(f"limit is {limit}; expected a positive number.")
    for parameter in module.parameters():
        parameter.clamp_(-limit, limit)


@dataclass(frozen=True)
class L1:
    """The mean absolute distance of each fake from the real sample it belongs to, for the generator of pix2pix.

    >>> L1(40.0)(real=torch.zeros(4), fake=torch.full((4,), 0.5))
    tensor(20.)
    """

    weight: float

    def __call__(self, *, real: Tensor, fake: Tensor) -> Tensor:
        """Computes the distance, times the weight."""
        return self.weight * (fake - real).abs().mean()


def _slope_at(discriminator: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Computes the squared slope (B,) at x (B, ...), in float32 or finer also under autocast, whose range it leaves."""
    x = x.detach().to(torch.promote_types(x.dtype, torch.float32)).requires_grad_()
    with torch.autocast(x.device.type, enabled=False):
        return _squared_slope(discriminator(x), x)


def _squared_slope(logits: Tensor, x: Tensor) -> Tensor:
    r"""Computes :math:`\lVert \nabla_x D(x) \rVert^2` for each sample, (B,), itself differentiable.

    The logits are summed because a sample's input only moves its own logits; a sample with many (a patch
    discriminator) has the slope of their sum.
    """
    (slope,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return slope.square().flatten(1).sum(1)
