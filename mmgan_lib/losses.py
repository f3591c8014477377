r"""What the two players of a GAN minimise, the penalties that keep the discriminator smooth, and the contrastive loss.

For the players, :math:`D` gives logits, :math:`x` is real and :math:`G(z)` is fake; the probability that a picture is
real is :math:`\sigma(D)`, the sigmoid of its logit. Logits come in any shape, and each loss is their mean: a scalar.

Two identities keep the logarithms finite however sure the discriminator is:
:math:`-\log \sigma(t) = \operatorname{softplus}(-t)` and :math:`-\log(1 - \sigma(t)) = \operatorname{softplus}(t)`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgan_lib.checks import check_counts, check_not_negative, check_same_shape


class GANLoss(NamedTuple):
    """The two sides of a game, both called with ``real_logits=`` and ``fake_logits=``; each gives a scalar to minimise.

    The generator's loss depends on ``real_logits`` only where ``generator_sees_real``; everywhere else they may be left
    out, which saves a pass through the discriminator. A loss with hyper-parameters is a ``functools.partial``.
    """

    discriminator: Callable[..., Tensor]
    generator: Callable[..., Tensor]
    generator_sees_real: bool = False


def minimax_discriminator(*, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    r"""The cross-entropy of telling real from fake (Goodfellow et al., 2014).

    .. math:: -\mathbb{E} \log \sigma(D(x)) - \mathbb{E} \log(1 - \sigma(D(G(z))))

    >>> minimax_discriminator(real_logits=torch.zeros(4), fake_logits=torch.zeros(4))  # a coin toss: 2 log 2
    tensor(1.3863)
    """
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def minimax_generator(*, real_logits: Tensor | None = None, fake_logits: Tensor) -> Tensor:
    r"""The opposite of what the discriminator minimises (Goodfellow et al., 2014).

    .. math:: \mathbb{E} \log(1 - \sigma(D(G(z))))

    Its gradient in a logit is :math:`-\sigma(D(G(z)))`, which vanishes where the discriminator is sure of a fake.

    >>> minimax_generator(fake_logits=torch.zeros(4))
    tensor(-0.6931)
    """
    return -F.softplus(fake_logits).mean()


def non_saturating_generator(*, real_logits: Tensor | None = None, fake_logits: Tensor) -> Tensor:
    r"""Makes fakes likely to be called real, rather than unlikely to be called fake (Goodfellow et al., 2014).

    .. math:: -\mathbb{E} \log \sigma(D(G(z)))

    Its gradient in a logit is :math:`\sigma(D(G(z))) - 1`, which is largest where the discriminator is sure of a fake.

    >>> non_saturating_generator(fake_logits=torch.zeros(4))
    tensor(0.6931)
    """
    return F.softplus(-fake_logits).mean()


def least_squares_discriminator(*, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    r"""Squared distance to the labels 1 for real and 0 for fake (Mao et al., 2017).

    .. math:: \tfrac12 \mathbb{E} (D(x) - 1)^2 + \tfrac12 \mathbb{E} D(G(z))^2

    >>> least_squares_discriminator(real_logits=torch.ones(4), fake_logits=torch.full((4,), 2.0))
    tensor(2.)
    """
    return 0.5 * (real_logits - 1).square().mean() + 0.5 * fake_logits.square().mean()


def least_squares_generator(*, real_logits: Tensor | None = None, fake_logits: Tensor) -> Tensor:
    r"""Squared distance of the fakes to the label of the real (Mao et al., 2017).

    .. math:: \tfrac12 \mathbb{E} (D(G(z)) - 1)^2

    >>> least_squares_generator(fake_logits=torch.full((4,), 3.0))
    tensor(2.)
    """
    return 0.5 * (fake_logits - 1).square().mean()


def hinge_discriminator(*, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    r"""Asks for real above 1 and fake below -1, and for no more (Lim & Ye, 2017; Miyato et al., 2018).

    .. math:: \mathbb{E} \max(0, 1 - D(x)) + \mathbb{E} \max(0, 1 + D(G(z)))

    >>> hinge_discriminator(real_logits=torch.tensor([0.5, 9.0]), fake_logits=torch.tensor([-1.0, -9.0]))
    tensor(0.2500)
    """
    return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()


def wasserstein_discriminator(*, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    r"""How much higher fakes score than real (Arjovsky et al., 2017).

    .. math:: \mathbb{E} D(G(z)) - \mathbb{E} D(x)

    At the best 1-Lipschitz :math:`D` this is minus the Wasserstein distance between fake and real. The bound on the
    slope has to come from :func:`clip_weights` or :func:`gradient_penalty`.

    >>> wasserstein_discriminator(real_logits=torch.full((4,), 3.0), fake_logits=torch.ones(4))
    tensor(-2.)
    """
    return fake_logits.mean() - real_logits.mean()


def score_generator(*, real_logits: Tensor | None = None, fake_logits: Tensor) -> Tensor:
    r"""Raises the score of the fakes; the generator of both the hinge and the Wasserstein game.

    .. math:: -\mathbb{E} D(G(z))

    >>> score_generator(fake_logits=torch.full((4,), 3.0))
    tensor(-3.)
    """
    return -fake_logits.mean()


def relativistic_discriminator(*, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    r"""Asks that each real picture looks more real than the fake it is paired with (Jolicoeur-Martineau, 2019).

    .. math:: -\mathbb{E} \log \sigma(D(x) - D(G(z)))

    It is the loss of R3GAN (Huang et al., 2024), which adds :func:`r1` and :func:`r2`.

    Raises:
        ValueError: the logits cannot be paired because their shapes differ.

    >>> relativistic_discriminator(real_logits=torch.full((4,), 7.0), fake_logits=torch.full((4,), 7.0))
    tensor(0.6931)
    """
    check_same_shape(real_logits=real_logits, fake_logits=fake_logits)
    return F.softplus(-(real_logits - fake_logits)).mean()


def relativistic_generator(*, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    r"""The same wish with the roles exchanged (Jolicoeur-Martineau, 2019): the fake of a pair looks more real.

    .. math:: -\mathbb{E} \log \sigma(D(G(z)) - D(x))

    Raises:
        ValueError: the logits cannot be paired because their shapes differ.

    >>> relativistic_generator(real_logits=torch.full((4,), 7.0), fake_logits=torch.zeros(4))
    tensor(7.0009)
    """
    check_same_shape(real_logits=real_logits, fake_logits=fake_logits)
    return F.softplus(-(fake_logits - real_logits)).mean()


#: name → the game, for :class:`mmgan_lib.training.GANConfig`
GAN_LOSSES: dict[str, GANLoss] = {
    "minimax": GANLoss(minimax_discriminator, minimax_generator),
    "non_saturating": GANLoss(minimax_discriminator, non_saturating_generator),
    "least_squares": GANLoss(least_squares_discriminator, least_squares_generator),
    "hinge": GANLoss(hinge_discriminator, score_generator),
    "wasserstein": GANLoss(wasserstein_discriminator, score_generator),
    "relativistic": GANLoss(relativistic_discriminator, relativistic_generator, generator_sees_real=True),
}


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
        """Its weight at a step."""
        return self.weight(step) if callable(self.weight) else self.weight

    @abstractmethod
    def __call__(
        self, discriminator: Callable, *, real: Tensor, fake: Tensor, real_logits: Tensor, fake_logits: Tensor
    ) -> Tensor:
        """The term without its weight."""


class GradientPenalty(Penalty):
    """:func:`gradient_penalty`, a pass of its own; the usual weight is 10."""

    def __call__(self, discriminator: Callable, *, real: Tensor, fake: Tensor, **_: Tensor) -> Tensor:
        """A pass of its own, between real and fake."""
        return gradient_penalty(discriminator, real=real, fake=fake)


class R1(Penalty):
    """:func:`r1`, from the logits that are there; the weight is the paper's γ."""

    of_logits = True

    def __call__(self, discriminator: Callable, *, real: Tensor, real_logits: Tensor, **_: Tensor) -> Tensor:
        """Half the mean squared slope at the real samples."""
        return 0.5 * _squared_slope(real_logits, real).mean()


