"""The images of ``Shapes``: one anti-aliased shape on a background that varies.

Pixels are computed with +, -, ×, ÷, √, minimum, maximum and floor alone, which IEEE 754 rounds alike on every machine:
from the same random numbers comes the same image everywhere, to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import reduce

import torch
from torch import Tensor

# Signed distances of shapes about as large as the unit circle, at points x to the right and y downwards: negative
# inside, and near an edge the distance to it.


def _circle(x: Tensor, y: Tensor) -> Tensor:
    return _length(x, y) - 0.95


def _ring(x: Tensor, y: Tensor) -> Tensor:
    return (_length(x, y) - 0.75).abs() - 0.25


def _square(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - 0.8


def _cross(x: Tensor, y: Tensor) -> Tensor:
    """Returns the distance to the union of two bars."""
    x, y = x.abs(), y.abs()
    return torch.minimum(torch.maximum(x - 1, y - 0.33), torch.maximum(x - 0.33, y - 1))


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    return _polygon(x, -y, count=3, inradius=0.58)


def _hexagon(x: Tensor, y: Tensor) -> Tensor:
    """Returns the distance to the shape of images that tell none: not one of those that have a name."""
    return _polygon(x, y, count=6, inradius=0.85)


def _polygon(x: Tensor, y: Tensor, *, count: int, inradius: float) -> Tensor:
    """Takes the largest distance, since a point is inside where it is inside of every edge."""
    return reduce(torch.maximum, _edges(x, y, count=count, inradius=inradius))


def _star(x: Tensor, y: Tensor) -> Tensor:
    """Takes the second largest distance: a point is inside a pentagram where it is inside of at least four lines."""
    largest = second = torch.full_like(x, -math.inf)
    for edge in _edges(x, y, count=5, inradius=0.37):
        second = torch.maximum(second, torch.minimum(largest, edge))
        largest = torch.maximum(largest, edge)
    return second


def _length(x: Tensor, y: Tensor) -> Tensor:
    return (x * x + y * y).sqrt()


def _edges(x: Tensor, y: Tensor, *, count: int, inradius: float) -> Iterator[Tensor]:
    """Yields distances beyond the lines around a regular polygon, the first of which lies above."""
    for k in range(count):
        angle = 2 * math.pi * k / count
        yield x * round(math.sin(angle), 6) - y * round(math.cos(angle), 6) - inradius


# What each value of each attribute looks like. Lengths are in half widths of the image, from its centre.
SHAPES = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
}
COLOURS = {
    "red": (0.90, 0.14, 0.16),
    "orange": (0.98, 0.54, 0.10),
    "yellow": (0.98, 0.92, 0.22),
    "green": (0.18, 0.70, 0.28),
    "blue": (0.20, 0.38, 0.95),
    "purple": (0.58, 0.22, 0.78),
    "pink": (0.98, 0.58, 0.76),
}
RADII = {"small": 0.26, "medium": 0.37, "large": 0.52}
PLACES = {
    "top left": (-0.46, -0.46),
    "top": (0.0, -0.46),
    "top right": (0.46, -0.46),
    "left": (-0.46, 0.0),
    "centre": (0.0, 0.0),
    "right": (0.46, 0.0),
    "bottom left": (-0.46, 0.46),
    "bottom": (0.0, 0.46),
    "bottom right": (0.46, 0.46),
}
MOTIONS = {
    "still": (0.0, 0.0),
    "leftwards": (-1.0, 0.0),
    "rightwards": (1.0, 0.0),
    "upwards": (0.0, -1.0),
    "downwards": (0.0, 1.0),
}
GREY = (0.65, 0.65, 0.65)  # the colour of a shape whose colour is not told
TRAVEL = 0.5  # from a clip's first frame to its last
DRAWS = 14  # random numbers that an image takes, besides the noise of each pixel


def paint(
    draws: Tensor, noise: Tensor, told: Mapping[str, Tensor], *, shift: Tensor | None = None, striped: bool = False
) -> Tensor:
    """Paints images (B, 3, S, S) of values 0…255 in uint8, S being the side of ``noise``.

    Args:
        draws: (B, DRAWS) float32 in [0, 1): where exactly, how large, how far turned, which tone, which background.
        noise: (B, 3, S, S) float32 in [-1, 1], added to the pixels at a strength that is drawn too.
        told: the values (B,) int64 of those of shape, colour, size and place that the images tell. An attribute that
            is missing here is drawn neutral: a hexagon, grey, medium, at the centre.
        shift: (B, 2) float32, how far the shape has moved to the right and downwards.
        striped: on a ground that is bright and striped, where it is else dark and plain.
    """
    right, down, zoom, turn, *tone, shade, red, green, blue, tilt_x, tilt_y, grain = draws.T[..., None, None]
    grid = (torch.arange(noise.shape[-1]) + 0.5) * (2 / noise.shape[-1]) - 1
    x, y = grid, grid[:, None]

    centre = _value(PLACES, told.get("place"), PLACES["centre"])
    centre = centre if shift is None else centre + shift
    centre_x, centre_y = centre.T[..., None, None]
    radius = _value(RADII, told.get("size"), RADII["medium"])[..., None, None] * _within(0.92, 1.08, zoom)
    u, v = _turned(
        (x - centre_x - _within(-0.05, 0.05, right)) / radius,
        (y - centre_y - _within(-0.05, 0.05, down)) / radius,
        _within(-0.13, 0.13, turn),
    )
    covered = _coverage(_distance(u, v, told.get("shape")) * radius * (noise.shape[-1] / 2))[:, None]

    ink = _value(COLOURS, told.get("colour"), GREY)[..., None, None] + _within(-0.05, 0.05, torch.stack(tone, dim=1))
    tint = _within(-0.06, 0.06, torch.stack([red, green, blue], dim=1))
    gradient = _within(-0.1, 0.1, tilt_x) * x + _within(-0.1, 0.1, tilt_y) * y
    level = _within(0.55, 0.85, shade) + _stripes(30 * gradient) if striped else _within(0.05, 0.35, shade)
    ground = tint + (level + gradient)[:, None]

    image = ground + covered * (ink - ground) + noise * _within(0.01, 0.05, grain)[:, None]
    return (image.clamp(0, 1) * 255 + 0.5).floor().byte()


def _stripes(t: Tensor) -> Tensor:
    """Computes a triangle wave between -0.15 and 0.15, of period 1."""
    return 0.6 * (t - t.floor() - 0.5).abs() - 0.15


def film(draws: Tensor, noise: Tensor, told: Mapping[str, Tensor], motion: Tensor, *, striped: bool = False) -> Tensor:
    """Paints clips (B, F, 3, S, S) uint8 of a shape that moves by ``TRAVEL`` about its place; ``noise`` likewise.

    ``motion`` (B,) int64 is an index of ``MOTIONS``; for the rest see ``paint``.
    """
    frames = noise.shape[1]
    progress = torch.arange(frames) / (frames - 1) - 0.5
    shift = TRAVEL * progress[:, None] * torch.tensor(list(MOTIONS.values()))[motion][:, None]
    told = {name: value.repeat_interleave(frames) for name, value in told.items()}
    draws, noise, shift = draws.repeat_interleave(frames, dim=0), noise.flatten(0, 1), shift.flatten(0, 1)
    painted = paint(draws, noise, told, shift=shift, striped=striped)
    return painted.unflatten(0, (-1, frames))


def _value(table: Mapping[str, float | tuple[float, ...]], index: Tensor | None, neutral: object) -> Tensor:
    """Returns rows of a table, (B,) or (B, D), or the neutral value as the one row."""
    return torch.tensor([neutral]) if index is None else torch.tensor(list(table.values()))[index]


def _within(low: float, high: float, draw: Tensor) -> Tensor:
    return low + (high - low) * draw


def _turned(x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Rotates by 2·arctan t, whose cosine is (1 - t²)/(1 + t²) and whose sine is 2t/(1 + t²)."""
    cos, sin = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    return x * cos + y * sin, y * cos - x * sin


def _distance(x: Tensor, y: Tensor, shape: Tensor | None) -> Tensor:
    if shape is None:
        return _hexagon(x, y)
    distance = torch.empty_like(x)
    for k, signed_distance in enumerate(SHAPES.values()):
        rows = shape == k
        distance[rows] = signed_distance(x[rows], y[rows])
    return distance


def _coverage(distance: Tensor) -> Tensor:
    """Computes a pixel's covered share from its distance d to the edge in pixels: 3c² - 2c³, c = ½ - d."""
    c = (0.5 - distance).clamp(0, 1)
    return c * c * (3 - 2 * c)
