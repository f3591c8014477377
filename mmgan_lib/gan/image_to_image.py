"""The networks of pix2pix (Isola et al., 2017): an image in, another image of the same scene out."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from mmgan_lib.checks import check_condition, check_counts, check_floating
from mmgan_lib.gan.dcgan import UpBlock
from mmgan_lib.gan.projection import ProjectionHead


class ImageToImageGenerator(nn.Module):
    """A U-Net (Ronneberger et al., 2015): down to a small map and up again, with a bridge at every size.

    Each strided convolution halves the sides, each ``UpBlock`` doubles them, and is given
    what there was at that size on the way down besides. So where an edge lies need not squeeze through the small map,
    which is left to what concerns the whole image. What the source leaves open is told by the condition, in every
    batch normalisation on the way up; there is no noise.

    Args:
        in_channels: of the source.
        condition_dim: length of the condition vector, 0 for none.
        channels: of the image: 1 for grey, 3 for RGB.
        width: channels of the largest feature map; each further one has twice as many.
        depth: how often the sides are halved.
    """

    def __init__(
        self, in_channels: int = 1, *, condition_dim: int = 0, channels: int = 3, width: int = 16, depth: int = 3
    ) -> None:
        super().__init__()
        check_counts(width=width, depth=depth)
        self.in_channels, self.condition_dim, self.depth = in_channels, condition_dim, depth
        widths = [width * 2**i for i in range(depth)]
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, kernel_size=4, stride=2, padding=1), nn.LeakyReLU(0.2))
            for before, after in pairwise([in_channels, *widths])
        )
        self.up = nn.ModuleList(
            UpBlock(wide if wide == widths[-1] else 2 * wide, narrow, condition_dim)
            for wide, narrow in pairwise([*reversed(widths), width])
        )
        self.to_image = nn.Conv2d(width + in_channels, channels, kernel_size=3, padding=1)

    def forward(self, source: Tensor, condition: Tensor | None = None) -> Tensor:
        """Maps sources (B, in_channels, H, W) and the condition (B, condition_dim) to images (B, channels, H, W).

        Raises:
            ValueError: another shape, whole numbers, or sides that are no multiples of 2 to the power of ``depth``.
        """
        _check_source(source, self.in_channels, self.depth)
        check_condition(condition, len(source), self.condition_dim)
        bridges = [source]
        for block in self.down:
            bridges.append(block(bridges[-1]))
        x = bridges.pop()
        for block in self.up:
            x = torch.cat([block(x, condition), bridges.pop()], dim=1)
        return torch.tanh(self.to_image(x))


class PatchDiscriminator(nn.Module):
    r"""A discriminator of patches of 18×18 pixels, so of texture and edges, not of the whole (Isola et al., 2017).

    It sees image and source on top of each other. Each place of its last map :math:`h` gives a logit, to which the
    condition adds, as in :class:`~mmgan_lib.gan.Discriminator`, how well the patch fits it:

    .. math:: D(x, s, c)_{ij} = w^\top h_{ij} + b + \langle V c, h_{ij} \rangle

    Args:
        in_channels: of the source.
        condition_dim: length of the condition vector, 0 for none.
        channels: of the image: 1 for grey, 3 for RGB.
        width: channels of the first feature map.
    """

    def __init__(self, in_channels: int = 1, *, condition_dim: int = 0, channels: int = 3, width: int = 32) -> None:
        super().__init__()
        check_counts(width=width)
        self.in_channels, self.condition_dim, self.channels = in_channels, condition_dim, channels
        self.features = nn.Sequential(
            nn.Conv2d(channels + in_channels, width, kernel_size=4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, kernel_size=4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 2 * width, kernel_size=3, padding=1),
            nn.LeakyReLU(0.2),
        )
        self.head = ProjectionHead(2 * width, condition_dim)

    def forward(self, image: Tensor, source: Tensor, condition: Tensor | None = None) -> Tensor:
        """Maps images (B, channels, H, W), sources (B, in_channels, H, W) and the condition to logits (B, H/4, W/4).

        Raises:
            ValueError: another shape, whole numbers, or sides that are no multiples of 4.
        """
        _check_source(source, self.in_channels, 2)
        check_floating("image", image, len(source), self.channels, *source.shape[2:])
        check_condition(condition, len(source), self.condition_dim)
        features = self.features(torch.cat([image, source], dim=1))
        return self.head(features.movedim(1, -1), condition)


def _check_source(source: Tensor, channels: int, halvings: int) -> None:
    check_floating("source", source, "B", channels, "H", "W")
    if any(side % 2**halvings for side in source.shape[2:]):
        raise ValueError(f"source is {tuple(source.shape[2:])} pixels; expected multiples of {2**halvings}.")
