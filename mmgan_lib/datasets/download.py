"""Files that are too large to ship: from the reader's own folder, else downloaded once and kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class DataUnavailable(RuntimeError):  # noqa: N818 (it is a state of the world that chapters plan for)
    """The data could not be downloaded: no network, no such file, a server that stalls, or the wrong content."""


def obtain(read: Callable[[Path], T], *, local: str, url: str, root: str | Path | None = None) -> T:
    """What `read` makes of a file: of `local` in the folder `root` (None: `MMGAN_DATA`), else of a download from `url`.

    `read` takes a path and raises ValueError if what it finds there is not what it should be.

    Raises FileNotFoundError or ValueError if that folder lacks the file or holds a damaged one, and DataUnavailable if
    neither the environment nor the caller names a folder and the download fails.
    """
    root = root or os.environ.get("MMGAN_DATA")
    if not root:
        return fetch(read, url)
    path = Path(root).expanduser() / local
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist: the data folder {root} was expected to hold {local}; "
            "without root and MMGAN_DATA it is downloaded."
        )
    try:
        return read(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def fetch(read: Callable[[Path], T], url: str, folder: str | Path | None = None, *, timeout: float = 10.0) -> T:
    """What `read` makes of the file at `url`, downloaded into `folder` (None: the user's cache) if it is not there yet.

    A download that breaks off, stalls for `timeout` seconds or that `read` refuses with ValueError is tried three
    times. It enters the cache whole and checked, or not at all; a file found damaged in the cache is downloaded again.
    Raises DataUnavailable if that fails, also where the disk is full or the folder cannot be written.
    """
    import pooch
    import requests
    from tqdm import tqdm

    folder = Path(folder or pooch.os_cache("mmgan_lib")).expanduser()
    name = url.rsplit("/", 1)[-1]
    try:
        return read(folder / name)
    except FileNotFoundError:
        pass  # by now another process may have downloaded it
    except ValueError:
        (folder / name).unlink(missing_ok=True)

    def download_and_check(url: str, file: str, store: pooch.Pooch) -> None:
        with requests.get(url, stream=True, timeout=timeout) as response:
            response.raise_for_status()
            size = int(response.headers.get("Content-Length", 0))
            with open(file, "wb") as part, tqdm(desc=name, total=size, unit="B", unit_scale=True) as bar:
                for chunk in response.iter_content(2**16):
                    bar.update(part.write(chunk))
        read(Path(file))

    pooch.get_logger().setLevel("WARNING")  # the bar tells what is going on
    store = pooch.create(folder, base_url="", registry={name: None}, urls={name: url}, retry_if_failed=2)
    try:
        return read(Path(store.fetch(name, downloader=download_and_check)))
    except (OSError, ValueError) as error:  # requests' errors are OSErrors
        cause = getattr(
            next(iter(error.args), None), "reason", error
        )  # of a failed connection, without the address again
        cause = str(cause).split("): ", 1)[-1]
        raise DataUnavailable(
            f"{url} could not be downloaded ({cause}): set MMGAN_DATA to a folder that holds the data, "
            "or use DialDigits, which needs no download."
        ) from error
