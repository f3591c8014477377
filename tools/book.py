"""Execute the chapters that changed, then build the book strictly: ``python -m tools.book [--preview | --publish]``.

Three steps, each in a folder of its own under ``_build``:

1. ``executed/`` keeps one executed copy of each chapter. It is reused while the notebook, the library, the recorded
   results that the notebook names, ``uv.lock`` and the tier are the same, which a hash of all of them tells. Chapters
   are executed side by side, each with one thread: one on each core, or as many as ``MMGAN_JOBS`` says. Where one
   fails, those that run are finished and kept, and no more are started.
2. ``source/`` is what Sphinx reads: the book with its notebooks replaced by the executed copies.
3. ``html/`` is the book. It is replaced only by a new one that was built without a warning.

``--preview`` executes nothing and builds ``_build/preview`` for somebody who edits the prose. ``--publish`` refuses a
book in which something stood in for the real thing, such as synthetic speech for recordings.
"""

import argparse
import hashlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode

from tools import pages
from tools.execution import BookError, Execution, environment, execute_all, jobs, say


def toc_files(entry: Any) -> Iterator[str]:
    """The documents that a (part of a) ``_toc.yml`` names, in reading order.

    >>> list(toc_files({"root": "intro", "parts": [{"chapters": [{"file": "01_fusion"}, {"file": "02_gan"}]}]}))
    ['intro', '01_fusion', '02_gan']
    """
    if isinstance(entry, list):
        for item in entry:
            yield from toc_files(item)
    elif isinstance(entry, dict):
        for field, value in entry.items():
            if field in ("root", "file"):
                yield value
            else:
                yield from toc_files(value)


def chapters(root: Path) -> list[Path]:
    """The notebooks of the book in reading order."""
    documents = toc_files(yaml.safe_load((root / "_toc.yml").read_text()))
    notebooks = (root / f"{document}.ipynb" for document in documents)
    return [notebook for notebook in notebooks if notebook.exists()]


def chapter_key(root: Path, notebook: Path, tier: str) -> str:
    """A hash of everything that an executed chapter depends on."""
    source = notebook.read_text()
    library = (path for path in (root / "mmgan_lib").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    results = (path for path in (root / "book" / "results").glob("*.json") if path.stem in source)
    chosen = [tier, *(os.environ.get(name, "") for name in ("MMGAN_SEED", "MMGAN_DEVICE"))]
    digest = hashlib.sha256(" ".join(chosen).encode())
    for path in [notebook, root / "uv.lock", *sorted(library), *sorted(results)]:
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def executed_path(root: Path, notebook: Path) -> Path:
    """Where the executed copy of a chapter is kept."""
    return root / "_build" / "executed" / notebook.name


def read_executed(root: Path, notebook: Path) -> NotebookNode | None:
    """The executed copy of a chapter, if there is one; its metadata ``mmgan`` tells how and when it was made."""
    path = executed_path(root, notebook)
    return nbformat.read(path, as_version=4) if path.exists() else None


def write_executed(root: Path, notebook: Path, executed: NotebookNode) -> None:
    """Keep an executed copy: whole or not at all, however the program ends."""
    path = executed_path(root, notebook)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    nbformat.write(executed, partial)
    os.replace(partial, path)


def machine_report(root: Path) -> str:
    """What ``mmgan_lib.runtime.report()`` says of this machine, one ``name value`` a line."""
    code = "from mmgan_lib import runtime; print(runtime.report())"
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, cwd=root, env=environment(root), capture_output=True, text=True)
    if answer.returncode:
        raise BookError(f"{answer.stderr}\nmmgan_lib.runtime.report() failed (above)")
    return answer.stdout


def execute(root: Path, notebook: Path) -> tuple[NotebookNode, float]:
    """Execute one chapter; returns the executed copy and the seconds it took.

    Raises:
        BookError: a cell failed; names notebook, cell and error.
    """
    [(_, executed)] = execute_all([notebook], partial(Execution, root), at_once=1)
    return executed, executed.metadata["mmgan"]["seconds"]


