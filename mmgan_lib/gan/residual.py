"""Residual networks without normalisation, after R3GAN (Huang, Gokaslan, Kuleshov & Tompkin, 2024).

Like theirs are the block with its scaled start and grouped convolutions, the ladder of stages, the changes of size by
linear maps alone, and that nothing is normalised or squashed. Simpler, and smaller, than theirs:

- a block is as wide inside as outside, where theirs is twice as wide inside;
- channels double with every halving of the side, where theirs soon stop growing;
- a fully connected layer makes the 4×4 map, and another reads it; theirs scales one learned map, channel by channel,
  and reads each channel by a convolution of its own;
- averages of 2×2 places halve the side, where theirs weighs 4×4; at the rim, bilinear steps repeat the last place
  where theirs see zeros;
- the condition enters as it is, where theirs is embedded first; the logit has a part that does not depend on it;
- the layers between the blocks start as PyTorch's do and some have a bias, where theirs start so as to keep the
  variance, and have none.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgan_lib.checks import check_condition, check_counts, check_floating
from mmgan_lib.gan.dcgan import doublings

GROUP = 16  # channels that a 3×3 convolution looks at together


class ResidualBlock(nn.Module):
    r"""Three convolutions whose result is added to the map that they read.

    .. math:: y = x + W_3\, a(W_2\, a(W_1 x)), \qquad a(t) = \max(0.2\,t,\, t)

    :math:`W_1` and :math:`W_3` look at one place of the map at a time, :math:`W_2` at its 3×3 neighbourhood, in groups
    of 16 channels (Xie et al., 2017). At first :math:`W_3 = 0`, so that a new block does nothing and a deep network
    starts out as a shallow one, and :math:`W_1` and :math:`W_2` are smaller by :math:`L^{-1/4}` in a network of L
    blocks, so that a step of all blocks together moves it no more than a step of one: that, and not a normalisation,
    keeps the signal in bounds (Fixup; Zhang et al., 2019).

    Args:
        channels: of the map; 16 or less, or no multiple of 16, are one group.
        of: L, the residual blocks of the whole network.
    """

    def __init__(self, channels: int, *, of: int = 1) -> None:
        super().__init__()
        groups = channels // GROUP if channels % GROUP == 0 else 1
        self.first = nn.Conv2d(channels, channels, kernel_size=1)
        self.second = nn.Conv2d(channels, channels, kernel_size=3, padding=1, groups=groups)
        self.third = nn.Conv2d(channels, channels, kernel_size=1, bias=False)
        for layer in (self.first, self.second):
            nn.init.kaiming_normal_(layer.weight, a=0.2)
            nn.init.zeros_(layer.bias)
            with torch.no_grad():
                layer.weight *= of**-0.25
        nn.init.zeros_(self.third.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape."""
        y = F.leaky_relu(self.first(x), 0.2)
        y = F.leaky_relu(self.second(y), 0.2)
        return x + self.third(y)


def _stages(widths: list[int], blocks: int) -> nn.ModuleList:
    of = len(widths) * blocks
    return nn.ModuleList(nn.Sequential(*(ResidualBlock(wide, of=of) for _ in range(blocks))) for wide in widths)


class ResidualGenerator(nn.Module):
    """A generator of residual blocks: a drop-in for :class:`mmgan_lib.gan.Generator`.

    A fully connected layer makes a 4×4 map from the noise and the condition. Between the stages of residual blocks,
    bilinear interpolation doubles the side and a 1×1 convolution halves the channels. There is no tanh: the
    discriminator alone keeps the images in [-1, 1], and nearly so.

    Args:
        latent_dim: length of the noise vector z.
        condition_dim: length of the condition vector, 0 for none.
        channels: 1 for grey images, 3 for RGB.
        size: height and width of the image in pixels, 4 × a power of two.
        width: channels at the full size; twice as many at half the size, and so on.
        blocks: residual blocks at each size.
    """

    def __init__(
        self,
        latent_dim: int = 64,
        *,
        condition_dim: int = 0,
        channels: int = 1,
        size: int = 32,
        width: int = 16,
        blocks: int = 1,
    ) -> None:
        super().__init__()
        check_counts(width=width)
        self.latent_dim, self.condition_dim = latent_dim, condition_dim
        widths = [width * 2**i for i in reversed(range(doublings(size) + 1))]
        self.project = nn.Linear(latent_dim + condition_dim, widths[0] * 4 * 4)
        self.stages = _stages(widths, blocks)
        self.narrow = nn.ModuleList(nn.Conv2d(wide, thin, kernel_size=1, bias=False) for wide, thin in pairwise(widths))
        self.to_image = nn.Conv2d(widths[-1], channels, kernel_size=1)

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """Maps noise (B, latent_dim) and the condition (B, condition_dim) to images (B, channels, size, size).

        Raises:
            ValueError: another shape, whole numbers, or a condition that is missing or not wanted.
        """
        check_floating("z", z, "B", self.latent_dim)
        check_condition(condition, len(z), self.condition_dim)
        x = self.project(z if condition is None else torch.cat([z, condition], dim=1)).unflatten(1, (-1, 4, 4))
        x = self.stages[0](x)
        for narrow, stage in zip(self.narrow, self.stages[1:], strict=True):
            x = stage(F.interpolate(narrow(x), scale_factor=2, mode="bilinear"))
        return self.to_image(x)


class ResidualDiscriminator(nn.Module):
    r"""A discriminator of residual blocks: a drop-in for :class:`mmgan_lib.gan.Discriminator`.

    It is the generator's ladder climbed down: 2×2 averages halve the side, 1×1 convolutions double the channels. The
    condition enters by projection, :math:`D(x, c) = w^\top h(x) + b + \langle V c, h(x) \rangle`.

    Args:
        condition_dim: length of the condition vector, 0 for none.
        channels: 1 for grey images, 3 for RGB.
        size: height and width of the image in pixels, 4 × a power of two.
        width: channels at the full size; twice as many at half the size, and so on.
        blocks: residual blocks at each size.
    """

    def __init__(
        self, *, condition_dim: int = 0, channels: int = 1, size: int = 32, width: int = 16, blocks: int = 1
    ) -> None:
        super().__init__()
        check_counts(width=width)
        self.condition_dim, self.image_shape = condition_dim, (channels, size, size)
        widths = [width * 2**i for i in range(doublings(size) + 1)]
        self.from_image = nn.Conv2d(channels, widths[0], kernel_size=1)
        self.stages = _stages(widths, blocks)
        self.widen = nn.ModuleList(nn.Conv2d(thin, wide, kernel_size=1, bias=False) for thin, wide in pairwise(widths))
        features = widths[-1] * 4 * 4
        self.head = nn.Linear(features, 1)
        self.projection = nn.Linear(condition_dim, features, bias=False) if condition_dim else None

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Tensor:
        """Maps images (B, channels, size, size) and the condition (B, condition_dim) to logits (B,).

        Raises:
            ValueError: another shape, whole numbers, or a condition that is missing or not wanted.
        """
        check_floating("image", image, "B", *self.image_shape)
        check_condition(condition, len(image), self.condition_dim)
        x = self.stages[0](self.from_image(image))
        for widen, stage in zip(self.widen, self.stages[1:], strict=True):
            x = stage(widen(F.avg_pool2d(x, 2)))  # widening first gives the same, for four times the work
        features = x.flatten(1)
        logit = self.head(features).squeeze(1)
        if self.projection is None:
            return logit
        return logit + (self.projection(condition) * features).sum(dim=1)
