"""Execute the chapters that changed, then build the book strictly: ``python tools/book.py [--root DIR]``.

Three steps, each in a folder of its own under ``_build``:

1. ``executed/`` keeps one executed copy of each chapter. It is reused while the notebook, the library, the recorded
   results that the notebook names, ``uv.lock`` and the tier are the same, which a hash of all of them tells.
2. ``source/`` is what Sphinx reads: the book with its notebooks replaced by the executed copies.
3. ``html/`` is the book. It is replaced only by a new one that was built without a warning.
"""

import argparse
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode

CELL_TIMEOUT = 3600  # seconds
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class BookError(Exception):
    """What stops the book from being made, as a reader of the terminal should see it."""


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


def environment(root: Path) -> dict[str, str]:
    """The variables that chapters run under: this Python, this library, nothing of the reader's own set-up."""
    variables = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")])),
        "PYTHONHASHSEED": "0",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "JUPYTER_PATH": str(Path(sys.prefix) / "share" / "jupyter"),  # looked at first: the kernel is this Python
    }
    variables.pop("PYTEST_ADDOPTS", None)
    if data := variables.get("MMGAN_DATA"):
        variables["MMGAN_DATA"] = str(Path(data).resolve())  # chapters run in another folder
    return variables


def machine_report(root: Path) -> str:
    """What ``mmgan_lib.runtime.report()`` says of this machine, one ``name value`` a line."""
    code = "from mmgan_lib import runtime; print(runtime.report())"
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, cwd=root, env=environment(root), capture_output=True, text=True)
    if answer.returncode:
        raise BookError(f"{answer.stderr}\nmmgan_lib.runtime.report() failed (above)")
    return answer.stdout


def wait(process: subprocess.Popen, name: str) -> float:
    """Wait for a process, telling the seconds as they pass; returns them. The process never outlives this call."""
    start, live = time.monotonic(), sys.stdout.isatty()
    try:
        while True:
            try:
                process.wait(timeout=1 if live else 15)
                return time.monotonic() - start
            except subprocess.TimeoutExpired:
                progress = f"  {name}: {time.monotonic() - start:.0f} s …"
                print(f"\r{progress}" if live else progress, end="" if live else "\n", flush=True)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # its kernel ends with it


def failure(name: str, executed: NotebookNode, log: str) -> str:
    """Name the cell that failed, its error and the line; else give what nbmake said (a time-out, a dead kernel)."""
    for number, cell in enumerate(executed.cells, start=1):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                traceback = ANSI.sub("", "\n".join(output.traceback))
                line = re.search(r"line (\d+)", traceback)
                where = f"{name}, cell {number} (id {cell.id}), line {line[1] if line else '?'}"
                return f"{traceback}\n\n{where}: {output.ename}: {output.evalue}"
    return f"{ANSI.sub('', log)}\n\n{name} did not run to its end (above)"