class R2(Penalty):
    """:func:`r2`, from the logits that are there; the weight is the paper's γ."""

    of_logits = True

    def __call__(self, discriminator: Callable, *, fake: Tensor, fake_logits: Tensor, **_: Tensor) -> Tensor:
        """Half the mean squared slope at the fakes."""
        return 0.5 * _squared_slope(fake_logits, fake).mean()


def gradient_penalty(discriminator: Callable[[Tensor], Tensor], *, real: Tensor, fake: Tensor) -> Tensor:
    r"""WGAN-GP: pulls the slope of the discriminator to 1 between real and fake (Gulrajani et al., 2017).

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
    r"""Flattens the discriminator at the real pictures (Mescheder et al., 2018).

    .. math:: \tfrac12 \mathbb{E} \lVert \nabla_x D(x) \rVert^2

    The ½ is part of it, so that its weight is the γ of the paper. Gradients flow as in :func:`gradient_penalty`.

    >>> r1(lambda x: 3 * x.sum(1), real=torch.randn(8, 2))  # ½ (3² + 3²)
    tensor(9.)
    """
    return 0.5 * _slope_at(discriminator, real).mean()


def r2(discriminator: Callable[[Tensor], Tensor], *, fake: Tensor) -> Tensor:
    r"""Flattens the discriminator at the fake pictures (Mescheder et al., 2018): :func:`r1` at :math:`G(z)`.

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


