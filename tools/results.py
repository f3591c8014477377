"""Record the numbers of the chapters over seeds: ``python -m tools.results [CHAPTER …]``, all without a name.

Each chapter that calls ``mmgan_lib.claims.recorded`` is executed once for each seed, on the data that this machine
has, and a chapter that speaks once more with synthetic voices. What it recorded is written to
``book/results/CHAPTER.json``, for this tier.
"""

import json
import os
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mmgan_lib import runtime
from tools import book

ROOT = Path(__file__).parent.parent
SEEDS = (0, 1000, 2000, 3000, 4000)  # added to the seeds in the chapter


@contextmanager
def variables(**changes: str | None) -> Iterator[None]:
    """Set environment variables for a while; None removes one."""
    before = dict(os.environ)
    kept = {name: value for name, value in (before | changes).items() if value is not None}
    os.environ.clear()
    os.environ.update(kept)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def nothing_to_download() -> Iterator[None]:
    """No local data, an empty cache and no network: what chapters do without a download."""
    nowhere = "http://127.0.0.1:9"
    with (
        tempfile.TemporaryDirectory() as cache,
        variables(MMGAN_DATA=None, XDG_CACHE_HOME=cache, http_proxy=nowhere, https_proxy=nowhere, no_proxy=None),
    ):
        yield


def numbers_of(notebook: Path) -> dict[str, float]:
    """Execute a chapter, and give what it recorded."""
    executed, _ = book.execute(ROOT, notebook)
    told = (
        output.metadata.get("mmgan", {})
        for cell in executed.cells
        for output in cell.get("outputs", [])
        if output.output_type == "display_data"
    )
    return {what["record"]: what["value"] for what in told if "record" in what}


def provenance(command: str, began: float) -> dict[str, Any]:
    """What makes the numbers again, and where they were made; ``began`` is a reading of ``time.monotonic``."""
    return {
        "command": command,
        "device": runtime.report().splitlines()[1].removeprefix("device").strip(),
        "seconds": round(time.monotonic() - began),
        "versions": {name: version(name) for name in ("mmgan-lib", "torch", "torchvision", "numpy")},
    }


def write(file: Path, text: str) -> None:
    """All of it or nothing: what was recorded before is not lost to a program that is stopped."""
    part = file.with_suffix(".partial")
    part.write_text(text)
    part.replace(file)


def record(notebook: Path) -> None:
    """Write ``book/results/CHAPTER.json``, keeping what it holds of other tiers."""
    began, numbers = time.monotonic(), defaultdict(list)
    differs_without_data = "SpokenDigits" in notebook.read_text()
    for seed in SEEDS:
        with variables(MMGAN_SEED=str(seed), MMGAN_RECORDING="1"):
            found = numbers_of(notebook)
            if differs_without_data:
                with nothing_to_download():
                    others = {name: value for name, value in numbers_of(notebook).items() if name not in found}
                differs_without_data, found = bool(others), found | others
        for name, value in found.items():
            numbers[name].append(value)
        print(f"{notebook.stem}, seed {seed}: {found}", flush=True)
    file = ROOT / "book" / "results" / f"{notebook.stem}.json"
    file.parent.mkdir(exist_ok=True)
    command = f"python -m tools.results {notebook.stem}"
    entry = provenance(command, began) | {"seeds": SEEDS, "numbers": numbers}
    record = json.loads(file.read_text()) if file.exists() else {}
    write(file, json.dumps(record | {runtime.tier(): entry}, indent=1) + "\n")
    print(f"wrote {file.relative_to(ROOT)}")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a chapter never outlives this program
    chapters = {path.stem: path for path in book.chapters(ROOT) if "recorded(" in path.read_text()}
    for name in sys.argv[1:] or chapters:
        if name not in chapters:
            sys.exit(f"No chapter {name!r} records numbers; expected one of {', '.join(chapters)}.")
        record(chapters[name])
