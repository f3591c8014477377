"""What a run of two networks that play against each other does."""

from dataclasses import dataclass

from mmgan_lib.losses import GAN_LOSSES


@dataclass(frozen=True)
class GANConfig:
    """What a run of :func:`mmgan_lib.training.fit_gan` does.

    Args:
        steps: generator steps.
        loss: a key of :data:`mmgan_lib.losses.GAN_LOSSES`.
        lr: learning rate of both Adam optimisers.
        lr_discriminator: learning rate of the discriminator's, where it differs.
        betas: Adam's decay rates of the two moments.
        n_critic: discriminator steps for each generator step.
        gp, r1, r2: weights of the penalties in :mod:`mmgan_lib.losses`; 0 leaves a penalty out.
        penalty_every: compute the penalties at every k-th step only, k times as strong (lazy regularisation,
            Karras et al., 2020).
        clip: after each discriminator step clip its weights to [-clip, clip]; None for no clipping.
        ema: decay of the running average of the generator's weights (Karras et al., 2018).
        checkpoint_every: steps between checkpoints, where :func:`mmgan_lib.training.fit_gan` is given a folder.

    Raises:
        ValueError: an unknown loss, a count below 1, or another number out of its bounds.
    """

    steps: int
    loss: str = "non_saturating"
    lr: float = 2e-4
    lr_discriminator: float | None = None
    betas: tuple[float, float] = (0.5, 0.999)
    n_critic: int = 1
    gp: float = 0.0
    r1: float = 0.0
    r2: float = 0.0
    penalty_every: int = 1
    clip: float | None = None
    ema: float = 0.999
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        if self.loss not in GAN_LOSSES:
            raise ValueError(f"loss is {self.loss!r}; expected one of {', '.join(GAN_LOSSES)}.")
        for name in ("steps", "n_critic", "penalty_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1.")
        for name in ("lr", "lr_discriminator", "gp", "r1", "r2"):
            if (value := getattr(self, name)) is not None and not value >= 0:
                raise ValueError(f"{name} is {value}; expected 0 or more.")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas is {self.betas}; expected two decays, each from 0 to below 1.")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}; expected a decay from 0 to below 1.")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip is {self.clip}; expected a limit above 0, or None.")
