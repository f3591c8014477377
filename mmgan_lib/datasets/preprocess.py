"""Readers of image and sound files of many kinds, into tensors of one kind."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mmgan_lib.checks import check_counts

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP", "GIF")  # torchvision's and GIF; Pillow tries no other
STATISTICS = {  # name → mean and standard deviation of red, green and blue in [0, 1]
    "symmetric": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
RATES = range(1_000, 400_001)  # Hz, of sounds


@dataclass(frozen=True)
class Preprocess:
    """The way from an image of any size to the tensor that a network takes.

    Args:
        size: height and width of the result, in pixels.
        fit: how an image that is not square becomes one: ``"crop"`` keeps the square in its middle, ``"pad"`` frames
            the whole image in black, ``"stretch"`` distorts it.
        normalise: ``"symmetric"`` for values in [-1, 1], what a GAN takes and gives, or ``"imagenet"`` for the mean and
            standard deviation that torchvision's pretrained networks expect, usually with ``size=224``.
        augment: a transform of :mod:`torchvision.transforms.v2`, or several in its ``Compose``, for training alone,
            such as ``RandomCrop(32, padding=4)``. A caption must stay true: after ``RandomHorizontalFlip`` what was
            on the left is on the right.

    Raises:
        ValueError: a size below 1, or an unknown fit or normalisation.

    >>> from PIL import Image
    >>> wide = Image.new("RGB", (40, 20), "white")
    >>> Preprocess(size=4, fit="pad")(wide)[0]
    tensor([[-1., -1., -1., -1.],
            [ 1.,  1.,  1.,  1.],
            [ 1.,  1.,  1.,  1.],
            [-1., -1., -1., -1.]])
    """

    size: int = 32
    fit: str = "crop"
    normalise: str = "symmetric"
    augment: Callable[[Image], Image] | None = None

    def __post_init__(self) -> None:
        check_counts(size=self.size)
        if self.fit not in ("crop", "pad", "stretch"):
            raise ValueError(f"fit is {self.fit!r}; expected crop, pad or stretch.")
        if self.normalise not in STATISTICS:
            raise ValueError(f"normalise is {self.normalise!r}; expected one of {', '.join(STATISTICS)}.")

    def __call__(self, image: Image, *, train: bool = False) -> Tensor:
        """Maps an image in mode RGB to (3, size, size) float32; ``train`` augments it.

        Raises:
            ValueError: the augmentation changes the size, or gives no image of Pillow's.
        """
        from PIL import Image
        from torchvision.transforms.v2 import functional as transform

        image = self._square(image)
        if train and self.augment is not None:
            image = self.augment(image)
            if not isinstance(image, Image.Image):
                raise ValueError(f"augment gives {type(image)}; expected a PIL.Image, as it takes.")
            if image.size != (self.size, self.size):
                found = "×".join(map(str, image.size))
                raise ValueError(f"augment gives {found} pixels; expected {self.size}×{self.size}.")
        pixels = transform.to_dtype(transform.pil_to_tensor(image), torch.float32, scale=True)
        return transform.normalize(pixels, *STATISTICS[self.normalise])

    def _square(self, image: Image) -> Image:
        from torchvision.transforms.v2 import functional as transform

        if self.fit == "pad":
            shrink = self.size / max(image.size)
            image = transform.resize(image, [max(1, round(side * shrink)) for side in (image.height, image.width)])
            return transform.center_crop(image, [self.size])  # where there is nothing to crop it adds black
        if self.fit == "crop":
            image = transform.center_crop(image, [min(image.size)])
        return transform.resize(image, [self.size, self.size])


def image_extensions() -> set[str]:
    """Returns the extensions, in lower case and with their dot, of files that :func:`read_image` decodes.

    >>> sorted(image_extensions() & {".jfif", ".gif", ".heic"})
    ['.gif', '.jfif']
    """
    from PIL import Image

    return {extension for extension, name in Image.registered_extensions().items() if name in FORMATS}


def read_image(path: Path) -> Image:
    """Reads the image in a file, upright and in mode RGB; of several frames the first.

    A transparent image is laid on white; 16-bit grey values are divided by 257, so that 65535 becomes 255. Where a
    broken EXIF block hides which side is up, a warning says so, and the image stays as it is stored.

    Raises:
        ValueError: it cannot be decoded, or is so large that it may be a decompression bomb.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                _scale_transparent_shade(image)
                image.load()
                return _rgb(_upright(image, path))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        limit = f"the {Image.MAX_IMAGE_PIXELS:,} that PIL.Image.MAX_IMAGE_PIXELS allows"
        raise ValueError(f"{path} has more pixels than {limit}; it may be a decompression bomb.") from error
    except Exception as error:  # Pillow's decoders raise nearly every kind
        raise ValueError(f"{path} cannot be decoded as an image ({error}).") from error


def _scale_transparent_shade(image: Image) -> None:
    """Scales a PNG's transparent shade to 8 bits, as Pillow does with the pixels but not with it."""
    shade = image.info.get("transparency")
    kind = image.tile[0][3] if image.format == "PNG" and shade is not None else None
    if kind in ("L;2", "L;4"):
        image.info["transparency"] = shade * {"L;2": 85, "L;4": 17}[kind]
    elif kind == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in shade)


def _upright(image: Image, path: Path) -> Image:
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception as error:  # what it raises differs between Pillow's versions
        warnings.warn(f"{path} has a broken EXIF block ({error}); it is read as stored.", stacklevel=3)
        return image


def _rgb(image: Image) -> Image:
    from PIL import Image

    if image.mode[0] in "IF":
        values = np.array(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise ValueError(f"mode {image.mode} with values {values.min()} to {values.max()}, expected 8 or 16 bits")
        values[values == image.info.get("transparency", -1)] = 65535
        image = Image.fromarray((values / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def read_waveform(path: Path, *, sample_rate: int, seconds: float) -> Tensor:
    """Reads at most ``seconds`` of a sound, (S,) float32 in [-1, 1] at ``sample_rate`` Hz.

    Channels are averaged. Another rate is resampled by a polyphase filter, so that frequencies above half of
    ``sample_rate`` are removed and not folded back as false ones (Crochiere & Rabiner, 1983).

    Raises:
        ValueError: it cannot be decoded, is empty, or has a rate or values that no sound has.
    """
    import soundfile
    from scipy.signal import resample_poly

    try:
        with path.open("rb") as file, soundfile.SoundFile(file) as sound:
            rate = sound.samplerate
            if rate not in RATES:
                raise ValueError(f"{path} has {rate:,} samples a second; expected {RATES.start:,} to {RATES[-1]:,}.")
            heard = sound.read(int((seconds + 1) * rate), dtype="float32", always_2d=True)  # the filter looks ahead
    except (OSError, RuntimeError, TypeError) as error:
        reason = getattr(error, "error_string", error)  # libsndfile's words, without the name of the file object
        raise ValueError(f"{path} cannot be decoded as a sound ({reason}).") from error
    if len(heard) == 0:
        raise ValueError(f"{path} holds no sound: it has 0 samples.")
    if not np.isfinite(heard).all():
        raise ValueError(f"{path} holds samples that are infinite or not a number.")
    waveform = resample_poly(heard.mean(axis=1), sample_rate, rate)[: round(seconds * sample_rate)]
    return torch.from_numpy(waveform).clamp(-1, 1)
