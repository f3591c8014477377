"""Faults planted in a small project: the build must name them, and lose nothing that was done."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools import book

RUNTIME = """\
WORD = "apple"


def report():
    return "tier quick\\ndevice cpu (test)"
"""
USES_LIBRARY = "import sys\n\nfrom mmgan_lib.runtime import WORD\n\nprint(f'word: {WORD}; python: {sys.executable}')"
SHOWS_TWO_FIGURES = """\
from IPython.display import HTML, display

for word in ("first", "second"):
    about = {"alt": f"Alt of the {word}.", "caption": f"Caption of the *{word}*."}
    display({"image/png": "iVBORw0KGgo=", "text/html": "<i>unseen</i>"}, raw=True, metadata={"mmgan": about})
display(HTML("<b>after both</b>"))
"""
MACHINE = {"tier": "quick", "device": "cpu (test)"}


def write_notebook(project: Path, name: str, *sources: str) -> Path:
    cells = [new_markdown_cell(f"# Chapter {name}", id="title")]
    cells += [new_code_cell(source, id=f"code-{number}") for number, source in enumerate(sources)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path = project / "book" / f"{name}.ipynb"
    nbformat.write(new_notebook(cells=cells, metadata=kernel | {"language_info": {"name": "python"}}), path)
    return path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A book of one page of text and two chapters, with this book's settings and a library of one word."""
    for name in ("_config.yml", "book/references.bib", "book/_static"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (tmp_path / name).parent.mkdir(exist_ok=True)
        copy(ROOT / name, tmp_path / name)
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: book/intro\n"
        "parts: [{numbered: true, chapters: [{file: book/01_one}, {file: book/02_two}]}]\n"
    )
    (tmp_path / "book" / "intro.md").write_text("# Intro\n\n```{include} environment.txt\n```\n")
    (tmp_path / "uv.lock").write_text("lock")
    (tmp_path / "mmgan_lib").mkdir()
    (tmp_path / "mmgan_lib" / "__init__.py").touch()
    (tmp_path / "mmgan_lib" / "runtime.py").write_text(RUNTIME)
    write_notebook(tmp_path, "01_one", USES_LIBRARY)
    write_notebook(tmp_path, "02_two", SHOWS_TWO_FIGURES)
    return tmp_path


def command(project: Path) -> list[str]:
    return [sys.executable, str(ROOT / "tools" / "book.py"), "--root", str(project)]


def make_book(project: Path) -> subprocess.CompletedProcess:
    return subprocess.run(command(project), capture_output=True, text=True)


def test_only_what_changed_is_executed_again(project: Path) -> None:
    first = make_book(project)
    assert first.returncode == 0, first.stderr
    assert str(project / "_build" / "html" / "index.html") in first.stdout
    for name in ("01_one", "02_two"):
        assert f"book/{name}.ipynb: executed in" in first.stdout
    page = project / "_build" / "html" / "book" / "01_one.html"
    assert f"word: apple; python: {sys.executable}" in page.read_text()
    assert "cpu (test)" in (project / "_build" / "html" / "book" / "intro.html").read_text()

    figures = (project / "_build" / "html" / "book" / "02_two.html").read_text()
    for number, word in enumerate(("first", "second"), start=1):
        assert f'alt="Alt of the {word}."' in figures
        assert re.search(rf"Fig. 2.{number} .*<em>{word}</em>", figures)
    assert figures.count("<b>after both</b>") == 1
    assert figures.count("IPython.display</span>") == 1  # the code of a cell that was split is shown once
    assert "<i>unseen</i>" not in figures

    second = make_book(project)
    assert second.returncode == 0
    assert second.stdout.count(": unchanged") == 2
    assert "executing" not in second.stdout

    (project / "mmgan_lib" / "runtime.py").write_text(RUNTIME.replace("apple", "pear"))
    third = make_book(project)
    assert third.stdout.count(": executed in") == 2
    assert "word: pear" in page.read_text()


def test_failing_cell_is_named_and_chapters_before_it_are_kept(project: Path) -> None:
    write_notebook(project, "02_two", "x = 0", "y = 1\n\ny / x\nx = 2", "print('never')")
    made = make_book(project)
    assert made.returncode == 1
    assert made.stderr.endswith("book/02_two.ipynb, cell 3 (id code-1), line 3: ZeroDivisionError: division by zero\n")
    assert book.read_executed(project, project / "book" / "01_one.ipynb") is not None
    assert book.read_executed(project, project / "book" / "02_two.ipynb") is None
    assert not (project / "_build" / "html").exists()


def test_dead_kernel_fails_with_the_name_of_the_notebook(project: Path) -> None:
    dead = write_notebook(project, "02_two", "import os\n\nos._exit(1)")
    with pytest.raises(book.BookError, match=r"DeadKernelError[\s\S]*book/02_two.ipynb did not run to its end"):
        book.execute(project, dead)


