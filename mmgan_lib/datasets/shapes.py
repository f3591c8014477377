"""The book's own data: images, captions and sounds of coloured shapes, made from a seed, with the truth known."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from hashlib import sha256

import numpy as np
import torch
from torch import Tensor

from mmgan_lib.checks import check_counts, check_not_negative
from mmgan_lib.datasets import captions, shapes_image, shapes_sound
from mmgan_lib.datasets.batch import Batch, Index

SPLITS = ("train", "test", "held_out")
SHIFTS = ("background", "wording")
PURPOSES = ("attributes", "text", "image", "image noise", "audio", "audio noise", "clip noise")
CHUNK = 128  # samples that are made together, few enough for the cache

VOCABULARIES = {
    "shape": tuple(shapes_image.SHAPES),
    "colour": tuple(shapes_image.COLOURS),
    "size": tuple(shapes_image.RADII),
    "place": tuple(shapes_image.PLACES),
}
SOUNDS_LIKE = {"shape": "timbre", "colour": "pitch", "size": "loudness", "place": "rhythm"}
HELD_OUT_PAIRS = (  # what the shipped painters never saw together
    ("red", "circle"),
    ("blue", "square"),
    ("yellow", "triangle"),
    ("green", "star"),
    ("purple", "cross"),
    ("orange", "ring"),
)
TELLS = {"image": tuple(VOCABULARIES), "text": tuple(VOCABULARIES), "audio": ("shape", "colour")}


class Shapes:
    """Images of one shape each, with a caption and a sound, drawn from a seed; no download, and no end.

    ``shapes[index]`` is a ``Batch`` of ``image`` (B, 3, size, size), ``text``, ``waveform`` (B, 4000), half a second at
    8 kHz, and the truth: ``attributes`` (B, A) int64, column a being ``attribute_names[a]`` and its numbers the places
    in ``vocabularies[name]``. ``shapes[:]`` is all of it at once. Every combination of attributes is equally likely.

    Which modality tells which attribute is for ``tells`` to say, so that what two modalities share, what one knows
    alone, and what only both together reveal can be dialled. What a modality does not tell, it is silent about: a
    caption leaves it out; an image shows a hexagon, grey, of medium size, at the centre; a sound stays in the middle
    of the scale. A modality that ``tells`` does not name is not made.

    Sample i depends on ``seed``, ``split`` and i alone: it is the same for every ``n``, and its attributes are the same
    whatever is told about them. The splits are drawn from streams of random numbers that have nothing in common. All
    arithmetic is such that the content is the same to the last bit on every machine. A modality is made for all n
    samples when it is first asked for, and kept in 16 bits a sample of sound and 8 bits a value of a pixel: 11 kB a
    sample of 32×32.

    Args:
        n: number of samples.
        split: "train", "test", or "held_out" for the combinations that the other two never show.
        seed: any whole number from 0 on.
        size: height and width of the images in pixels; the scenes are the same at every size.
        tells: modality ("image", "text", "audio") → attributes that it tells. For "audio" it can be a mapping from
            attributes to "pitch", "timbre", "loudness" and "rhythm"; ``SOUNDS_LIKE`` is what these are otherwise. The
            default is ``TELLS``: image and caption tell everything, the sound only shape and colour.
        held_out: combinations of values to hold out, such as ``[("red", "circle"), ("large", "star", "top left")]``.
        frames: with 2 or more, each sample also has a ``clip`` (B, frames, 3, size, size) in which the shape of the
            image moves; a fifth attribute, ``motion``, says where to, and nothing but the clip tells it.
        shifts: what is unlike everywhere else: "background" puts the same shapes on bright, striped grounds, "wording"
            tells the same with the same words for it, in sentences of another make.

    Raises:
        ValueError: an argument is none of these, or ``held_out`` leaves its split without a combination.

    >>> shapes = Shapes(1000)
    >>> shapes[:8]
    Batch of 8: image (3, 32, 32), waveform (4000,), text, attributes (4,)
    >>> values = zip(shapes.attribute_names, shapes.attributes[0], strict=True)
    >>> [shapes.vocabularies[name][value] for name, value in values]
    ['star', 'blue', 'small', 'bottom right']
    >>> shapes[0].text
    ('someone drew a tiny cobalt star in the bottom right corner',)
    """

    def __init__(
        self,
        n: int = 10_000,
        *,
        split: str = "train",
        seed: int = 0,
        size: int = 32,
        tells: Mapping[str, Collection[str]] = TELLS,
        held_out: Iterable[Collection[str]] = (),
        frames: int = 0,
        shifts: Collection[str] = (),
    ) -> None:
        check_counts(n=n)
        check_not_negative(seed=seed)
        if split not in SPLITS:
            raise ValueError(f"split is {split!r}; expected one of {', '.join(SPLITS)}.")
        if size < 16 or size % 4:
            raise ValueError(f"size is {size}; expected a multiple of 4 from 16 pixels on.")
        if frames < 0 or frames == 1:
            raise ValueError(f"frames is {frames}; expected 0, for no clips, or at least 2.")
        if isinstance(shifts, str) or not set(shifts) <= set(SHIFTS):
            raise ValueError(f"shifts is {shifts!r}; expected a collection of some of {', '.join(SHIFTS)}.")
        self.shifts = tuple(shifts)
        self.n, self.split, self.seed, self.size, self.frames = n, split, seed, size, frames
        self.vocabularies = VOCABULARIES | ({"motion": tuple(shapes_image.MOTIONS)} if frames else {})
        self.attribute_names = tuple(self.vocabularies)
        self.tells = _checked_tells(tells)
        if frames and "image" not in self.tells:
            raise ValueError("frames asks for clips, which show what tells['image'] names, but tells has no 'image'.")
        self._combinations = _combinations(self.vocabularies, held_out, split)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: Index) -> Batch:
        at = torch.arange(self.n)[index].reshape(-1)
        return Batch(
            image=self.pixels[at] / 127.5 - 1 if "image" in self.tells else None,
            waveform=self.sounds[at] / 32768 if "audio" in self.tells else None,
            text=tuple(self.text[i] for i in at.tolist()) if "text" in self.tells else None,
            clip=self.clips[at] / 127.5 - 1 if self.frames else None,
            attributes=self.attributes[at],
        )

    @cached_property
    def attributes(self) -> Tensor:
        """The true values, (n, A) int64."""
        draws = self._draws("attributes", 1)[:, 0]
        return self._combinations[torch.from_numpy(draws * len(self._combinations)).long()]

    @cached_property
    def text(self) -> tuple[str, ...]:
        """A caption for each sample."""
        told = {
            name: [self.vocabularies[name][value] for value in values.tolist()]
            for name, values in self._told("text").items()
        }
        templates = captions.UNSEEN_TEMPLATES if "wording" in self.shifts else captions.TEMPLATES
        return captions.write(self._draws("text", captions.DRAWS), told, templates)

    @cached_property
    def pixels(self) -> Tensor:
        """The images, (n, 3, size, size) uint8."""
        draws, striped = self._scenes(), "background" in self.shifts

        def make(rows: slice, noise: Tensor) -> Tensor:
            return shapes_image.paint(draws[rows], noise, self._told("image", rows), striped=striped)

        return self._made(make, "image noise", 3, self.size, self.size, dtype=torch.uint8)

    @cached_property
    def sounds(self) -> Tensor:
        """The sounds, (n, 4000) int16."""
        draws = torch.from_numpy(self._draws("audio", shapes_sound.DRAWS)).float()
        steps = {self.tells["audio"][name]: self._steps(name) for name in self.tells["audio"]}

        def make(rows: slice, noise: Tensor) -> Tensor:
            return shapes_sound.synthesise(draws[rows], noise, {aspect: step[rows] for aspect, step in steps.items()})

        return self._made(make, "audio noise", shapes_sound.SAMPLES, dtype=torch.int16)

    @cached_property
    def clips(self) -> Tensor:
        """The clips, (n, frames, 3, size, size) uint8."""
        draws, motion, striped = self._scenes(), self.attributes[:, -1], "background" in self.shifts

        def make(rows: slice, noise: Tensor) -> Tensor:
            return shapes_image.film(draws[rows], noise, self._told("image", rows), motion[rows], striped=striped)

        return self._made(make, "clip noise", self.frames, 3, self.size, self.size, dtype=torch.uint8)

    def content_hash(self) -> str:
        """Computes the sha256 of all that the samples hold: the same for the same arguments on every machine."""
        parts = [self.attributes.to(torch.int16)]
        parts += [self.pixels] if "image" in self.tells else []
        parts += [self.sounds] if "audio" in self.tells else []
        parts += [self.clips] if self.frames else []
        digest = sha256("\n".join(self.text).encode() if "text" in self.tells else b"")
        for part in parts:
            digest.update(part.numpy().astype(part.numpy().dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()

    def _told(self, modality: str, rows: slice = slice(None)) -> dict[str, Tensor]:
        """Returns the values of those attributes that a modality tells."""
        return {
            name: self.attributes[rows, column]
            for column, name in enumerate(self.attribute_names)
            if name in self.tells[modality]
        }

    def _steps(self, name: str) -> Tensor:
        """Places each sample's value on a scale of sound: the values are spread over the whole scale."""
        last = len(self.vocabularies[name]) - 1
        steps = torch.tensor([round(value * (shapes_sound.STEPS - 1) / last) for value in range(last + 1)])
        return steps[self._told("audio")[name]]

    def _scenes(self) -> Tensor:
        """Draws the random numbers that images and clips are painted from, (n, DRAWS) float32."""
        return torch.from_numpy(self._draws("image", shapes_image.DRAWS)).float()

    def _stream(self, purpose: str, chunk: int) -> np.random.PCG64:
        """Returns random bits that no other purpose, chunk, split or seed has; NumPy promises never to change them."""
        key = (SPLITS.index(self.split), PURPOSES.index(purpose), chunk)
        return np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=key))

    def _draws(self, purpose: str, count: int) -> np.ndarray:
        """Draws uniform numbers in [0, 1), (n, count) float64: the upper 53 of 64 random bits each."""
        chunks = [self._stream(purpose, chunk).random_raw((CHUNK, count)) for chunk in range(-(-self.n // CHUNK))]
        return (np.concatenate(chunks)[: self.n] >> np.uint64(11)) * 2.0**-53

    def _made(self, make: Callable[[slice, Tensor], Tensor], purpose: str, *shape: int, dtype: torch.dtype) -> Tensor:
        """Calls ``make`` with the rows of each chunk and their noise (B, *shape), which is uniform in [-1, 1]."""
        made = torch.empty(self.n, *shape, dtype=dtype)
        for chunk, start in enumerate(range(0, self.n, CHUNK)):
            rows = slice(start, min(start + CHUNK, self.n))
            bits = self._stream(purpose, chunk).random_raw((rows.stop - start) * math.prod(shape) // 8)
            levels = torch.from_numpy(bits.astype("<u8").view(np.uint8)).view(-1, *shape)
            made[rows] = make(rows, levels / 127.5 - 1)
        return made


def _combinations(vocabularies: Mapping[str, Sequence[str]], held_out: Iterable[Collection[str]], split: str) -> Tensor:
    """Lists the combinations of values that a split draws from, (K, A) int64."""
    every = torch.cartesian_prod(*(torch.arange(len(values)) for values in vocabularies.values()))
    column = {value: a for a, values in enumerate(vocabularies.values()) for value in values}
    out = torch.zeros(len(every), dtype=torch.bool)
    for values in held_out:
        if isinstance(values, str) or not values or not set(values) <= set(column):
            raise ValueError(f"held_out holds {values!r}; expected combinations of values out of {', '.join(column)}.")
        matches = [every[:, column[v]] == tuple(vocabularies.values())[column[v]].index(v) for v in values]
        together = torch.stack(matches).all(0)
        if not together.any():
            raise ValueError(f"held_out holds {values!r}, two values of one attribute; expected at most one of each.")
        out |= together
    drawn = every[out if split == "held_out" else ~out]
    if not len(drawn):
        raise ValueError(f"held_out leaves no combination of attributes to the split {split!r}; expected at least one.")
    return drawn


def _checked_tells(tells: Mapping[str, Collection[str]]) -> dict[str, Collection[str]]:
    """Fills in the aspects of sound in ``tells``, or refuses it."""
    for modality, names in tells.items():
        if modality not in TELLS:
            raise ValueError(f"tells names the modality {modality!r}; expected some of {', '.join(TELLS)}.")
        for name in names:
            if name not in VOCABULARIES:
                raise ValueError(f"tells[{modality!r}] names {name!r}; expected some of {', '.join(VOCABULARIES)}.")
    if "audio" not in tells:
        return dict(tells)
    audio = tells["audio"]
    aspects = dict(audio) if isinstance(audio, Mapping) else {name: SOUNDS_LIKE[name] for name in audio}
    if len(set(aspects.values())) < len(aspects) or not set(aspects.values()) <= set(shapes_sound.ASPECTS):
        found = ", ".join(aspects.values())
        raise ValueError(
            f"tells['audio'] must give each attribute another one of {', '.join(shapes_sound.ASPECTS)}, found {found}."
        )
    return dict(tells) | {"audio": aspects}
