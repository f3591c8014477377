"""Chapters that are executed side by side, each by nbmake in a scratch copy of the book."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import nbformat
from nbformat import NotebookNode

CELL_TIMEOUT = 3600  # seconds
MEMORY = 2e9  # bytes that a chapter may take
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class BookError(Exception):
    """What stops the book from being made, as a reader of the terminal should see it."""


def environment(root: Path) -> dict[str, str]:
    """The variables that chapters run under: this Python, this library, nothing of the reader's own set-up."""
    variables = (
        {"OMP_NUM_THREADS": "1"}
        | os.environ
        | {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")])),
            "PYTHONHASHSEED": "0",
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            "JUPYTER_PATH": str(Path(sys.prefix) / "share" / "jupyter"),  # looked at first: the kernel is this Python
        }
    )
    variables.pop("PYTEST_ADDOPTS", None)
    if data := variables.get("MMGAN_DATA"):
        variables["MMGAN_DATA"] = str(Path(data).resolve())  # chapters run in another folder
    return variables


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def jobs() -> int:
    """How many chapters are executed side by side: one on each core, as memory allows.

    ``MMGAN_JOBS`` overrides it.

    Raises:
        BookError: ``MMGAN_JOBS`` is no positive whole number.
    """
    if not (chosen := os.environ.get("MMGAN_JOBS")):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return max(1, min(cores(), int(memory / MEMORY)))
    if not (chosen.isdecimal() and int(chosen)):
        raise BookError(f"MMGAN_JOBS is {chosen!r}; expected a whole number from 1 on.")
    return int(chosen)


def say(text: str, end: str = "\n") -> None:
    """Print a line; on a terminal in the place of the progress that stands there."""
    print(f"\r\x1b[K{text}" if sys.stdout.isatty() else text, end=end, flush=True)


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


class Execution:
    """A chapter that nbmake is executing, in a scratch copy of the book and a session of processes of its own."""

    def __init__(self, root: Path, notebook: Path, key: str | None = None) -> None:
        self.notebook, self.name, self.key = notebook, notebook.relative_to(root).as_posix(), key
        self.folder = tempfile.TemporaryDirectory(prefix="mmgan-book-")
        self.scratch = Path(self.folder.name)
        self.copy = self.scratch / "book" / notebook.name
        shutil.copytree(notebook.parent, self.copy.parent)
        (self.scratch / "pytest.ini").write_text("[pytest]\n")  # else the project's own settings would hold here
        command = [sys.executable, "-m", "pytest", "--nbmake", "--overwrite", f"--nbmake-timeout={CELL_TIMEOUT}"]
        own = {"IPYTHONDIR": str(self.scratch / "ipython"), "MMGAN_STOOD_IN": str(self.scratch / "stood_in")}
        self.began = time.monotonic()
        with (self.scratch / "log").open("w") as log:
            self.process = subprocess.Popen(
                [*command, "-p", "no:cacheprovider", str(self.copy)],
                cwd=self.scratch,
                env=environment(root) | own,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def seconds(self) -> float:
        """For how long it has been running."""
        return time.monotonic() - self.began

    def result(self) -> NotebookNode:
        """The executed copy, once the process has ended; its metadata ``mmgan`` tell key, seconds and what stood in.

        Raises:
            BookError: a cell failed; names notebook, cell and error.
        """
        seconds, notes = round(self.seconds, 1), self.scratch / "stood_in"
        executed = nbformat.read(self.copy, as_version=4)
        if self.process.returncode:
            raise BookError(failure(self.name, executed, (self.scratch / "log").read_text()))
        stood_in = list(dict.fromkeys(notes.read_text("utf-8").splitlines())) if notes.exists() else []
        when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        executed.metadata["mmgan"] = {"key": self.key, "seconds": seconds, "when": when, "stood_in": stood_in}
        return executed

    def end(self) -> None:
        """Leave nothing behind: neither the process, with which its kernel ends, nor the scratch copy."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.folder.cleanup()


def progress(running: list[Execution], waiting: int) -> str:
    """What is being executed, in one line that fits the terminal."""
    line = ", ".join(f"{execution.notebook.stem} {execution.seconds:.0f} s" for execution in running)
    line += f"; {waiting} to go" if waiting else ""
    return f"  {line} …"[: shutil.get_terminal_size().columns - 1] if sys.stdout.isatty() else f"  {line} …"


def execute_all(
    notebooks: Iterable[Path], start: Callable[[Path], Execution], at_once: int
) -> Iterator[tuple[Path, NotebookNode]]:
    """Execute chapters, a number of them at once, started in the order given; each comes as soon as it is done.

    Where one fails, its error is told, those that run are finished, and no more are started.

    Raises:
        BookError: what failed, after everything else.
    """
    waiting, running, failures = list(notebooks), [], []
    told, patience = time.monotonic(), 1 if sys.stdout.isatty() else 15
    try:
        while running or (waiting and not failures):
            while waiting and not failures and len(running) < at_once:
                running.append(start(waiting.pop(0)))
            time.sleep(0.1)
            if time.monotonic() - told > patience:
                say(progress(running, len(waiting)), end="" if patience == 1 else "\n")
                told = time.monotonic()
            for execution in [execution for execution in running if execution.process.poll() is not None]:
                try:
                    executed = execution.result()
                except BookError as error:
                    say(f"  {str(error).splitlines()[-1]}")
                    failures.append(str(error))
                else:
                    yield execution.notebook, executed
                running.remove(execution)
                execution.end()
    finally:
        for execution in running:
            execution.end()
    if failures:
        raise BookError("\n\n".join(failures))
