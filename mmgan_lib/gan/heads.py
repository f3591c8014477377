"""Players with conditions of their own kind: a wrong one besides the right, and one fused from several vectors."""

import torch
from torch import Tensor, nn

from mmgan_lib.gan.dcgan import Discriminator


class MatchingDiscriminator(Discriminator):
    """A discriminator of each image under its own condition and its neighbour's, for the matching-aware loss.

    The game is :data:`mmgan_lib.losses.MATCHING_AWARE` (after Reed et al., 2016).
    """

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        """Maps images (B, channels, size, size) and conditions (B, condition_dim) to logits (2, B)."""
        features = self.features(image)
        logit, asked = self.head.linear(features).squeeze(1), self.head.projection(condition)
        return torch.stack([logit + (c * features).sum(dim=1) for c in (asked, asked.roll(1, dims=0))])


class Fused(nn.Module):
    """A player whose condition is a fusion of vectors: ``player(x, fusion(vectors, mask))``.

    Args:
        fusion: maps a list of vectors (B, D_m) and their mask (B, M) to the player's condition (B, D).
        player: a generator or a discriminator with that condition.
    """

    def __init__(self, fusion: nn.Module, player: nn.Module) -> None:
        super().__init__()
        self.fusion, self.player = fusion, player
        self.latent_dim = getattr(player, "latent_dim", None)

    def forward(self, x: Tensor, *condition: Tensor) -> Tensor:
        """Maps noise or samples (B, ...), M vectors, and last their mask (B, M), to what the player gives."""
        *vectors, mask = condition
        return self.player(x, self.fusion(vectors, mask))
