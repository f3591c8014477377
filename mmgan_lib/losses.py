r"""What the two players of a GAN minimise, the penalties that keep the discriminator smooth, and the contrastive loss.

For the players, :math:`D` gives logits, :math:`x` is real and :math:`G(z)` is fake; the probability that a picture is
real is :math:`\sigma(D)`, the sigmoid of its logit. Logits come in any shape, and each loss is their mean: a scalar.

Two identities keep the logarithms finite however sure the discriminator is:
:math:`-\log \sigma(t) = \operatorname{softplus}(-t)` and :math:`-\log(1 - \sigma(t)) = \operatorname{softplus}(t)`.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GANLoss(NamedTuple):
    """The two sides of a game, called alike: ``discriminator(real=, fake=)`` and ``generator(real=, fake=)``.

    Both take logits and return a scalar to be minimised. Only where ``generator_sees_real`` does the generator's loss
    depend on ``real``; everywhere else it may be left out, which saves a pass through the discriminator.
    """

    discriminator: Callable[..., Tensor]
    generator: Callable[..., Tensor]
    generator_sees_real: bool = False


def minimax_discriminator(*, real: Tensor, fake: Tensor) -> Tensor:
    r"""The cross-entropy of telling real from fake (Goodfellow et al., 2014).

    .. math:: -\mathbb{E} \log \sigma(D(x)) - \mathbb{E} \log(1 - \sigma(D(G(z))))

    >>> minimax_discriminator(real=torch.zeros(4), fake=torch.zeros(4))  # a coin toss: 2 log 2
    tensor(1.3863)
    """
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def minimax_generator(*, real: Tensor | None = None, fake: Tensor) -> Tensor:
    r"""The opposite of what the discriminator minimises (Goodfellow et al., 2014).

    .. math:: \mathbb{E} \log(1 - \sigma(D(G(z))))

    Its gradient in a logit is :math:`-\sigma(D(G(z)))`, which vanishes where the discriminator is sure of a fake.

    >>> minimax_generator(fake=torch.zeros(4))
    tensor(-0.6931)
    """
    return -F.softplus(fake).mean()


def non_saturating_generator(*, real: Tensor | None = None, fake: Tensor) -> Tensor:
    r"""Makes fakes likely to be called real, rather than unlikely to be called fake (Goodfellow et al., 2014).

    .. math:: -\mathbb{E} \log \sigma(D(G(z)))

    Its gradient in a logit is :math:`\sigma(D(G(z))) - 1`, which is largest where the discriminator is sure of a fake.

    >>> non_saturating_generator(fake=torch.zeros(4))
    tensor(0.6931)
    """
    return F.softplus(-fake).mean()


def least_squares_discriminator(*, real: Tensor, fake: Tensor) -> Tensor:
    r"""Squared distance to the labels 1 for real and 0 for fake (Mao et al., 2017).

    .. math:: \tfrac12 \mathbb{E} (D(x) - 1)^2 + \tfrac12 \mathbb{E} D(G(z))^2

    >>> least_squares_discriminator(real=torch.ones(4), fake=torch.full((4,), 2.0))
    tensor(2.)
    """
    return 0.5 * (real - 1).square().mean() + 0.5 * fake.square().mean()


def least_squares_generator(*, real: Tensor | None = None, fake: Tensor) -> Tensor:
    r"""Squared distance of the fakes to the label of the real (Mao et al., 2017).

    .. math:: \tfrac12 \mathbb{E} (D(G(z)) - 1)^2

    >>> least_squares_generator(fake=torch.full((4,), 3.0))
    tensor(2.)
    """
    return 0.5 * (fake - 1).square().mean()


def hinge_discriminator(*, real: Tensor, fake: Tensor) -> Tensor:
    r"""Asks for real above 1 and fake below -1, and for no more (Lim & Ye, 2017; Miyato et al., 2018).

    .. math:: \mathbb{E} \max(0, 1 - D(x)) + \mathbb{E} \max(0, 1 + D(G(z)))

    >>> hinge_discriminator(real=torch.tensor([0.5, 9.0]), fake=torch.tensor([-1.0, -9.0]))
    tensor(0.2500)
    """
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def wasserstein_discriminator(*, real: Tensor, fake: Tensor) -> Tensor:
    r"""How much higher fakes score than real (Arjovsky et al., 2017).

    .. math:: \mathbb{E} D(G(z)) - \mathbb{E} D(x)

    At the best 1-Lipschitz :math:`D` this is minus the Wasserstein distance between fake and real. The bound on the
    slope has to come from :func:`clip_weights` or :func:`gradient_penalty`.

    >>> wasserstein_discriminator(real=torch.full((4,), 3.0), fake=torch.ones(4))
    tensor(-2.)
    """
    return fake.mean() - real.mean()


def score_generator(*, real: Tensor | None = None, fake: Tensor) -> Tensor:
    r"""Raises the score of the fakes; the generator of both the hinge and the Wasserstein game.

    .. math:: -\mathbb{E} D(G(z))

    >>> score_generator(fake=torch.full((4,), 3.0))
    tensor(-3.)
    """
    return -fake.mean()


def relativistic_discriminator(*, real: Tensor, fake: Tensor) -> Tensor:
    r"""Asks that each real picture looks more real than the fake it is paired with (Jolicoeur-Martineau, 2019).

    .. math:: -\mathbb{E} \log \sigma(D(x) - D(G(z)))

    It is the loss of R3GAN (Huang et al., 2024), which adds :func:`r1` and :func:`r2`.

    Raises:
        ValueError: ``real`` and ``fake`` cannot be paired because their shapes differ.

    >>> relativistic_discriminator(real=torch.full((4,), 7.0), fake=torch.full((4,), 7.0))
    tensor(0.6931)
    """
    _check_same_shape(real, fake)
    return F.softplus(-(real - fake)).mean()


def relativistic_generator(*, real: Tensor, fake: Tensor) -> Tensor:
    r"""The same wish with the roles exchanged (Jolicoeur-Martineau, 2019): the fake of a pair looks more real.

    .. math:: -\mathbb{E} \log \sigma(D(G(z)) - D(x))

    Raises:
        ValueError: ``real`` and ``fake`` cannot be paired because their shapes differ.

    >>> relativistic_generator(real=torch.full((4,), 7.0), fake=torch.zeros(4))
    tensor(7.0009)
    """
    _check_same_shape(real, fake)
    return F.softplus(-(fake - real)).mean()


#: name → the game, for :class:`mmgan_lib.training.GANConfig`
GAN_LOSSES: dict[str, GANLoss] = {
    "minimax": GANLoss(minimax_discriminator, minimax_generator),
    "non_saturating": GANLoss(minimax_discriminator, non_saturating_generator),
    "least_squares": GANLoss(least_squares_discriminator, least_squares_generator),
    "hinge": GANLoss(hinge_discriminator, score_generator),
    "wasserstein": GANLoss(wasserstein_discriminator, score_generator),
    "relativistic": GANLoss(relativistic_discriminator, relativistic_generator, generator_sees_real=True),
}


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
    _check_same_shape(real, fake)
    epsilon = torch.rand(len(real), *[1] * (real.dim() - 1), device=real.device)
    between = epsilon * real.detach() + (1 - epsilon) * fake.detach()
    slope = (_squared_slope(discriminator, between) + 1e-12).sqrt()  # the root has no derivative at 0
    return (slope - 1).square().mean()


def r1(discriminator: Callable[[Tensor], Tensor], *, real: Tensor) -> Tensor:
    r"""Flattens the discriminator at the real pictures (Mescheder et al., 2018).

    .. math:: \tfrac12 \mathbb{E} \lVert \nabla_x D(x) \rVert^2

    The ½ is part of it, so that its weight is the γ of the paper. Gradients flow as in :func:`gradient_penalty`.

    >>> r1(lambda x: 3 * x.sum(1), real=torch.randn(8, 2))  # ½ (3² + 3²)
    tensor(9.)
    """
    return 0.5 * _squared_slope(discriminator, real).mean()


def r2(discriminator: Callable[[Tensor], Tensor], *, fake: Tensor) -> Tensor:
    r"""Flattens the discriminator at the fake pictures (Mescheder et al., 2018): :func:`r1` at :math:`G(z)`.

    .. math:: \tfrac12 \mathbb{E} \lVert \nabla D(G(z)) \rVert^2

    >>> r2(lambda x: 3 * x.sum(1), fake=torch.randn(8, 2))
    tensor(9.)
    """
    return 0.5 * _squared_slope(discriminator, fake).mean()


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


def _squared_slope(discriminator: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    r"""(B, ...) → (B,): :math:`\lVert \nabla_x D(x) \rVert^2` for each sample, itself differentiable.

    In float32 or finer also under autocast: a squared gradient soon leaves the range of half precision. The logits are
    summed because a sample's input only moves its own logits; a sample with many (a patch discriminator) has the
    slope of their sum.
    """
    x = x.detach().to(torch.promote_types(x.dtype, torch.float32)).requires_grad_()
    with torch.autocast(x.device.type, enabled=False):
        (slope,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
    return slope.square().flatten(1).sum(1)


def _check_same_shape(real: Tensor, fake: Tensor) -> None:
    if real.shape != fake.shape:
        raise ValueError(f"real has shape {tuple(real.shape)} and fake {tuple(fake.shape)}; expected the same shape.")
