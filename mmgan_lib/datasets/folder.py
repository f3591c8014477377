"""Images of the reader's own, their captions and, where there are any, their sounds."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmgan_lib.checks import SURROGATE
from mmgan_lib.datasets.batch import Batch, Index
from mmgan_lib.datasets.metadata import METADATA, Row, metadata_rows, problem_of_file, refuse
from mmgan_lib.datasets.preprocess import RATES, Preprocess, image_extensions, read_image, read_waveform

SPLITS = {"train", "training", "validation", "valid", "val", "dev", "test", "testing", "eval", "evaluation"}
LITTER = {"thumbs.db", "desktop.ini"} | {
    name + end for name in ("readme", "license", "licence") for end in ("", ".md", ".rst", ".txt")
}


class CaptionedImageFolder:
    """Images in a folder of the reader's own, in one of two layouts.

    *Class folders*, as torchvision's ``ImageFolder`` reads them: each image's ``label`` is the rank of its folder's
    name among the others, and its ``text`` is that name. Hidden files, ``Thumbs.db``, ``desktop.ini``, ``README``
    and ``LICENSE`` are ignored; any other file that is no image is refused by name, as it may hold captions.

    Or *metadata*, as Hugging Face's ``imagefolder`` reads it: a ``metadata.csv`` or ``metadata.jsonl`` in UTF-8, a
    line for each sample, with ``file_name``, ``text`` and, optionally, ``audio``; both names are relative to the
    folder. Files that it does not name are ignored. Of its layout in splits (``train/metadata.jsonl``,
    ``test/metadata.jsonl``) give one: ``CaptionedImageFolder(root / "train")``.

    ``folder[index]`` is a :class:`Batch` of ``image`` (B, 3, size, size), ``text``, ``label`` (B,) where there are
    class folders, and ``waveform`` (B, S) where there are sounds, cut or padded with silence to ``seconds``. If some
    samples have no sound, ``present`` (B, 3) tells which of image, text and waveform each has. Files are read anew each
    time: give a large folder to ``Loader(folder, …, workers=2)``, and a small one that needs no augmentation, read
    once into memory, to ``Loader(folder[:], …)``.

    Images may be grey, palette, CMYK or 16-bit (all become RGB), transparent (laid on white) and turned by EXIF (set
    upright). Sounds may have any rate and number of channels (resampled, and mixed to one).

    Args:
        root: the folder.
        preprocess: how an image becomes a tensor; None for :class:`Preprocess` as it comes.
        max_caption: the longest caption allowed, in characters.
        sample_rate: of ``waveform``, in Hz.
        seconds: the length of ``waveform``, S = seconds · sample_rate samples.

    Attributes:
        rows: where each sample is and what is said of it.
        classes: the names of the class folders, in the order of the labels; none where there is metadata.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the folder or its metadata is not as described, links lead to an image twice, or, when a sample is
            asked for, a file cannot be decoded or has more pixels than ``PIL.Image.MAX_IMAGE_PIXELS``; :meth:`check`
            finds these last two beforehand.
    """

    def __init__(
        self,
        root: str | Path,
        preprocess: Preprocess | None = None,
        *,
        max_caption: int = 1000,
        sample_rate: int = 8000,
        seconds: float = 1.0,
    ) -> None:
        root = Path(root).expanduser()
        if not root.is_dir():
            found = "is a file" if root.exists() else "does not exist"
            raise FileNotFoundError(f"{root} {found}; expected a folder of images.")
        if sample_rate not in RATES:
            raise ValueError(f"sample_rate is {sample_rate}; expected {RATES.start:,} to {RATES[-1]:,} Hz.")
        self.preprocess = preprocess or Preprocess()
        self.sample_rate, self.seconds = sample_rate, seconds
        metadata = [root / name for name in METADATA if (root / name).is_file()]
        if len(metadata) == 2:
            raise ValueError(f"{root} holds both {' and '.join(METADATA)}; expected one of them.")
        if metadata:
            self.rows, self.classes = metadata_rows(metadata[0], max_caption), ()
        else:
            self.rows, self.classes = _class_rows(root)
        sounding = [row.audio is not None for row in self.rows]
        self._any_sound, self._all_sound = any(sounding), all(sounding)
        self._drawn_from: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Index) -> Batch:
        at = torch.arange(len(self))[index].reshape(-1).tolist()
        rows = [self.rows[i] for i in at]
        have = torch.tensor([(True, True, row.audio is not None) for row in rows], dtype=torch.bool).reshape(-1, 3)
        return Batch(
            image=self._images(at),
            text=tuple(row.text for row in rows),
            label=torch.tensor([row.label for row in rows], dtype=torch.int64) if self.classes else None,
            waveform=self._waveforms(rows) if self._any_sound else None,
            present=have if self._any_sound and not self._all_sound else None,
        )

    def augmented(self, *, seed: int, epoch: int) -> CaptionedImageFolder:
        """Returns the folder as it is trained on in ``epoch``; a :class:`Loader` that shuffles draws from this.

        ``preprocess.augment`` draws from PyTorch's global random numbers. For each image these are set from ``seed``,
        ``epoch`` and its index, and put back after it, so neither the order nor the process it is read in matters.
        """
        view = copy.copy(self)
        view._drawn_from = (seed, epoch)
        return view

    def check(self) -> list[str]:
        """Reads every file once; returns a sentence for each sample that cannot be read, and none if all is well."""
        problems = []
        for i in range(len(self)):
            try:
                self[i]
            except ValueError as error:
                problems.append(str(error))
        return problems

    def _images(self, at: list[int]) -> Tensor:
        images = torch.empty(len(at), 3, self.preprocess.size, self.preprocess.size)
        for k, i in enumerate(at):
            image = read_image(self.rows[i].image)
            if self._drawn_from is None:
                images[k] = self.preprocess(image)
                continue
            with torch.random.fork_rng(devices=()):
                seed = int(np.random.SeedSequence([*self._drawn_from, i]).generate_state(1)[0])
                torch.default_generator.manual_seed(seed)  # of the CPU alone: a GPU's is training's
                images[k] = self.preprocess(image, train=True)
        return images

    def _waveforms(self, rows: list[Row]) -> Tensor:
        waveforms = torch.zeros(len(rows), round(self.seconds * self.sample_rate))
        for k, row in enumerate(rows):
            if row.audio is not None:
                waveform = read_waveform(row.audio, sample_rate=self.sample_rate, seconds=self.seconds)
                waveforms[k, : len(waveform)] = waveform
        return waveforms


def _class_rows(root: Path) -> tuple[list[Row], tuple[str, ...]]:
    from torchvision.datasets.folder import ImageFolder

    def is_wanted(path: str) -> bool:
        inside = Path(path).relative_to(root)
        return inside.name.lower() not in LITTER and not any(map(_is_hidden, inside.parts))

    entries = sorted(entry for entry in root.iterdir() if not _is_hidden(entry.name))
    classes = tuple(entry.name for entry in entries if entry.is_dir())
    _check_layout(root, entries, classes)
    ranks = {name: rank for rank, name in enumerate(classes)}
    found = ImageFolder.make_dataset(str(root), ranks, is_valid_file=is_wanted, allow_empty=True)
    if empty := [name for name in classes if ranks[name] not in {label for _, label in found}]:
        raise ValueError(f"{root} has class folders without an image: {', '.join(empty)}.")
    rows = [Row(Path(path), classes[label], label=label) for path, label in found]
    seen: dict[str, Path] = {}
    for row in rows:
        if (first := seen.setdefault(os.path.realpath(row.image), row.image)) is not row.image:
            raise ValueError(f"{row.image} is {first} once more, by a link; expected each image once.")
    names = [str(row.image.relative_to(root)) for row in rows]
    refuse(root, [f"file {problem}" for name in names if (problem := problem_of_file(root, name))])
    _check_images(root, names)
    return rows, classes


def _check_layout(root: Path, entries: list[Path], classes: tuple[str, ...]) -> None:
    if not entries:
        raise ValueError(f"{root} is empty; expected class folders, {' or '.join(METADATA)}.")
    if not classes:
        raise ValueError(f"{root} has neither class folders nor {' or '.join(METADATA)}; expected one of these.")
    if loose := [entry for entry in entries if entry.is_file() and entry.name.lower() not in LITTER]:
        expected = f"expected every image inside of one, and captions in {' or '.join(METADATA)}"
        raise ValueError(f"{loose[0]} lies beside the class folders; {expected}.")
    if SPLITS.issuperset(map(str.lower, classes)):
        raise ValueError(f"{root} holds the splits {', '.join(classes)}; expected one of them, as {root / classes[0]}.")
    if halves := [name for name in classes if SURROGATE.search(name)]:
        raise ValueError(f"{root} has a class folder {halves[0]!r}, whose name is not in UTF-8; expected another name.")


def _check_images(root: Path, names: list[str]) -> None:
    """Raises ValueError for files in class folders that are no images, since they may hold captions."""
    if captions := [name for name in names if Path(name).name in METADATA]:
        where = (root / captions[0]).parent
        raise ValueError(f"{root / captions[0]} is in a folder of its own; expected that folder, {where}.")
    extensions = image_extensions()
    others = [name for name in names if Path(name).suffix.lower() not in extensions]
    refuse(root, [f"file {name!r} is no image of a kind that can be read" for name in others])


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"
