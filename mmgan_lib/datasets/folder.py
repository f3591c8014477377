"""The reader's own pictures, with what is said of them and, where there are any, their sounds."""

from __future__ import annotations

import copy
import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmgan_lib.datasets.batch import Batch, Index
from mmgan_lib.datasets.preprocess import RATES, Preprocess, read_image, read_wave

METADATA = ("metadata.csv", "metadata.jsonl")


class Row(NamedTuple):
    """Where one sample is, and what is said of it."""

    image: Path
    text: str
    audio: Path | None = None
    label: int | None = None


class CaptionedImageFolder:
    """Pictures in a folder of the reader's own, in one of two layouts.

    *Class folders*, as torchvision's ``ImageFolder`` reads them: each picture's ``label`` is the rank of its folder's
    name among the others, and its ``text`` is that name. Or *metadata*, as Hugging Face's ``imagefolder`` reads it: a
    ``metadata.csv`` or ``metadata.jsonl`` in UTF-8, a line for each sample, with ``file_name``, ``text`` and,
    optionally, ``audio``; both names are relative to the folder. Hidden files and whatever else is not named or is not
    a picture are ignored.

    ``folder[index]`` is a :class:`Batch` of ``image`` (B, 3, size, size), ``text``, ``label`` (B,) where there are
    class folders, and ``wave`` (B, S) where there are sounds, cut or padded with silence to ``seconds``. If some
    samples have no sound, ``present`` (B, 3) tells which of image, text and wave each has. Files are read anew each
    time: give a large folder to ``Loader(folder, …, workers=2)``, and a small one that needs no augmentation, read
    once into memory, to ``Loader(folder[:], …)``.

    Pictures may be grey, palette, CMYK or 16-bit (all become RGB), transparent (laid on white) and turned by EXIF (set
    upright). Sounds may have any rate and number of channels (resampled, and mixed to one).

    Args:
        root: the folder.
        preprocess: how a picture becomes a tensor; None for :class:`Preprocess` as it comes.
        max_caption: the longest caption allowed, in characters.
        sample_rate: of ``wave``, in Hz.
        seconds: the length of ``wave``, S = seconds · sample_rate samples.

    Attributes:
        rows: where each sample is and what is said of it.
        classes: the names of the class folders, in the order of the labels; none where there is metadata.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the folder or its metadata is not as described, links lead to a picture twice, or, when a sample is
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
            raise FileNotFoundError(f"{root} {found}; expected a folder of pictures.")
        if sample_rate not in RATES:
            raise ValueError(f"sample_rate is {sample_rate}; expected {RATES.start:,} to {RATES[-1]:,} Hz.")
        if not seconds * sample_rate >= 1:
            raise ValueError(f"seconds is {seconds}; expected at least one sample.")
        self.preprocess = preprocess or Preprocess()
        self.sample_rate, self.seconds = sample_rate, seconds
        metadata = [root / name for name in METADATA if (root / name).is_file()]
        if len(metadata) == 2:
            raise ValueError(f"{root} holds both {' and '.join(METADATA)}; expected one of them.")
        if metadata:
            self.rows, self.classes = _metadata_rows(metadata[0], max_caption), ()
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
            wave=self._waves(rows) if self._any_sound else None,
            present=have if self._any_sound and not self._all_sound else None,
        )

    def augmented(self, *, seed: int, epoch: int) -> CaptionedImageFolder:
        """The same folder as it is trained on in ``epoch``; a :class:`Loader` that shuffles draws from this.

        ``preprocess.augment`` draws from PyTorch's global random numbers. For each picture these are set from ``seed``,
        ``epoch`` and its index, and put back after it, so neither the order nor the process it is read in matters.
        """
        view = copy.copy(self)
        view._drawn_from = (seed, epoch)
        return view

    def check(self) -> list[str]:
        """Read every file once; a sentence for each sample that cannot be read, and none if all is well."""
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

    def _waves(self, rows: list[Row]) -> Tensor:
        waves = torch.zeros(len(rows), round(self.seconds * self.sample_rate))
        for k, row in enumerate(rows):
            if row.audio is not None:
                wave = read_wave(row.audio, sample_rate=self.sample_rate, seconds=self.seconds)
                waves[k, : len(wave)] = wave
        return waves


def _class_rows(root: Path) -> tuple[list[Row], tuple[str, ...]]:
    from torchvision.datasets.folder import IMG_EXTENSIONS, ImageFolder

    def is_picture(path: str | Path) -> bool:
        inside = Path(path).relative_to(root)
        return inside.suffix.lower() in IMG_EXTENSIONS and not any(map(_is_hidden, inside.parts))

    entries = sorted(entry for entry in root.iterdir() if not _is_hidden(entry.name))
    classes = tuple(entry.name for entry in entries if entry.is_dir())
    if not entries:
        raise ValueError(f"{root} is empty; expected class folders, {' or '.join(METADATA)}.")
    if not classes:
        raise ValueError(f"{root} has neither class folders nor {' or '.join(METADATA)}; expected one of these.")
    if loose := [entry.name for entry in entries if entry.is_file() and is_picture(entry)]:
        raise ValueError(f"{root / loose[0]} lies beside the class folders; expected every picture inside of one.")
    ranks = {name: rank for rank, name in enumerate(classes)}
    found = ImageFolder.make_dataset(str(root), ranks, is_valid_file=is_picture, allow_empty=True)
    if empty := [name for name in classes if ranks[name] not in {label for _, label in found}]:
        raise ValueError(f"{root} has class folders without a picture: {', '.join(empty)}.")
    rows = [Row(Path(path), classes[label], label=label) for path, label in found]
    names = (str(row.image.relative_to(root)) for row in rows)
    _refuse(root, [f"file {problem}" for name in names if (problem := _problem_of_file(root, name))])
    seen: dict[str, Path] = {}
    for row in rows:
        if (first := seen.setdefault(os.path.realpath(row.image), row.image)) is not row.image:
            raise ValueError(f"{row.image} is {first} once more, by a link; expected each picture once.")
    return rows, classes


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _metadata_rows(metadata: Path, max_caption: int) -> list[Row]:
    try:
        text = metadata.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{metadata} is not in UTF-8 ({error}).") from error
    root, rows, problems = metadata.parent, [], []
    for line, record in (_csv_records if metadata.suffix == ".csv" else _json_records)(text):
        problem = record if isinstance(record, str) else _problem_of_record(root, record, max_caption)
        if problem:
            problems.append(f"line {line} {problem}")
        else:
            audio = record.get("audio")
            rows.append(Row(root / record["file_name"], record["text"].strip(), root / audio if audio else None))
    _refuse(metadata, problems)
    if not rows:
        raise ValueError(f"{metadata} names no picture; expected a line for each.")
    return rows


def _csv_records(text: str) -> Iterator[tuple[int, dict[str, object] | str]]:
    """Each line's number, and its fields by column or what is wrong with it."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = next(reader, [])
        if not {"file_name", "text"} <= set(columns):
            yield 1, f"has the columns {', '.join(columns)}; expected file_name and text"
            return
        for fields in filter(None, reader):
            same = len(fields) == len(columns)
            problem = f"has {len(fields)} fields, but there are {len(columns)} columns"
            yield reader.line_num, dict(zip(columns, fields, strict=True)) if same else problem
    except csv.Error as error:
        yield reader.line_num, f"is malformed CSV ({error})"


