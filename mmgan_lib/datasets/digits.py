"""Handwritten digits, each with a sound and a word that say the same digit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cache, cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from mmgan_lib.datasets.batch import Batch, Index
from mmgan_lib.datasets.recorded import SAMPLE_RATE, fsdd, mnist

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

# What each telephone key sounds like (ITU-T Recommendation Q.23): one tone for its row, one for its column, in Hz.
DIAL_TONES = {
    1: (697, 1209),
    2: (697, 1336),
    3: (697, 1477),
    4: (770, 1209),
    5: (770, 1336),
    6: (770, 1477),
    7: (852, 1209),
    8: (852, 1336),
    9: (852, 1477),
    0: (941, 1336),
}


class Digits(ABC):
    """Pictures of digits, each paired with a sound of the same digit: what `DialDigits` and `SpokenDigits` share.

    `digits[index]` is a `Batch` of `image` (B, 1, 32, 32), `wave` (B, 8000), one second at 8 kHz, `label` (B,) and
    `text`, the number words. A batch is put together when it is asked for: the sounds of all 60,000 pictures at once
    would take 2 GB.
    """

    def __init__(self, pixels: Tensor, label: Tensor, *, n: int | None, generator: torch.Generator) -> None:
        """`pixels` (N, 1, 32, 32) uint8; of these the generator draws the `n` that are kept (None: all, in order)."""
        if n is not None:
            if not 1 <= n <= len(label):
                raise ValueError(f"n must lie between 1 and the {len(label)} pictures of this split, found {n}.")
            kept = torch.randperm(len(label), generator=generator)[:n]
            pixels, label = pixels[kept], label[kept]
        self.image = pixels / 127.5 - 1  # (N, 1, 32, 32) float32, ink is 1
        self.label = label  # (N,) int64
        self._generator = generator

    @property
    @abstractmethod
    def sound(self) -> tuple[Tensor, Tensor]:
        """The recordings, (R, 8000) int16, and which of them belongs to each picture, (N,) int64."""

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, index: Index) -> Batch:
        at = torch.arange(len(self))[index].reshape(-1)
        recordings, paired = self.sound
        label = self.label[at]
        text = tuple(WORDS[digit] for digit in label.tolist())
        return Batch(image=self.image[at], wave=recordings[paired[at]] / 2**15, label=label, text=text)

    def pictures(self) -> Batch:
        """All pictures with their labels and nothing else; no sound is made or read for it."""
        return Batch(image=self.image, label=self.label)


class DialDigits(Digits):
    """Real handwritten digits with the tones that a telephone dials them with; needs no download.

    The pictures are the 1,797 of the UCI set that scikit-learn ships (Alpaydin & Kaynak 1998, CC BY 4.0), 8×8 pixels
    enlarged to 32×32: 1,437 to train with and 360 to test with, the same for every seed. `seed` draws the sounds, one
    for each picture, and which `n` pictures are kept. Raises ValueError if there are not `n`.

    >>> digits = DialDigits(train=False, n=100)
    >>> digits[:8]
    Batch of 8: image (1, 32, 32), wave (8000,), label (), text
    >>> digits.pictures()
    Batch of 100: image (1, 32, 32), label ()
    """

    def __init__(self, train: bool = True, n: int | None = None, seed: int = 0) -> None:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        images, labels = load_digits(return_X_y=True)
        splits = train_test_split(images, labels, test_size=360, stratify=labels, random_state=0)
        images, labels = map(torch.from_numpy, splits[0::2] if train else splits[1::2])
        small = images.reshape(-1, 1, 8, 8) * (255 / 16)
        pixels = F.interpolate(small, size=32, mode="bicubic").round().clamp(0, 255).byte()
        super().__init__(pixels, labels.long(), n=n, generator=_generator(seed, train))

    @cached_property
    def sound(self) -> tuple[Tensor, Tensor]:
        """A tone for each picture."""
        tones = [dial_tone(digit, generator=self._generator) for digit in self.label.tolist()]
        return (torch.stack(tones) * 2**15).round().short(), torch.arange(len(self))


class SpokenDigits(Digits):
    """MNIST pictures paired with people saying the digit.

    The pictures are MNIST (LeCun, Cortes & Burges, CC BY-SA 3.0), 28×28 with a border to 32×32: 60,000 to train with
    and 10,000 to test with. The sounds are the Free Spoken Digit Dataset (Jackson et al., CC BY-SA 4.0), 3,000
    recordings of six speakers, cut or padded with silence to one second; recordings 0–4 of each speaker and digit are
    the test split. Each picture has a recording of its digit from its own split; `seed` draws which one, and which `n`
    pictures are kept.

    Both sets are read from the folder `root`, else from the one that `MMGAN_DATA` names (`mnist/MNIST/raw/*-ubyte` and
    `fsdd/recordings/*.wav`), else downloaded on first use: 12 MB of pictures, and about 16 MB of sounds when the
    first sound is asked for. Wherever they come from, the sha256 of their content is checked.

    Raises DataUnavailable if a download fails, FileNotFoundError or ValueError if the folder lacks a file or holds a
    damaged one, and ValueError if there are not `n` pictures.
    """

    def __init__(self, train: bool = True, n: int | None = None, seed: int = 0, root: str | Path | None = None) -> None:
        images, labels = mnist(train, root)
        super().__init__(F.pad(images, (2, 2, 2, 2)), labels, n=n, generator=_generator(seed, train))
        self._train, self._root = train, root

    @cached_property
    def sound(self) -> tuple[Tensor, Tensor]:
        """The recordings of the split, each shared by the pictures that drew it."""
        recordings, spoken = fsdd(self._train, self._root)
        paired = torch.empty_like(self.label)
        for digit in range(10):
            pictures, takes = (self.label == digit).nonzero()[:, 0], (spoken == digit).nonzero()[:, 0]
            paired[pictures] = takes[torch.randint(len(takes), pictures.shape, generator=self._generator)]
        return recordings, paired


def _generator(seed: int, train: bool) -> torch.Generator:
    """Two streams from one seed, so that the splits share no tone."""
    return torch.Generator().manual_seed(2 * seed + train)


def dial_tone(digit: int, *, generator: torch.Generator | None = None) -> Tensor:
    """A telephone key held down for a moment on a noisy line: (8000,) float64, one second at 8 kHz.

    Drawn at random: duration 0.1 to 0.6 s, level 0.1 to 0.8 of full scale, standard deviation of the noise 0.001 to
    0.02.

    >>> dial_tone(5).shape
    torch.Size([8000])
    """
    seconds, level, noise = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    seconds, level, noise = 0.1 + 0.5 * seconds, 0.1 + 0.7 * level, 0.001 + 0.019 * noise
    signal = noise * torch.randn(SAMPLE_RATE, generator=generator, dtype=torch.float64)
    held = int(seconds * SAMPLE_RATE)
    signal[:held] += level * key_tone(digit)[:held]
    return signal


@cache
def key_tone(digit: int) -> Tensor:
    """What a telephone key sounds like, (8000,) float64: (sin 2πf₁t + sin 2πf₂t)/2 with the f₁ and f₂ of `DIAL_TONES`.

    >>> spectrum = torch.fft.rfft(key_tone(5)).abs()  # one second, so bin f is f Hz
    >>> spectrum.topk(2).indices.sort().values
    tensor([ 770, 1336])
    """
    t = torch.arange(SAMPLE_RATE, dtype=torch.float64) / SAMPLE_RATE
    low, high = DIAL_TONES[digit]
    return (torch.sin(2 * torch.pi * low * t) + torch.sin(2 * torch.pi * high * t)) / 2
