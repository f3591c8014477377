"""The pages of the book, from executed chapters: what Sphinx reads, and Sphinx."""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import nbformat
import yaml
from nbformat import NotebookNode

from tools import modules

PREVIEW = "A preview: text as it stands, figures and numbers of the last run."
Copies = Mapping[Path, NotebookNode]  # the executed copy of each notebook, in reading order


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


def with_outputs_of(executed: NotebookNode | None, notebook: NotebookNode) -> NotebookNode:
    """A notebook as it stands, with what the same cells displayed when they were last executed, if ever."""
    last = {cell.id: cell for cell in executed.cells} if executed else {}
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.id in last:
            cell.outputs = last[cell.id].get("outputs", [])
    notebook.metadata |= executed.metadata if executed else {}
    return notebook


def checked(executed: NotebookNode) -> list[NotebookNode]:
    """The outputs of a chapter in which a claim, or a number beside recorded ones, was checked."""
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    return [output for output in outputs if "holds" in output.get("metadata", {}).get("mmgan", {})]


def status_page(copies: Copies) -> str:
    """The generated part of ``book/status.md``: how long each chapter took, what stood in, and what it claims."""
    rows = ["| chapter | seconds | checked | tier | executed | stood in |", "|---|---:|---:|---|---|---|"]
    lists = []
    for notebook, executed in copies.items():
        made, outputs = executed.metadata["mmgan"], checked(executed)
        cells = [f"[]({notebook.name})", made["seconds"], len(outputs), made["tier"], made["when"]]
        rows.append("| " + " | ".join(map(str, [*cells, "; ".join(made["stood_in"]) or "nothing"])) + " |")
        heading = next(line for cell in executed.cells for line in cell.source.splitlines() if line.startswith("# "))
        lists += [f"#{heading}", *(output.data["text/html"] for output in outputs)]
    total = sum(executed.metadata["mmgan"]["seconds"] for executed in copies.values())
    rows.append(f"| **all** | **{total:.1f}** | **{sum(map(len, map(checked, copies.values())))}** | | | |")
    return "\n\n".join(["\n".join(rows), *lists, ""])


def generated(root: Path, copies: Copies, report: str) -> dict[str, str]:
    """The files of ``book/`` that are written anew with every book."""
    return {
        "environment.txt": f"```text\n{report.rstrip()}\n```\n",
        "status.txt": status_page({notebook: copy for notebook, copy in copies.items() if "mmgan" in copy.metadata}),
        "modules.txt": f"{modules.page(root / 'mmgan_lib')}\n",
        "files.txt": f"{modules.files_page(root / 'mmgan_lib')}\n",
        "loop.txt": f"{modules.loop_page(root / 'mmgan_lib')}\n",
    }


def stage(root: Path, copies: Copies, report: str, source: Path, config: str | None = None) -> None:
    """Lay out what Sphinx reads in a folder; what it holds already stays untouched, so that Sphinx need not read it."""
    config = config or (root / "_config.yml").read_text()
    files = {name: (root / name).read_bytes() for name in ("_toc.yml", "CONTRIBUTING.md") if (root / name).exists()}
    files["_config.yml"] = config.encode()
    for path in (root / "book").rglob("*"):
        name = path.relative_to(root)
        if path.is_file() and path.suffix != ".ipynb" and not any(part.startswith(".") for part in name.parts):
            files[name.as_posix()] = path.read_bytes()
    for notebook, copy in copies.items():
        page = nbformat.writes(page_notebook(copy, notebook.stem))
        files[notebook.relative_to(root).as_posix()] = f"{page}\n".encode()
    files |= {f"book/{name}": text.encode() for name, text in generated(root, copies, report).items()}
    for path in [path for path in source.rglob("*") if path.is_file()]:
        if path.relative_to(source).as_posix() not in files:
            path.unlink()
    for name, content in files.items():
        path = source / name
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def sphinx(source: Path, output: Path, environment: Mapping[str, str], *options: str) -> tuple[Path, bool]:
    """Build what was staged, showing warnings; returns the folder of the pages, and whether Sphinx was content."""
    program = Path(sys.executable).with_name("jupyter-book")
    command = [program, "build", source, "--path-output", output, "-n", "-q", *options]
    made = subprocess.run(command, stdout=subprocess.DEVNULL, env=environment)
    return output / "_build" / "html", made.returncode == 0


def build(root: Path, copies: Copies, report: str, environment: Mapping[str, str]) -> Path | None:
    """Build the book with warnings as errors, and put it in the place of the old one; returns its first page.

    Returns None where Sphinx warned or failed; its words are shown.
    """
    source, fresh, html = (root / "_build" / name for name in ("source", "fresh", "html"))
    stage(root, copies, report, source)
    shutil.rmtree(fresh, ignore_errors=True)
    pages, content = sphinx(source, fresh, environment, "-W", "--keep-going")
    if not content:
        return None
    for notebook in copies:
        shutil.copy(notebook, pages / "_sources" / notebook.parent.name)  # the download button's
    shutil.rmtree(html, ignore_errors=True)
    shutil.move(pages, html)
    shutil.rmtree(fresh)
    return html / "index.html"


def preview(root: Path, copies: Copies, environment: Mapping[str, str]) -> Path | None:
    """Build a preview, of which Sphinx writes only what changed since the last one; returns its first page.

    Every page says what it is. Warnings are shown and do not matter; returns None where Sphinx failed.
    """
    config = yaml.safe_load((root / "_config.yml").read_text())
    config["sphinx"]["config"]["html_theme_options"]["announcement"] = PREVIEW
    folder = root / "_build" / "preview"
    stage(root, copies, PREVIEW, folder / "source", yaml.safe_dump(config, allow_unicode=True))
    pages, content = sphinx(folder / "source", folder, environment)
    return pages / "index.html" if content else None