def contrastive(a: Tensor, b: Tensor, *, temperature: float = 0.1) -> Tensor:
    r"""Asks that each vector finds its partner among all of the batch, from either side (Radford et al., 2021).

    .. math:: -\frac{1}{2B} \sum_i \left(\log \frac{e^{s_{ii}}}{\sum_j e^{s_{ij}}}
        + \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ji}}}\right),
        \qquad s_{ij} = \frac{\cos(a_i, b_j)}{\tau}

    Each half is InfoNCE (van den Oord et al., 2018). ``a`` and ``b`` are (B, D), their rows paired and of any length;
    exchanging them changes nothing. The ``temperature`` is :math:`\tau`: the lower, the more the nearest wrong partners
    count.

    Raises:
        ValueError: ``a`` and ``b`` are not (B, D) of the same shape, or ``temperature`` is not positive.

    >>> contrastive(torch.eye(4), torch.ones(4, 4))  # every partner looks the same: log 4
    tensor(1.3863)
    """
    if a.shape != b.shape or a.dim() != 2:
        raise ValueError(f"a has shape {tuple(a.shape)} and b {tuple(b.shape)}; expected the same shape (B, D).")
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; expected a positive number.")
    similarity = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / temperature
    partner = torch.arange(len(a), device=a.device)
    return (F.cross_entropy(similarity, partner) + F.cross_entropy(similarity.T, partner)) / 2


def _slope_at(discriminator: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The squared slope (B,) at x (B, ...), in float32 or finer also under autocast, whose range it would leave."""
    x = x.detach().to(torch.promote_types(x.dtype, torch.float32)).requires_grad_()
    with torch.autocast(x.device.type, enabled=False):
        return _squared_slope(discriminator(x), x)


def _squared_slope(logits: Tensor, x: Tensor) -> Tensor:
    r"""(B, ...) → (B,): :math:`\lVert \nabla_x D(x) \rVert^2` for each sample, itself differentiable.

    The logits are summed because a sample's input only moves its own logits; a sample with many (a patch
    discriminator) has the slope of their sum.
    """
    (slope,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return slope.square().flatten(1).sum(1)


@dataclass(frozen=True)
class L1:
    """The mean absolute distance of each fake from the real sample it belongs to, for the generator of pix2pix.

    >>> L1(40.0)(real=torch.zeros(4), fake=torch.full((4,), 0.5))
    tensor(20.)
    """

    weight: float

    def __call__(self, *, real: Tensor, fake: Tensor) -> Tensor:
        """The distance, times the weight."""
        return self.weight * (fake - real).abs().mean()
