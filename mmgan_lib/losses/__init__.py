"""The games that GANs play, the penalties that keep a discriminator smooth, and the contrastive loss."""

from mmgan_lib.losses.contrastive import contrastive
from mmgan_lib.losses.games import (
    GAN_LOSSES,
    MATCHING_AWARE,
    GANLoss,
    hinge_discriminator,
    least_squares_discriminator,
    least_squares_generator,
    matching_discriminator,
    matching_generator,
    minimax_discriminator,
    minimax_generator,
    non_saturating_generator,
    relativistic_discriminator,
    relativistic_generator,
    score_generator,
    wasserstein_discriminator,
)
from mmgan_lib.losses.penalties import L1, R1, R2, GradientPenalty, Penalty, clip_weights, gradient_penalty, r1, r2

__all__ = [
    "GAN_LOSSES",
    "L1",
    "MATCHING_AWARE",
    "R1",
    "R2",
    "GANLoss",
    "GradientPenalty",
    "Penalty",
    "clip_weights",
    "contrastive",
    "gradient_penalty",
    "hinge_discriminator",
    "least_squares_discriminator",
    "least_squares_generator",
    "matching_discriminator",
    "matching_generator",
    "minimax_discriminator",
    "minimax_generator",
    "non_saturating_generator",
    "r1",
    "r2",
    "relativistic_discriminator",
    "relativistic_generator",
    "score_generator",
    "wasserstein_discriminator",
]
