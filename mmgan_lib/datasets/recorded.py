"""MNIST and the Free Spoken Digit Dataset as they are published: where they are, and what is in their files."""

from __future__ import annotations

import gzip
import io
import wave
import zipfile
import zlib
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mmgan_lib.datasets.download import obtain

SAMPLE_RATE = 8000  # Hz

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist"
MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
FSDD_URL = (
    "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/26eb9aaf76e81b692f806f9140c2d2777410d7a1.zip"
)
FSDD_SHA256 = "1801eae019c063377d98f831d3f93574f259475df7332bb0e3d1b080fb5e6959"  # of what `sha256sum *.wav` prints


def mnist(train: bool, root: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """MNIST's images (N, 1, 28, 28) uint8, ink is 255, and labels (N,) int64; for `root` and errors see `obtain`."""
    split = "train" if train else "t10k"
    images = _idx(f"{split}-images-idx3-ubyte", root, header=16).reshape(-1, 1, 28, 28)
    return images, _idx(f"{split}-labels-idx1-ubyte", root, header=8).long()


def fsdd(train: bool, root: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """FSDD's recordings, cut or padded to (R, 8000) int16, and the digits they say (R,); for `root` see `obtain`."""
    read = partial(read_wavs, expected=FSDD_SHA256)
    files = obtain(read, local="fsdd/recordings", url=FSDD_URL, root=root)
    recordings, digits = [], []
    for name, data in files.items():
        digit, _speaker, index = Path(name).stem.split("_")
        if (int(index) >= 5) == train:
            recordings.append(_one_second(data))
            digits.append(int(digit))
    return torch.stack(recordings), torch.tensor(digits)


def _idx(name: str, root: str | Path | None, *, header: int) -> Tensor:
    """The values of one of MNIST's files, a byte each after the header."""
    read = partial(read_file, expected=MNIST_SHA256[name])
    data = obtain(read, local=f"mnist/MNIST/raw/{name}", url=f"{MNIST_URL}/{name}.gz", root=root)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)[header:]


def _one_second(wav: bytes) -> Tensor:
    """The first second of a 16-bit mono recording at 8 kHz, followed by silence if it is shorter: (8000,) int16."""
    with wave.open(io.BytesIO(wav)) as recording:
        samples = np.frombuffer(recording.readframes(SAMPLE_RATE), dtype="<i2").astype(np.int16)
    return F.pad(torch.from_numpy(samples), (0, SAMPLE_RATE - len(samples)))


def read_file(path: Path, *, expected: str) -> bytes:
    """The bytes of a file, unpacked if it is gzip. Raises ValueError unless their sha256 is `expected`."""
    data = path.read_bytes()
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"not a whole gzip file, {error}") from error
    _check(sha256(data).hexdigest(), expected, f"{len(data):,} bytes")
    return data


def read_wavs(path: Path, *, expected: str) -> dict[str, bytes]:
    """The WAV files of a folder, or of the folder `recordings` in a zip archive: name → bytes, in the order of names.

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
        raise ValueError(f"not a whole zip archive, {error}") from error


def _check(found: str, expected: str, size: str) -> None:
    if found != expected:
        raise ValueError(f"its content ({size}) has sha256 {found}, expected {expected}")
