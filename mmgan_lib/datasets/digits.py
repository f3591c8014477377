"""Handwritten digits, each with a voice and a word that say the same digit."""

from __future__ import annotations

import os
from functools import cache, cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mmgan_lib import runtime
from mmgan_lib.datasets.batch import Batch, Index
from mmgan_lib.datasets.digit_sources import Recordings, fsdd, mnist
from mmgan_lib.datasets.download import DataUnavailable
from mmgan_lib.datasets.synthetic import synthetic_speech

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class SpokenDigits:
    """MNIST images paired with voices that say the digit.

    The images are MNIST (LeCun, Cortes & Burges, CC BY-SA 3.0), 28×28 with a border to 32×32: 60,000 to train with
    and 10,000 to test with. The voices are those of people, the Free Spoken Digit Dataset (Jackson et al., CC BY-SA
    4.0): 3,000 recordings of six speakers, of which 0–4 of each speaker and digit are the test split; or those of the
    synthetic speech that ships with this library. Sounds are cut or padded with silence to one second. Each image
    has a recording of its digit from its own split.

    ``digits[index]`` is a :class:`Batch` of ``image`` (B, 1, 32, 32), ``waveform`` (B, 8000), one second at 8 kHz,
    ``label`` (B,) and ``text``, the number words. A batch is put together when it is asked for: the sounds of all
    60,000 images at once would take 2 GB. Nothing is read or downloaded for the sounds before one is asked for.

    Args:
        train: the training split, else the test split.
        n: how many images are kept; None for all, in their order.
        seed: draws which images are kept, and which recording each has.
        root: a data folder with ``mnist/MNIST/raw/*-ubyte``, ``fsdd/recordings/*.wav`` or both; None for the one that
            ``MMGAN_DATA`` names. Where to look for what it does not hold:
            :func:`~mmgan_lib.datasets.digit_sources.mnist` and :func:`~mmgan_lib.datasets.digit_sources.fsdd`.
        voices: ``"people"``, ``"synthetic"``, or None for people where their recordings can be had. Whether they can be
            downloaded is tried once in a process.

    Attributes:
        image: the images, (N, 1, 32, 32) float32 in [-1, 1], ink is 1.
        label: their digits, (N,) int64.

    Raises:
        DataUnavailable: MNIST, or the recordings of people where they are asked for, cannot be had.
        FileNotFoundError: there is no such data folder, or it holds one of the two sets in part.
        ValueError: a file in the data folder is damaged, there are not ``n`` images, or no such voices.

    >>> SpokenDigits(train=False, n=100).pictures()
    Batch of 100: image (1, 32, 32), label ()
    """

    def __init__(
        self,
        train: bool = True,
        n: int | None = None,
        seed: int = 0,
        root: str | Path | None = None,
        *,
        voices: Literal["people", "synthetic"] | None = None,
    ) -> None:
        if voices not in ("people", "synthetic", None):
            raise ValueError(f"voices is {voices!r}; expected 'people', 'synthetic' or None.")
        pixels, label = mnist(train, root)
        self._generator = torch.Generator().manual_seed(2 * seed + train)
        if n is not None:
            if not 1 <= n <= len(label):
                raise ValueError(f"n must lie between 1 and the {len(label)} images of this split, found {n}.")
            kept = torch.randperm(len(label), generator=self._generator)[:n]
            pixels, label = pixels[kept], label[kept]
        self.image = F.pad(pixels, (2, 2, 2, 2)) / 127.5 - 1
        self.label = label
        self._train, self._root, self._asked = train, root, voices

    @cached_property
    def people(self) -> bool:
        """True if those who speak are people."""
        if self._asked is None:
            return people_can_be_had(str(self._root or os.environ.get("MMGAN_DATA", "")))
        return self._asked == "people"

    @cached_property
    def recordings(self) -> Recordings:
        """The recordings of the split, each shared by the images that drew it."""
        if self.people:
            return fsdd(self._train, self._root)
        if self._asked is None:
            runtime.stood_in("synthetic speech for the Free Spoken Digit Dataset")
        return synthetic_speech(self._train)

    @cached_property
    def pairing(self) -> Tensor:
        """The index of each image's recording, (N,) int64."""
        pairing = torch.empty_like(self.label)
        for digit in range(10):
            images, takes = (self.label == digit).nonzero()[:, 0], (self.recordings.digits == digit).nonzero()[:, 0]
            pairing[images] = takes[torch.randint(len(takes), images.shape, generator=self._generator)]
        return pairing

    @property
    def voices(self) -> str:
        """A description of the voices: ``"6 people (Free Spoken Digit Dataset)"``."""
        whose = "people (Free Spoken Digit Dataset)" if self.people else "synthetic voices (espeak-ng)"
        return f"{len(self.speakers)} {whose}"

    @property
    def speakers(self) -> tuple[str, ...]:
        """The names of those who speak, in alphabetical order."""
        return tuple(sorted(set(self.recordings.speakers)))

    @property
    def speaker(self) -> Tensor:
        """The speaker of each image's recording, as an index into ``speakers``, (N,) int64."""
        rank = {name: i for i, name in enumerate(self.speakers)}
        return torch.tensor([rank[name] for name in self.recordings.speakers])[self.pairing]

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, index: Index) -> Batch:
        at = torch.arange(len(self))[index].reshape(-1)
        label = self.label[at]
        waveform = self.recordings.waveforms[self.pairing[at]] / 2**15
        return Batch(
            image=self.image[at], waveform=waveform, label=label, text=tuple(WORDS[digit] for digit in label.tolist())
        )

    def pictures(self) -> Batch:
        """Returns all images with their labels and nothing else; no sound is read for it."""
        return Batch(image=self.image, label=self.label)


@cache
def people_can_be_had(folder: str) -> bool:
    """Tests whether the recordings of people are in a data folder ("" for none) or can be downloaded.

    The answer stands for the whole process: a closed network lets one wait half a minute for it.
    """
    try:
        fsdd(train=False, root=folder or None)
    except DataUnavailable:
        return False
    return True
