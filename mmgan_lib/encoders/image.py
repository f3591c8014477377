"""A residual network for small images."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from mmgan_lib.checks import check_range, check_shape
from mmgan_lib.encoders.base import Encoder

STANDARDISED = 10.0  # standardised and noisy images stay below, images that nobody scaled (0 to 255) do not


class ImageEncoder(Encoder):
    """A small ResNet (He et al., 2016), built from torchvision's residual blocks.

    A strided convolution and three blocks, the last two of which halve the sides again: a 32×32 image ends as a
    4×4 map, whose cells are the sequence, row by row.

    Args:
        out_dim: length of the vector.
        channels: 1 for grey images, 3 for RGB.
        width: channels of the first feature map; each block but the first doubles them.
    """

    def __init__(self, out_dim: int = 128, *, channels: int = 3, width: int = 32) -> None:
        super().__init__()
        self.out_dim, self.channels = out_dim, channels
        widths = [width, width, 2 * width, 4 * width]
        stem = [nn.Conv2d(channels, width, kernel_size=3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width)]
        blocks = [_residual_block(before, after) for before, after in pairwise(widths)]
        to_vector = nn.Conv2d(widths[-1], out_dim, kernel_size=1)
        self.feature_map = nn.Sequential(*stem, nn.ReLU(), *blocks, to_vector)

    def sequence(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Maps images (B, channels, H, W) in [-1, 1] to the cells of their feature maps, (B, H/8 · W/8, out_dim).

        Raises:
            ValueError: Another number of channels, or values that cannot be an image in [-1, 1]; on a GPU they are not
                looked at in training.
        """
        check_shape("image", image, "B", self.channels, "H", "W")
        check_range("image", image, STANDARDISED, "floating point in [-1, 1]", training=self.training)
        return cells(self.feature_map(image))


def cells(feature_map: Tensor) -> tuple[Tensor, Tensor]:
    """Flattens feature maps (B, D, H, W) into sequences of cells (B, H·W, D), with their mask, all True.

    >>> states, mask = cells(torch.arange(8.0).reshape(1, 2, 2, 2))
    >>> states
    tensor([[[0., 4.], [1., 5.], [2., 6.], [3., 7.]]])
    """
    states = feature_map.flatten(2).mT
    return states, torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)


def _residual_block(before: int, after: int) -> nn.Module:
    from torchvision.models.resnet import BasicBlock

    if before == after:
        return BasicBlock(before, after)
    shortcut = nn.Sequential(nn.Conv2d(before, after, kernel_size=1, stride=2, bias=False), nn.BatchNorm2d(after))
    return BasicBlock(before, after, stride=2, downsample=shortcut)