def execute(root: Path, notebook: Path) -> tuple[NotebookNode, float]:
    """Run a chapter through nbmake in a scratch copy of the book; returns the executed copy and the seconds it took.

    Raises:
        BookError: a cell failed; names notebook, cell and error.
    """
    name = notebook.relative_to(root).as_posix()
    with tempfile.TemporaryDirectory(prefix="mmgan-book-") as folder:
        scratch = Path(folder)
        copy = scratch / "book" / notebook.name
        shutil.copytree(notebook.parent, copy.parent)
        (scratch / "pytest.ini").write_text("[pytest]\n")  # else the project's own settings would hold here
        command = [sys.executable, "-m", "pytest", "--nbmake", "--overwrite", f"--nbmake-timeout={CELL_TIMEOUT}"]
        with (scratch / "log").open("w") as log:
            process = subprocess.Popen(
                [*command, "-p", "no:cacheprovider", str(copy)],
                cwd=scratch,
                env=environment(root) | {"IPYTHONDIR": str(scratch / "ipython")},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            seconds = wait(process, name)
        executed = nbformat.read(copy, as_version=4)
        if process.returncode:
            raise BookError(failure(name, executed, (scratch / "log").read_text()))
    return executed, seconds


def execute_changed(root: Path, machine: dict[str, str]) -> dict[Path, NotebookNode]:
    """Execute the chapters whose key changed, one at a time; each is kept as soon as it is done."""
    copies = {}
    for notebook in chapters(root):
        key, name = chapter_key(root, notebook, machine["tier"]), notebook.relative_to(root).as_posix()
        executed = read_executed(root, notebook)
        if executed is None or executed.metadata.get("mmgan", {}).get("key") != key:
            print(f"  {name}: executing ({machine['tier']} tier)", flush=True)
            executed, seconds = execute(root, notebook)
            when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
            made = {"key": key, "seconds": round(seconds, 1), "when": when, **machine}
            executed.metadata["mmgan"] = made
            write_executed(root, notebook, executed)
            print(f"\r  {name}: executed in {seconds:.1f} s", flush=True)
        else:
            print(f"  {name}: unchanged, executed in {executed.metadata['mmgan']['seconds']} s", flush=True)
        copies[notebook] = executed
    return copies


def figure_cells(cell: NotebookNode, chapter: str) -> list[NotebookNode]:
    """Split a cell so that each of its figures has a cell, which is where MyST-NB looks for caption and alt text.

    A figure is an output whose metadata hold ``{"mmgan": {"alt": …, "caption": …}}``. The first figure of the cell
    ``ring`` in the chapter ``03_gan`` can be referred to as ``fig-03_gan-ring``, a second one as ``fig-03_gan-ring-1``.
    """
    pieces: list[NotebookNode] = []

    def start() -> None:
        piece = nbformat.from_dict({**cell, "metadata": dict(cell.metadata), "outputs": []})
        if pieces:
            piece.id = f"{cell.id}-{len(pieces)}"
            piece.metadata["tags"] = [*cell.metadata.get("tags", []), "remove-input", "continued"]
        pieces.append(piece)

    start()
    for output in cell.outputs:
        about = output.get("metadata", {}).get("mmgan", {})
        is_figure = "caption" in about
        displayed = any("data" in earlier for earlier in pieces[-1].outputs)
        if displayed and "data" in output and (is_figure or "mystnb" in pieces[-1].metadata):
            start()
        if is_figure:
            figure = {"caption": about["caption"], "name": f"fig-{chapter}-{pieces[-1].id}"}
            pieces[-1].metadata["mystnb"] = {"figure": figure, "image": {"alt": about["alt"]}}
        pieces[-1].outputs.append(output)
    return pieces


def page_notebook(executed: NotebookNode, chapter: str) -> NotebookNode:
    """The executed copy of a chapter as Sphinx is to read it."""
    cells = []
    for cell in executed.cells:
        cells += figure_cells(cell, chapter) if cell.cell_type == "code" else [cell]
    kept = {name: executed.metadata[name] for name in ("kernelspec", "language_info")}
    return nbformat.from_dict({**executed, "metadata": kept, "cells": cells})


def checked(executed: NotebookNode) -> list[NotebookNode]:
    """The outputs of a chapter in which a claim, or a number beside recorded ones, was checked."""
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    return [output for output in outputs if "holds" in output.get("metadata", {}).get("mmgan", {})]


def status_page(copies: dict[Path, NotebookNode]) -> str:
    """The generated part of ``book/status.md``: how long each chapter took, and what it claims."""
    rows = ["| chapter | seconds | checked | tier | executed |", "|---|---:|---:|---|---|"]
    lists = []
    for notebook, executed in copies.items():
        made, outputs = executed.metadata["mmgan"], checked(executed)
        rows.append(f"| []({notebook.name}) | {made['seconds']} | {len(outputs)} | {made['tier']} | {made['when']} |")
        heading = next(line for cell in executed.cells for line in cell.source.splitlines() if line.startswith("# "))
        lists += [f"#{heading}", *(output.data["text/html"] for output in outputs)]
    total = sum(executed.metadata["mmgan"]["seconds"] for executed in copies.values())
    rows.append(f"| **all** | **{total:.1f}** | **{sum(map(len, map(checked, copies.values())))}** | | |")
    return "\n\n".join(["\n".join(rows), *lists, ""])


def stage(root: Path, copies: dict[Path, NotebookNode], report: str) -> Path:
    """Lay out what Sphinx reads; returns the folder."""
    source = root / "_build" / "source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(root / "book", source / "book", ignore=shutil.ignore_patterns(".*", "*.ipynb"))
    for path in (root / "_config.yml", root / "_toc.yml", *root.glob("CONTRIBUTING.md")):
        shutil.copy(path, source)
    for notebook, executed in copies.items():
        nbformat.write(page_notebook(executed, notebook.stem), source / notebook.relative_to(root))
    (source / "book" / "environment.txt").write_text(f"```text\n{report.rstrip()}\n```\n")
    (source / "book" / "status.txt").write_text(status_page(copies))
    modules = [sys.executable, Path(__file__).with_name("modules.py"), root / "mmgan_lib"]
    (source / "book" / "modules.txt").write_text(subprocess.check_output(modules, text=True))
    return source


def build(root: Path, source: Path) -> Path:
    """Build the HTML with warnings as errors, and put it in the place of the old one; returns its first page.

    Raises:
        BookError: Sphinx warned or failed; its words are shown above.
    """
    fresh, html = root / "_build" / "fresh", root / "_build" / "html"
    shutil.rmtree(fresh, ignore_errors=True)
    command = [Path(sys.executable).with_name("jupyter-book"), "build", source, "--path-output", fresh]
    made = subprocess.run([*command, "-W", "-n", "--keep-going", "-q"], stdout=subprocess.DEVNULL)
    if made.returncode:
        raise BookError("the book was not built: Sphinx warned or failed (above)")
    for notebook in chapters(root):
        shutil.copy(notebook, fresh / "_build" / "html" / "_sources" / notebook.parent.name)  # the download button's
    shutil.rmtree(html, ignore_errors=True)
    shutil.move(fresh / "_build" / "html", html)
    shutil.rmtree(fresh)
    return html / "index.html"


def make(root: Path) -> None:
    """Make the book: execute, stage, build."""
    start = time.monotonic()
    report = machine_report(root)
    facts = dict(line.split(maxsplit=1) for line in report.splitlines())
    print("Chapters", flush=True)
    copies = execute_changed(root, {"tier": facts["tier"], "device": facts["device"]})
    print("Pages", flush=True)
    page = build(root, stage(root, copies, report))
    print(f"  {page}")
    chapters_took = sum(executed.metadata["mmgan"]["seconds"] for executed in copies.values())
    print(f"Made in {time.monotonic() - start:.1f} s; its chapters took {chapters_took:.1f} s when they were executed.")


def main() -> int:
    """Make the book of the project at ``--root``; returns the exit status."""
    parser = argparse.ArgumentParser(description="Execute the chapters that changed, then build the book.")
    parser.add_argument("--root", type=Path, default=Path(__file__).parent.parent, help="another project than this")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        make(parser.parse_args().root.resolve())
    except BookError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; the chapters that were done are kept.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
