r"""The losses of the two players of a GAN.

:math:`D` gives logits, :math:`x` is real and :math:`G(z)` is fake; the probability that an image is real is
:math:`\sigma(D)`, the sigmoid of its logit. Logits come in any shape, and each loss is their mean: a scalar.

Two identities keep the logarithms finite however sure the discriminator is:
:math:`-\log \sigma(t) = \operatorname{softplus}(-t)` and :math:`-\log(1 - \sigma(t)) = \operatorname{softplus}(t)`.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmgan_lib.checks import check_same_shape


class GANLoss(NamedTuple):
    """The two sides of a game, both called with ``real_logits=`` and ``fake_logits=``; each gives a scalar to minimise.

    The generator's loss depends on ``real_logits`` only where ``generator_sees_real``; everywhere else they may be left
    out, which saves a pass through the discriminator. A loss with hyper-parameters is a ``functools.partial``.
    """

    discriminator: Callable[..., Tensor]
    generator: Callable[..., Tensor]
    generator_sees_real: bool = False


def minimax_discriminator(*, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    r"""Computes the cross-entropy of telling real from fake (Goodfellow et al., 2014).

    .. math:: -\mathbb{E} \log \sigma(D(x)) - \mathbb{E} \log(1 - \sigma(D(G(z))))

    >>> minimax_discriminator(real_logits=torch.zeros(4), fake_logits=torch.zeros(4))  # a coin toss: 2 log 2
    tensor(1.3863)
    """
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def minimax_generator(*, real_logits: Tensor | None = None, fake_logits: Tensor) -> Tensor:
    r"""Computes the opposite of what the discriminator minimises (Goodfellow et al., 2014).

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
    r"""Computes the squared distance to the labels 1 for real and 0 for fake (Mao et al., 2017).

    .. math:: \tfrac12 \mathbb{E} (D(x) - 1)^2 + \tfrac12 \mathbb{E} D(G(z))^2

    >>> least_squares_discriminator(real_logits=torch.ones(4), fake_logits=torch.full((4,), 2.0))
    tensor(2.)
    """
    return 0.5 * (real_logits - 1).square().mean() + 0.5 * fake_logits.square().mean()


def least_squares_generator(*, real_logits: Tensor | None = None, fake_logits: Tensor) -> Tensor:
    r"""Computes the squared distance of the fakes to the label of the real (Mao et al., 2017).

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
    return torch.relu(1 - real_logits).mean() + torch.relu(1 + fake_logits).mean()


def wasserstein_discriminator(*, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    r"""Computes the difference of the mean scores of fakes and of real samples (Arjovsky et al., 2017).

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
    r"""Asks that each real image looks more real than the fake it is paired with (Jolicoeur-Martineau, 2019).

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
    r"""Asks that each fake looks more real than the real image of its pair (Jolicoeur-Martineau, 2019).

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


def matching_discriminator(*, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    r"""Rejects a real image under a wrong condition as well as a fake (after Reed et al., 2016), by the hinge loss.

    .. math:: \mathbb{E} [1 - D(x, c)]_+ + \tfrac12 \mathbb{E} [1 + D(G(z, c), c)]_+
        + \tfrac12 \mathbb{E} [1 + D(x, c')]_+

    Args:
        real_logits: (2, B), under the right condition :math:`c` and a wrong one :math:`c'`, as
            :class:`mmgan_lib.gan.MatchingDiscriminator` gives them.
        fake_logits: (2, B), of which the first row counts.

    >>> matching_discriminator(real_logits=torch.tensor([[1.0], [-1.0]]), fake_logits=torch.tensor([[0.0], [9.0]]))
    tensor(0.5000)
    """
    wrong = torch.relu(1 + fake_logits[0]).mean() + torch.relu(1 + real_logits[1]).mean()
    return torch.relu(1 - real_logits[0]).mean() + 0.5 * wrong


def matching_generator(*, real_logits: Tensor | None = None, fake_logits: Tensor) -> Tensor:
    """Raises the score (2, B) of the fakes under the condition they were made for, the first row."""
    return -fake_logits[0].mean()


#: The matching-aware game, for a discriminator that judges each sample under a wrong condition besides.
MATCHING_AWARE = GANLoss(matching_discriminator, matching_generator)