def execute_changed(root: Path, machine: dict[str, str], *, genuine: bool = False) -> dict[Path, NotebookNode]:
    """Execute the chapters whose key changed, the longest first; each is kept as soon as it is done.

    How long a chapter takes is what its last executed copy tells; those without one come first, the largest at their
    head. If `genuine`, what something stood in for is executed again. The copies come in reading order.
    """
    copies, changed = {}, {}
    for notebook in chapters(root):
        executed, name = read_executed(root, notebook), notebook.relative_to(root).as_posix()
        made = executed.metadata.get("mmgan", {}) if executed else {}
        if made.get("key") != chapter_key(root, notebook, machine["tier"]) or (genuine and made["stood_in"]):
            changed[notebook] = (made.get("seconds", math.inf), notebook.stat().st_size)
        else:
            say(f"  {name}: unchanged, executed in {made['seconds']} s")
        copies[notebook] = executed

    def start(notebook: Path) -> Execution:
        return Execution(root, notebook, chapter_key(root, notebook, machine["tier"]))

    at_once = jobs()
    if changed:
        say(f"  {len(changed)} to execute, up to {at_once} at once ({machine['tier']} tier)")
    with closing(execute_all(sorted(changed, key=changed.get, reverse=True), start, at_once)) as done:
        for notebook, executed in done:
            executed.metadata["mmgan"] |= machine
            write_executed(root, notebook, executed)
            copies[notebook] = executed
            seconds = executed.metadata["mmgan"]["seconds"]
            say(f"  {notebook.relative_to(root).as_posix()}: executed in {seconds} s")
    return copies


def refuse_stand_ins(root: Path, copies: pages.Copies) -> None:
    """What is published shows the real thing.

    Raises:
        BookError: something stood in for it; names the chapters and what it was.
    """
    found = {notebook: copy.metadata["mmgan"]["stood_in"] for notebook, copy in copies.items()}
    lines = [f"  {notebook.relative_to(root)}: {'; '.join(what)}" for notebook, what in found.items() if what]
    if lines:
        raise BookError("\n".join(["not to be published, because something stood in for the real thing:", *lines]))


def make(root: Path, *, publish: bool) -> None:
    """Make the book: execute, stage, build."""
    start = time.monotonic()
    report = machine_report(root)
    facts = dict(line.split(maxsplit=1) for line in report.splitlines())
    print("Chapters", flush=True)
    copies = execute_changed(root, {"tier": facts["tier"], "device": facts["device"]}, genuine=publish)
    if publish:
        refuse_stand_ins(root, copies)
    print("Pages", flush=True)
    page = pages.build(root, copies, report, environment(root))
    if page is None:
        raise BookError("the book was not built: Sphinx warned or failed (above)")
    print(f"  {page}")
    chapters_took = sum(executed.metadata["mmgan"]["seconds"] for executed in copies.values())
    print(f"Made in {time.monotonic() - start:.1f} s; its chapters took {chapters_took:.1f} s when they were executed.")


def preview(root: Path) -> None:
    """Make a preview: the notebooks as they stand, with what their cells displayed in the last run."""
    start = time.monotonic()
    copies = {}
    for notebook in chapters(root):
        executed = read_executed(root, notebook)
        copies[notebook] = pages.with_outputs_of(executed, nbformat.read(notebook, as_version=4))
        if executed is None:
            print(f"  {notebook.relative_to(root)} was never executed: it has no figures")
    page = pages.preview(root, copies, environment(root))
    if page is None:
        raise BookError("the preview was not built: Sphinx failed (above)")
    print(f"  {page}\nA preview, not the book: nothing was executed. Made in {time.monotonic() - start:.1f} s.")


def main() -> int:
    """Make the book of the project at ``--root``; returns the exit status."""
    parser = argparse.ArgumentParser(description="Execute the chapters that changed, then build the book.")
    parser.add_argument("--root", type=Path, default=Path(__file__).parent.parent, help="another project than this")
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--preview", action="store_true", help="execute nothing; show the text as it stands")
    ways.add_argument("--publish", action="store_true", help="refuse a book in which something stood in for another")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    given = parser.parse_args()
    root = given.root.resolve()
    try:
        preview(root) if given.preview else make(root, publish=given.publish)
    except BookError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; the chapters that were done are kept.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
