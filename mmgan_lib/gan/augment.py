r"""Differentiable augmentation: the discriminator seldom sees an image twice (DiffAugment; Zhao et al., 2020).

Each function T maps images (B, C, H, W) to the same shape, draws a change for each image by itself from PyTorch's
global random numbers, and lets gradients through. In the game, T stands wherever the discriminator looks, so that it
judges :math:`D(T(x))` against :math:`D(T(G(z)))`. Were only the real images changed, changed images would be what
the generator learned to draw.
"""

from collections.abc import Callable, Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

Augmentation = Callable[[Tensor], Tensor]


def _uniform(image: Tensor, low: float, high: float) -> Tensor:
    """Draws a number in [low, high) for each image, (B, 1, 1, 1)."""
    return low + (high - low) * torch.rand(len(image), 1, 1, 1, device=image.device, dtype=image.dtype)


def brightness(image: Tensor) -> Tensor:
    r"""Adds one number to all of an image: :math:`x + b`, b in [-0.5, 0.5).

    >>> shift = brightness(torch.zeros(2, 3, 8, 8))
    >>> bool((shift == shift[:, :1, :1, :1]).all() and (shift.abs() <= 0.5).all())
    True
    """
    return image + _uniform(image, -0.5, 0.5)


def saturation(image: Tensor) -> Tensor:
    r"""Moves each pixel to or from the mean of its channels: :math:`\bar x + s (x - \bar x)`, s in [0, 2).

    An image with one channel stays as it is.
    """
    grey = image.mean(dim=1, keepdim=True)
    return torch.lerp(grey, image, _uniform(image, 0, 2))


def contrast(image: Tensor) -> Tensor:
    r"""Moves all values to or from the mean m of the image: :math:`m + c (x - m)`, c in [0.5, 1.5)."""
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean, image, _uniform(image, 0.5, 1.5))


def translate(image: Tensor, share: float = 1 / 8) -> Tensor:
    """Shifts an image by up to a share of its sides; what comes in from outside is 0, a middle grey."""
    batch, channels, height, width = image.shape
    down, right = round(share * height), round(share * width)
    padded = F.pad(image, (right, right, down, down))
    top = torch.randint(2 * down + 1, (batch, 1, 1, 1), device=image.device)
    left = torch.randint(2 * right + 1, (batch, 1, 1, 1), device=image.device)
    rows = top + torch.arange(height, device=image.device)[:, None]
    columns = left + torch.arange(width, device=image.device)
    strip = padded.gather(2, rows.expand(-1, channels, -1, padded.shape[3]))
    return strip.gather(3, columns.expand(-1, channels, height, -1))


def cutout(image: Tensor) -> Tensor:
    """Sets a rectangle with half the sides of the image to 0; its centre lies anywhere in the image.

    >>> left = cutout(torch.ones(100, 3, 8, 8)).mean(dim=(1, 2, 3))
    >>> left.min().item()  # a quarter is gone, or less where the rectangle crosses an edge
    0.75
    """
    hidden = [_covered(len(image), side, image.device) for side in image.shape[2:]]
    return image * ~(hidden[0][:, None, :, None] & hidden[1][:, None, None, :])


def _covered(batch: int, side: int, device: torch.device) -> Tensor:
    """Draws a stretch of half a side with its centre anywhere on it, (B, side) bool."""
    start = torch.randint(side + 1, (batch, 1), device=device) - side // 4
    offset = torch.arange(side, device=device) - start
    return (offset >= 0) & (offset < side // 2)


DIFF_AUGMENT = (brightness, saturation, contrast, translate, cutout)


def diff_augment(image: Tensor, steps: Sequence[Augmentation] = DIFF_AUGMENT) -> Tensor:
    """Applies all steps, one after the other: colour, translation and cutout, the strongest policy of the paper.

    Args:
        image: (B, C, H, W) in [-1, 1]; what comes out may lie outside.
        steps: augmentations of images.

    Raises:
        ValueError: ``image`` is not (B, C, H, W) floating point.

    >>> diff_augment(torch.zeros(4, 3, 32, 32)).shape
    torch.Size([4, 3, 32, 32])
    """
    if image.ndim != 4 or not image.is_floating_point():
        raise ValueError(f"image: found {tuple(image.shape)} {image.dtype}; expected (B, C, H, W) floating point.")
    return reduce(lambda x, step: step(x), steps, image)
