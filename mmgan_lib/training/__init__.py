"""The two training loops: `fit` for a model that learns from examples, `fit_gan` for two that play against each other.

Both are short enough to read and complete enough to trust: they stop when a loss is no longer a sane number, they can
be killed at any moment and go on to the same result, and they never make a GPU wait just to show how it is going.
"""

from mmgan_lib.training.alignment import align
from mmgan_lib.training.config import GANConfig, cosine
from mmgan_lib.training.gan import fit_gan
from mmgan_lib.training.gan_state import GANHistory
from mmgan_lib.training.state import DivergedError
from mmgan_lib.training.step import discriminator_loss, generator_loss, optimizer_step
from mmgan_lib.training.supervised import History, fit

__all__ = [
    "DivergedError",
    "GANConfig",
    "GANHistory",
    "History",
    "align",
    "cosine",
    "discriminator_loss",
    "fit",
    "fit_gan",
    "generator_loss",
    "optimizer_step",
]
