"""The chapters: what their sources keep to, and what must not be in their executed copies."""

import ast
import importlib
import inspect
import re
from collections import Counter
from itertools import groupby
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from test_layers import code

from tools import address, book

CHAPTERS = book.chapters(ROOT)
REPOSITORY, VERSION = address.project(ROOT)
SETUP = f"""\
import sys

if "google.colab" in sys.modules:
    %pip install -q git+{REPOSITORY}@v{VERSION}"""
PROGRESS = re.compile(r"\d+%\||\d+(it|ex|step)|\bit/s\b|s/it\b")  # what tqdm writes
MOST_LINES = 25
MOST_CODE_CELLS = 3

each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def test_every_notebook_is_in_the_book() -> None:
    assert sorted(CHAPTERS) == sorted((ROOT / "book").glob("*.ipynb"))


@each_chapter
def test_source_is_a_valid_notebook_without_outputs(path: Path) -> None:
    notebook = read(path)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}
    for cell in code_cells(notebook):
        assert (cell.outputs, cell.execution_count) == ([], None), cell.id


@each_chapter
def test_cell_ids_are_kept(path: Path) -> None:
    repeated = [name for name, count in Counter(cell.id for cell in read(path).cells).items() if count > 1]
    assert repeated == []


@each_chapter
def test_first_code_cell_installs_the_library_on_colab(path: Path) -> None:
    first = code_cells(read(path))[0]
    assert first.source == SETUP
    assert first.metadata.tags == ["setup"]


@each_chapter
def test_no_chapter_speaks_of_what_stood_in_for_recordings_once(path: Path) -> None:
    """Telephone tones have given way to synthetic speech, which the library chooses by itself where it has to."""
    text = "\n".join(cell.source for cell in read(path).cells)
    assert re.findall(r"DataUnavailable|DialDigits|\b[Dd]ial\b|telephone tone", text) == []


@each_chapter
def test_no_chapter_catches_what_a_failed_download_raises(path: Path) -> None:
    caught = [ast.unparse(node.type) for node in ast.walk(ast.parse(code(path))) if isinstance(node, ast.ExceptHandler)]
    network = {"DataUnavailable", "OSError", "IOError", "ConnectionError", "TimeoutError", "URLError", "HTTPError"}
    assert [name for name in caught if network & set(re.findall(r"\w+", name))] == []


@each_chapter
def test_rhythm_of_words_and_code(path: Path) -> None:
    notebook = read(path)
    long = [cell.id for cell in code_cells(notebook) if len(cell.source.splitlines()) > MOST_LINES]
    assert long == [], f"cells of more than {MOST_LINES} lines"
    runs = [
        [cell.id for cell in run]
        for kind, run in groupby(notebook.cells, lambda cell: cell.cell_type)
        if kind == "code"
    ]
    assert [run for run in runs if len(run) > MOST_CODE_CELLS] == [], f"more than {MOST_CODE_CELLS} code cells in a row"


def documented() -> set[str]:
    """The modules on the page of the library, and the names that it documents."""
    page = (ROOT / "book" / "api.md").read_text()
    modules = re.findall(r"(?m)^\.\. automodule:: (\S+)", page)
    found = {*modules, *re.findall(r"(?m)^\.\. auto(?:class|function):: (\S+)", page)}
    found |= {f"{module}.{name}" for name, module in re.findall(r"(?m)^\.\. py:data:: (\w+)\n +:module: (\S+)", page)}
    for path in modules:
        module = importlib.import_module(path)
        own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == path]
        own += re.findall(r"(?m)^#: .*\n(\w+)", inspect.getsource(module))  # data whose comment is its documentation
        found |= {f"{path}.{name}" for name in getattr(module, "__all__", own) if name[0] != "_"}
    return found


@each_chapter
def test_what_a_chapter_imports_is_documented(path: Path) -> None:
    imports = [node for node in ast.walk(ast.parse(code(path))) if isinstance(node, ast.ImportFrom)]
    names = {f"{node.module}.{alias.name}" for node in imports for alias in node.names}
    assert {name for name in names if name.startswith("mmgan_lib")} - documented() == set()


@each_chapter
def test_claims_are_checked(path: Path) -> None:
    assert any(re.search(r"(?m)^\s*claim\(", cell.source) for cell in code_cells(read(path)))


def executed(path: Path) -> nbformat.NotebookNode:
    copy = book.read_executed(ROOT, path)
    if copy is None:
        pytest.fail(f"{path.name} has no executed copy: run `make book` first")
    return copy


def outputs(path: Path) -> list[tuple[str, nbformat.NotebookNode]]:
    return [(cell.id, output) for cell in code_cells(executed(path)) for output in cell.outputs]


@pytest.mark.book
@each_chapter
def test_executed_copy_is_of_this_source(path: Path) -> None:
    ours, theirs = ([(cell.id, cell.source) for cell in notebook.cells] for notebook in (read(path), executed(path)))
    assert theirs == ours


@pytest.mark.book
@each_chapter
def test_executed_copy_has_neither_errors_nor_warnings(path: Path) -> None:
    assert [(cell, output.ename) for cell, output in outputs(path) if output.output_type == "error"] == []
    streams = [(cell, output.text) for cell, output in outputs(path) if output.get("name") == "stderr"]
    lines = [(cell, line.strip()) for cell, text in streams for line in re.split(r"[\r\n]", text)]
    assert [(cell, line) for cell, line in lines if line and not PROGRESS.search(line)] == []


@pytest.mark.book
@each_chapter
def test_executed_copy_shows_no_message_of_a_download(path: Path) -> None:
    texts = [
        (cell, str(output.get("text", output.get("data", {}).get("text/plain")))) for cell, output in outputs(path)
    ]
    message = re.compile(r"DataUnavailable|could not be (?:downloaded|had)|Max retries exceeded|ConnectionError")
    assert [(cell, text) for cell, text in texts if message.search(text)] == []


@pytest.mark.book
@each_chapter
def test_every_figure_says_what_it_shows(path: Path) -> None:
    shown = [(cell, output, output.get("metadata", {}).get("mmgan", {})) for cell, output in outputs(path)]
    figures = [(cell, about) for cell, out, about in shown if "caption" in about or "image/png" in out.get("data", {})]
    assert figures
    for cell, about in figures:
        assert about.get("caption"), f"cell {cell}: a figure without a caption"
        assert len(about.get("alt", "").split()) > 4, f"cell {cell}: a figure whose alt text does not say what it shows"


@pytest.mark.book
@each_chapter
def test_claims_hold_in_the_executed_copy(path: Path) -> None:
    shown = [output.get("metadata", {}).get("mmgan", {}) for _, output in outputs(path)]
    claims = {about["claim"]: about["holds"] for about in shown if "claim" in about}
    assert claims
    assert all(claims.values()), claims
