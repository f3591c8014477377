"""Device, threads, tier and random numbers of a run, and a report of the versions."""

import os
import platform
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, TypeVar

import numpy as np
import torch

T = TypeVar("T")


def device() -> torch.device:
    """Returns the device that the book trains on: CUDA where there is one, else the CPU.

    ``MMGAN_DEVICE`` overrides the choice (``cpu``, ``cuda``, ``cuda:1``, ``mps``).

    Raises:
        ValueError: ``MMGAN_DEVICE`` is none of these, or one that this machine does not have.
    """
    chosen = os.environ.get("MMGAN_DEVICE")
    if not chosen:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": torch.backends.mps.is_available()}
    with suppress(RuntimeError):  # no name of a device
        named = torch.device(chosen)
        if (named.index or 0) < there.get(named.type, 0):
            return named
    raise ValueError(f"MMGAN_DEVICE is {chosen!r}; expected 'cpu', or 'cuda', 'cuda:1' or 'mps' where there is one.")


def tier() -> Literal["quick", "full"]:
    """Returns ``quick``, which trains a chapter in minutes on a CPU core, or ``full``, longer and larger, on a GPU.

    The default is ``full`` where :func:`device` is CUDA; ``MMGAN_TIER`` overrides it.

    Raises:
        ValueError: ``MMGAN_TIER`` is neither ``quick`` nor ``full``.
    """
    chosen = os.environ.get("MMGAN_TIER") or ("full" if device().type == "cuda" else "quick")
    if chosen not in ("quick", "full"):
        raise ValueError(f"MMGAN_TIER is {chosen!r}; expected 'quick' or 'full'.")
    return chosen


def by_tier(*, quick: T, full: T) -> T:
    """Returns the value for this tier: the only way in which the two tiers of a chapter differ.

    >>> by_tier(quick=100, full=10_000) in (100, 10_000)
    True
    """
    return quick if tier() == "quick" else full


def use_threads() -> None:
    """Lets PyTorch compute with one thread, unless ``OMP_NUM_THREADS`` says how many; called by any import.

    By default PyTorch splits every operation among all cores and waits, spinning, for the last of them. On an idle
    machine that is up to twice as fast; where anything else wants a core, every operation waits for the one that was
    taken. One thread loses about the share of its core that others take, and rounds alike however many cores there
    are. The cores are better used by several processes: :mod:`tools.book` executes a chapter on each. Measured on two
    cores, in a second, with a thread for each core / one thread:

    ========================  ============  ================  ==================
    ..                        idle machine  one busy process  two busy processes
    ========================  ============  ================  ==================
    steps, small classifier   1658 / 1608   425 / 1678        557 / 1022
    steps, recurrent network  109 / 82      26 / 94           4 / 54
    images, GAN of 32 × 32    991 / 544     262 / 569         197 / 295
    texts, BERT               436 / 228     148 / 238         105 / 123
    images, EfficientNet      143 / 90      42 / 93           30 / 31
    ========================  ============  ================  ==================

    ``torch.set_num_threads`` after the import of the library chooses otherwise for a notebook.
    """
    if not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(1)


def seed_everything(seed: int) -> torch.Generator:
    """Seeds Python's, NumPy's and PyTorch's random numbers, and returns a CPU generator with the same seed.

    The same seed on the same machine then gives the same numbers, bit for bit on the CPU. ``MMGAN_SEED``, where it
    is set, is added to every seed: so ``make results`` repeats a chapter with other random numbers.

    Raises:
        ValueError: ``MMGAN_SEED`` is not a whole number.

    >>> import torch
    >>> _ = seed_everything(7); a = torch.randn(3)
    >>> _ = seed_everything(7); torch.equal(a, torch.randn(3))
    True
    """
    shift = os.environ.get("MMGAN_SEED") or "0"
    if not shift.removeprefix("-").isdecimal():
        raise ValueError(f"MMGAN_SEED is {shift!r}; expected a whole number.")
    seed += int(shift)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


def stood_in(what: str) -> None:
    """Notes that something took the place of the real thing, so that a book with it on a page is not published.

    It displays nothing: whoever calls says it to the reader. :mod:`tools.book` names the file for such notes in
    ``MMGAN_STOOD_IN``, and without that this does nothing.

    Args:
        what: what stood in for what, for example ``"synthetic speech for the Free Spoken Digit Dataset"``.
    """
    if notes := os.environ.get("MMGAN_STOOD_IN"):
        with open(notes, "a", encoding="utf-8") as lines:
            lines.write(f"{what}\n")


@contextmanager
def preserve_rng_state(device: torch.device) -> Iterator[None]:
    """Leaves the random numbers of the training outside as they were, whatever is drawn inside."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


def processor() -> str:
    """Returns the name of the CPU as the system tells it, with the number of threads that PyTorch uses on it."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass  # not Linux, or a CPU that does not tell its name there
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' * (threads > 1)}"


def machine(where: torch.device) -> str:
    """Returns a device, and the name of the hardware that it is."""
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else processor()
    return f"{where} ({name})"


def report() -> str:
    """Returns one line each for tier, device, machine, Python and the packages that decide a chapter's numbers."""
    lines = [("tier", tier()), ("device", machine(device())), ("system", platform.platform(terse=True))]
    lines += [("python", platform.python_version())]
    packages = (
        "mmgan-lib",
        "torch",
        "torchvision",
        "transformers",
        "numpy",
        "scikit-learn",
        "matplotlib",
        "ipywidgets",
    )
    lines += [(package, _version(package)) for package in packages]
    return "\n".join(f"{key:<13} {value}" for key, value in lines)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