def _json_records(text: str) -> Iterator[tuple[int, dict[str, object] | str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, f"is malformed JSON ({error})"
            else:
                yield number, record if isinstance(record, dict) else "is not a JSON object"


def _problem_of_record(root: Path, record: dict[str, object], max_caption: int) -> str | None:
    columns = ("file_name", "text", "audio") if record.get("audio") else ("file_name", "text")
    for column in columns:
        if not isinstance(value := record.get(column), str):
            return f"has no {column}" if value is None else f"has {value!r} as {column}, expected a string"
    length = len(record["text"].strip())
    if not 1 <= length <= max_caption:
        return f"has a caption of {length} characters, expected 1 to {max_caption}"
    for column in columns:
        if column != "text" and (problem := _problem_of_file(root, record[column])):
            return f"{column} {problem}"
    return None


def _problem_of_file(root: Path, name: str) -> str | None:
    outside = f"{name!r} leads out of the folder"
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return outside
    if not os.path.isfile(root / name):
        return f"{name!r} does not exist"
    return None if Path(os.path.realpath(root / name)).is_relative_to(os.path.realpath(root)) else outside


def _refuse(where: Path, problems: list[str]) -> None:
    if problems:
        more = f"; {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(f"{where}: {'; '.join(problems[:3])}{more}.")