@pytest.mark.parametrize("interruption", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_keeps_finished_chapters(project: Path, interruption: signal.Signals, capsys) -> None:
    pid = project / "pid"
    write_notebook(
        project, "02_two", f"import os, time\n\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\ntime.sleep(300)"
    )
    attentive = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # else deaf to it, if these tests are: as after &
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command(project), preexec_fn=attentive, **pipes) as running:
        wait_until(lambda: pid.exists() and pid.read_text())
        running.send_signal(interruption)
        _, told = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "the chapters that were done are kept" in told
    wait_until(lambda: not alive(int(pid.read_text())))

    write_notebook(project, "02_two", "1 + 1")
    book.execute_changed(project, MACHINE)
    printed = capsys.readouterr().out
    assert "01_one.ipynb: unchanged" in printed
    assert "02_two.ipynb: executed in" in printed


def wait_until(true, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] != "Z" if Path("/proc").exists() else True


def test_sphinx_warning_fails_and_the_old_book_stays(project: Path) -> None:
    (project / "_toc.yml").write_text("format: jb-book\nroot: book/intro\n")
    (project / "book" / "intro.md").write_text("# Intro\n\nSee [the chapter](#nowhere).\n")
    old = project / "_build" / "html" / "index.html"
    old.parent.mkdir(parents=True)
    old.write_text("old")
    made = make_book(project)
    assert made.returncode == 1
    assert "WARNING" in made.stderr
    assert "nowhere" in made.stderr
    assert old.read_text() == "old"


def test_the_key_follows_everything_that_a_chapter_depends_on(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MMGAN_SEED", "MMGAN_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    notebook = write_notebook(project, "01_one", "read('seeds.json')")
    (project / "book" / "results").mkdir()
    (project / "mmgan_lib" / "weights.safetensors").write_bytes(b"1")
    keys = {book.chapter_key(project, notebook, "full")}

    def changes(path: str, text: str) -> bool:
        (project / path).write_text(text)
        before = len(keys)
        keys.add(book.chapter_key(project, notebook, "quick"))
        return len(keys) > before

    assert changes("uv.lock", "lock")  # the tier
    for name, value in (("MMGAN_SEED", "5"), ("MMGAN_DEVICE", "cuda:1")):
        monkeypatch.setenv(name, value)
        assert changes("uv.lock", "lock")
    assert changes("uv.lock", "another lock")
    assert changes("mmgan_lib/runtime.py", RUNTIME + "\n")
    assert changes("mmgan_lib/weights.safetensors", "2")
    assert changes("book/results/seeds.json", "{}")
    assert changes("book/results/seeds.json", "[]")
    assert not changes("book/results/others.json", "{}")
    assert not changes("book/intro.md", "# Other words")
    write_notebook(project, "01_one", "read('seeds.json')", "1")
    assert changes("book/results/seeds.json", "[]")  # the notebook


def figure(words: str) -> nbformat.NotebookNode:
    about = {"mmgan": {"alt": f"Alt of {words}.", "caption": f"Caption of {words}."}}
    return new_output("display_data", data={"image/png": ""}, metadata=about)


def test_each_figure_gets_a_cell_of_its_own() -> None:
    text = new_output("stream", text="hello")
    claim = new_output("display_data", data={"text/html": "claim"}, metadata={"mmgan": {"claim": "It is so."}})
    outputs = [text, figure("one"), text, figure("two"), claim, claim, figure("three")]
    pieces = book.figure_cells(
        new_code_cell("plot()", id="ring", outputs=outputs, metadata={"tags": ["wide"]}), "03_gan"
    )
    assert [piece.outputs for piece in pieces] == [outputs[:3], outputs[3:4], outputs[4:6], outputs[6:]]
    assert [piece.metadata.tags for piece in pieces] == [["wide"], *[["wide", "remove-input", "continued"]] * 3]
    names = [piece.metadata.get("mystnb", {}).get("figure", {}).get("name") for piece in pieces]
    assert names == ["fig-03_gan-ring", "fig-03_gan-ring-1", None, "fig-03_gan-ring-3"]
    assert pieces[1].metadata.mystnb.image == {"alt": "Alt of two."}
    assert pieces[1].metadata.mystnb.figure.caption == "Caption of two."


def test_status_tells_what_every_chapter_took_and_checked() -> None:
    def chapter(title: str, seconds: float, *claims: str) -> nbformat.NotebookNode:
        cell = new_code_cell("claim(…)", id="claims")
        for claim in claims:
            told = {"metadata": {"mmgan": {"claim": claim, "holds": True}}, "data": {"text/html": f"<p>{claim}</p>"}}
            cell.outputs.append(new_output("display_data", **told))
        cell.outputs.append(new_output("display_data", {"text/html": "<p>no claim</p>"}))
        made = MACHINE | {"seconds": seconds, "when": "today"}
        return new_notebook(cells=[new_markdown_cell(f"(label)=\n# {title}"), cell], metadata={"mmgan": made})

    copies = {Path("01.ipynb"): chapter("One", 1.5, "first"), Path("02.ipynb"): chapter("Two", 2.0, "second", "third")}
    page = book.status_page(copies)
    rows = ["| [](01.ipynb) | 1.5 | 1 | quick |", "| [](02.ipynb) | 2.0 | 2 | quick |", "| **all** | **3.5** | **3** |"]
    assert all(row in page for row in rows)
    assert re.findall(r"(?:## |<p>)(\w+)", page) == ["One", "first", "Two", "second", "third"]
