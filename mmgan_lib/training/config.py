"""The settings of a run of fit_gan."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mmgan_lib.checks import check_counts
from mmgan_lib.losses import GAN_LOSSES, GANLoss, Penalty

OptimizerOf = Callable[[list[nn.Parameter]], Optimizer]


@dataclass(frozen=True)
class GANConfig:
    """The settings of a run of :func:`mmgan_lib.training.fit_gan`.

    Args:
        steps: generator steps.
        loss: a :class:`mmgan_lib.losses.GANLoss`, or its name in :data:`mmgan_lib.losses.GAN_LOSSES`.
        lr: learning rate of both Adam optimisers.
        lr_discriminator: learning rate of the discriminator's, where it differs.
        betas: Adam's decay rates of the two moments.
        optimizer: makes an optimiser of a player's parameters, in place of that Adam, such as
            ``partial(torch.optim.RMSprop, lr=5e-5)``.
        optimizer_discriminator: the discriminator's, where it differs.
        schedule: makes the learning-rate schedule of either optimiser, which goes on with every generator step, such
            as ``partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=steps)``.
        n_critic: discriminator steps for each generator step.
        penalties: of the discriminator, such as ``(R1(0.5, every=8),)``; see :mod:`mmgan_lib.losses`.
        generator_penalties: of the generator, each called as ``penalty(real=, fake=)`` on samples before augmentation,
            such as :class:`mmgan_lib.losses.L1`.
        weight_clip: after each discriminator step clip its weights to ± this; None for no clipping.
        ema: decay of the running average of the generator's weights (Karras et al., 2018), or a function of the step
            that gives it; early on it is lower, (1 + step) / (10 + step).
        checkpoint_every: steps between checkpoints, where :func:`mmgan_lib.training.fit_gan` is given a folder.

    Raises:
        ValueError: an unknown loss, a count below 1, or another number out of its bounds.
    """

    steps: int
    loss: GANLoss | str = "non_saturating"
    lr: float = 2e-4
    lr_discriminator: float | None = None
    betas: tuple[float, float] = (0.5, 0.999)
    optimizer: OptimizerOf | None = None
    optimizer_discriminator: OptimizerOf | None = None
    schedule: Callable[[Optimizer], LRScheduler] | None = None
    n_critic: int = 1
    penalties: Sequence[Penalty] = ()
    generator_penalties: Sequence[Callable[..., Tensor]] = ()
    weight_clip: float | None = None
    ema: float | Callable[[int], float] = 0.999
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        if isinstance(self.loss, str) and self.loss not in GAN_LOSSES:
            raise ValueError(f"loss is {self.loss!r}; expected a GANLoss, or one of {', '.join(GAN_LOSSES)}.")
        check_counts(steps=self.steps, n_critic=self.n_critic, checkpoint_every=self.checkpoint_every)
        if not callable(self.ema) and not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}; expected a decay from 0 to below 1.")
        if self.weight_clip is not None and not self.weight_clip > 0:
            raise ValueError(f"weight_clip is {self.weight_clip}; expected a limit above 0, or None.")

    @property
    def game(self) -> GANLoss:
        """The loss, by whatever it was named."""
        return GAN_LOSSES[self.loss] if isinstance(self.loss, str) else self.loss

    def ema_at(self, step: int) -> float:
        """Returns the decay of the running average at a step."""
        return min(self.ema(step) if callable(self.ema) else self.ema, (1 + step) / (10 + step))

    def optimizer_of(self, player: nn.Module, optimizer: OptimizerOf | None, lr: float) -> Optimizer:
        """Makes an optimiser of a player's parameters; Adam, where none is named."""
        if optimizer is not None:
            return optimizer(list(player.parameters()))
        betas = tuple(map(float, self.betas))  # Adam takes no whole number beside a fraction
        return torch.optim.Adam(player.parameters(), lr=lr, betas=betas, fused=True)


def cosine(start: float, end: float, steps: int) -> Callable[[int], float]:
    """Returns a schedule from one value to another along half a cosine, as R3GAN anneals (Huang et al., 2024).

    >>> weight = cosine(1.0, 0.1, steps=100)
    >>> weight(0), round(weight(50), 2), round(weight(200), 2)
    (1.0, 0.55, 0.1)
    """
    return lambda step: end + (start - end) * (1 + math.cos(math.pi * min(1, step / steps))) / 2
