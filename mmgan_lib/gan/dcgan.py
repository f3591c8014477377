"""The networks of DCGAN (Radford et al., 2016), with a condition."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from mmgan_lib.checks import check_condition, check_counts, check_floating
from mmgan_lib.gan.projection import ProjectionHead


def doublings(size: int) -> int:
    """Counts how often a side of 4 pixels doubles to reach ``size``.

    Raises:
        ValueError: no such number.

    >>> doublings(32)
    3
    """
    steps = int(math.log2(size / 4)) if size >= 8 else 0
    if size != 4 * 2**steps or steps == 0:
        raise ValueError(f"size is {size}; expected 8, 16, 32, 64 or another 4 × a power of two.")
    return steps


class ConditionalBatchNorm2d(nn.Module):
    r"""Batch normalisation whose scale and shift are set by the condition (de Vries et al., 2017).

    .. math:: y = (1 + \gamma + \Gamma c) \odot \frac{x - \mu}{\sigma} + \beta + B c

    with vectors :math:`\gamma, \beta` and matrices :math:`\Gamma, B` that are learned, from zero on. With
    ``condition_dim=0`` it is plain batch normalisation.
    """

    def __init__(self, channels: int, condition_dim: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=condition_dim == 0)
        self.scale_shift = nn.Linear(condition_dim, 2 * channels) if condition_dim else None
        if self.scale_shift is not None:
            nn.init.zeros_(self.scale_shift.weight)
            nn.init.zeros_(self.scale_shift.bias)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Maps (B, C, H, W) and the condition (B, D) to (B, C, H, W)."""
        x = self.norm(x)
        if self.scale_shift is None:
            return x
        scale, shift = self.scale_shift(condition)[:, :, None, None].chunk(2, dim=1)
        return (1 + scale) * x + shift


class UpBlock(nn.Module):
    """Transposed convolution, batch normalisation and ReLU: doubles height and width."""

    def __init__(self, in_channels: int, out_channels: int, condition_dim: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, kernel_size=4, stride=2, padding=1, bias=False)
        self.norm = ConditionalBatchNorm2d(out_channels, condition_dim)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Maps (B, C, H, W) to (B, C', 2H, 2W)."""
        return torch.relu(self.norm(self.conv(x), condition))


def _draw_weights(layer: nn.Module) -> None:
    """Draws weights from N(0, 0.02²), as in DCGAN; right where a normalisation follows and restores the scale."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(layer.weight, std=0.02)


class Generator(nn.Module):
    """The deep convolutional generator of Radford et al. (DCGAN, 2016), with an optional condition.

    A fully connected layer makes a 4×4 map of many channels from the noise; each :class:`UpBlock` doubles its side
    and halves its channels; the last transposed convolution paints the image, and tanh keeps it in [-1, 1].

    Args:
        latent_dim: length of the noise vector z.
        condition_dim: length of the condition vector, 0 for none.
        channels: 1 for grey images, 3 for RGB.
        size: height and width of the image in pixels, 4 × a power of two.
        width: channels of the last feature map before the image.
    """

    def __init__(
        self, latent_dim: int = 64, *, condition_dim: int = 0, channels: int = 1, size: int = 32, width: int = 32
    ) -> None:
        super().__init__()
        check_counts(width=width)
        self.latent_dim, self.condition_dim = latent_dim, condition_dim
        widths = [width * 2**i for i in reversed(range(doublings(size)))]
        self.project = nn.Linear(latent_dim + condition_dim, widths[0] * 4 * 4, bias=False)
        self.project_norm = ConditionalBatchNorm2d(widths[0], condition_dim)
        self.blocks = nn.ModuleList(UpBlock(wide, narrow, condition_dim) for wide, narrow in pairwise(widths))
        self.to_image = nn.ConvTranspose2d(widths[-1], channels, kernel_size=4, stride=2, padding=1)
        for layer in (self.project, self.to_image, *(block.conv for block in self.blocks)):
            _draw_weights(layer)

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """Maps noise (B, latent_dim) and the condition (B, condition_dim) to images (B, channels, size, size).

        Raises:
            ValueError: another shape, whole numbers, or a condition that is missing or not wanted.
        """
        check_floating("z", z, "B", self.latent_dim)
        check_condition(condition, len(z), self.condition_dim)
        x = self.project(z if condition is None else torch.cat([z, condition], dim=1))
        x = torch.relu(self.project_norm(x.unflatten(1, (-1, 4, 4)), condition))
        for block in self.blocks:
            x = block(x, condition)
        return torch.tanh(self.to_image(x))


class Discriminator(nn.Module):
    r"""The convolutional discriminator of DCGAN, with a projection head for the condition (Miyato & Koyama, 2018).

    Strided convolutions halve the side down to a 4×4 map :math:`h(x)`, which the :class:`ProjectionHead` judges:

    .. math:: D(x, c) = w^\top h(x) + b + \langle V c, h(x) \rangle

    Args:
        condition_dim: length of the condition vector, 0 for none.
        channels: 1 for grey images, 3 for RGB.
        size: height and width of the image in pixels, 4 × a power of two.
        width: channels of the first feature map.
        norm: builds the normalisation of the inner layers from their number of channels, such as
            ``nn.BatchNorm2d``. None under a gradient penalty, which needs each image judged by itself.
    """

    def __init__(
        self,
        *,
        condition_dim: int = 0,
        channels: int = 1,
        size: int = 32,
        width: int = 32,
        norm: type[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        check_counts(width=width)
        self.condition_dim, self.image_shape = condition_dim, (channels, size, size)
        widths = [width * 2**i for i in range(doublings(size))]
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(zip([channels, *widths], widths, strict=False)):
            normed = norm is not None and i > 0
            layers += [nn.Conv2d(before, after, kernel_size=4, stride=2, padding=1, bias=not normed)]
            layers += [norm(after)] if normed else []
            layers += [nn.LeakyReLU(0.2)]
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.head = ProjectionHead(widths[-1] * 4 * 4, condition_dim)
        if norm is not None:
            self.apply(_draw_weights)

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Tensor:
        """Maps images (B, channels, size, size) and the condition (B, condition_dim) to logits (B,).

        Raises:
            ValueError: another shape, whole numbers, or a condition that is missing or not wanted.
        """
        check_floating("image", image, "B", *self.image_shape)
        check_condition(condition, len(image), self.condition_dim)
        return self.head(self.features(image), condition)
