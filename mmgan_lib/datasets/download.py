"""Files that are too large to ship: from the reader's own folder, else downloaded once and kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class DataUnavailable(RuntimeError):  # noqa: N818 (it is a state of the world that chapters plan for)
    """The data cannot be had: no network, no such file, a server that stalls, or the wrong content.

    The message is one sentence that a chapter may show.
    """


def obtain(read: Callable[[Path], T], *, local: str, url: str, root: str | Path | None = None) -> T:
    """Reads a file: ``local`` in the data folder if that holds the set, else a download from ``url``.

    Args:
        read: takes a path, and raises ValueError if what it finds there is not what it should be.
        local: where the file is in a data folder; its first part names the set, as in ``"fsdd/recordings"``.
        url: where it is downloaded from.
        root: the data folder; see :func:`in_data_folder`.

    Raises:
        FileNotFoundError: there is no such data folder, or it holds the set without this file.
        ValueError: the file in the data folder is damaged.
        DataUnavailable: no data folder holds the set, and the download fails.
    """
    path = in_data_folder(local, root)
    if path is None:
        return fetch(read, url)
    try:
        return read(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def in_data_folder(local: str, root: str | Path | None = None) -> Path | None:
    """Finds a file in the data folder: ``root``, else the one that ``MMGAN_DATA`` names.

    Returns:
        The path; None where no data folder is named, or where it lacks the first part of ``local`` altogether: a folder
        that holds one set may leave the others to be downloaded.

    Raises:
        FileNotFoundError: there is no such data folder, or it holds the first part of ``local`` and not the rest.
    """
    root = root or os.environ.get("MMGAN_DATA")
    if not root:
        return None
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} does not exist; expected the data folder that root or MMGAN_DATA names.")
    if not (folder / Path(local).parts[0]).exists():
        return None
    if not (folder / local).exists():
        raise FileNotFoundError(
            f"{folder / local} does not exist: {folder / Path(local).parts[0]} was expected to hold it; without that "
            "folder, or without root and MMGAN_DATA, it is downloaded."
        )
    return folder / local


def fetch(read: Callable[[Path], T], url: str, folder: str | Path | None = None, *, timeout: float = 10.0) -> T:
    """Reads the file at ``url``, downloaded into ``folder`` (None: the user's cache) if it is not there yet.

    A download that breaks off, stalls for ``timeout`` seconds or that ``read`` refuses with ValueError is tried three
    times. It enters the cache whole and checked, or not at all; a file found damaged in the cache is downloaded again.

    Raises:
        DataUnavailable: that fails, also where the disk is full or the folder cannot be written.
    """
    import pooch
    import requests
    from tqdm import tqdm

    path = cached(url, folder)
    try:
        return read(path)
    except FileNotFoundError:
        pass  # by now another process may have downloaded it
    except ValueError:
        path.unlink(missing_ok=True)

    def download_and_check(url: str, file: str, store: pooch.Pooch) -> None:
        with requests.get(url, stream=True, timeout=timeout) as response:
            response.raise_for_status()
            size = int(response.headers.get("Content-Length", 0))
            with open(file, "wb") as part, tqdm(desc=path.name, total=size, unit="B", unit_scale=True) as bar:
                for chunk in response.iter_content(2**16):
                    bar.update(part.write(chunk))
        read(Path(file))

    pooch.get_logger().setLevel("WARNING")  # the bar tells what is going on
    registry, urls = {path.name: None}, {path.name: url}
    store = pooch.create(path.parent, base_url="", registry=registry, urls=urls, retry_if_failed=2)
    try:
        return read(Path(store.fetch(path.name, downloader=download_and_check)))
    except (OSError, ValueError) as error:
        raise DataUnavailable(
            f"{url} could not be downloaded ({_cause(error)}): connect to the network, or set MMGAN_DATA to a folder "
            "that holds the data."
        ) from error


def cached(url: str, folder: str | Path | None = None) -> Path:
    """Returns the path where a download from ``url`` is kept: in ``folder``, or in the user's cache."""
    import pooch

    return Path(folder or pooch.os_cache("mmgan_lib")).expanduser() / url.rsplit("/", 1)[-1]


def _cause(error: OSError | ValueError) -> str:
    """Describes the cause of a failed download in words of our own."""
    from requests import HTTPError, RequestException, Timeout

    if isinstance(error, HTTPError):
        return f"the server answers {error.response.status_code}"
    if isinstance(error, Timeout) or "timed out" in str(error):  # a server that stalls later is a ConnectionError
        return "the server does not answer in time"
    if isinstance(error, RequestException):
        return "no connection, or one that breaks off"
    return str(error) if isinstance(error, ValueError) else error.strerror or "the file cannot be written"
