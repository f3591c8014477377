"""Faults planted in a small project: the build must name them, and lose nothing that was done."""

import inspect
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

from mmgan_lib import runtime
from tools import book, execution, pages

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


def write_toc(project: Path, *names: str) -> None:
    chapters = ", ".join(f"{{file: book/{name}}}" for name in names)
    text = f"format: jb-book\nroot: book/intro\nparts: [{{numbered: true, chapters: [{chapters}]}}]\n"
    (project / "_toc.yml").write_text(text)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A book of one page of text and two chapters, with this book's settings and a library of one word and one loop."""
    for name in ("_config.yml", "book/references.bib", "book/_static"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (tmp_path / name).parent.mkdir(exist_ok=True)
        copy(ROOT / name, tmp_path / name)
    write_toc(tmp_path, "01_one", "02_two")
    (tmp_path / "book" / "intro.md").write_text("# Intro\n\n```{include} environment.txt\n```\n")
    (tmp_path / "uv.lock").write_text("lock")
    (tmp_path / "mmgan_lib").mkdir()
    (tmp_path / "mmgan_lib" / "__init__.py").touch()
    (tmp_path / "mmgan_lib" / "runtime.py").write_text(RUNTIME)
    (tmp_path / "mmgan_lib" / "training").mkdir()
    (tmp_path / "mmgan_lib" / "training" / "gan.py").write_text("def fit_gan() -> None: ...\n")
    write_notebook(tmp_path, "01_one", USES_LIBRARY)
    write_notebook(tmp_path, "02_two", SHOWS_TWO_FIGURES)
    return tmp_path


def command(project: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "tools.book", "--root", str(project), *options]


def make_book(project: Path, *options: str, **variables: str) -> subprocess.CompletedProcess:
    command_line, variables = command(project, *options), os.environ | variables
    return subprocess.run(command_line, capture_output=True, text=True, cwd=ROOT, env=variables)


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


WAITS = """\
import time
from pathlib import Path

def wait_until(true):
    while not true():
        time.sleep(0.05)
"""
ENDED = f"""{WAITS}
import os

def ended(told):
    try:
        os.kill(int(told.read_text()), 0)
    except (ProcessLookupError, FileNotFoundError, ValueError) as error:
        return isinstance(error, ProcessLookupError)  # else nothing told yet
"""


def test_chapters_are_executed_side_by_side_each_with_one_thread(project: Path, monkeypatch) -> None:
    monkeypatch.setenv("MMGAN_JOBS", "2")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    meets = WAITS + "import os\nPath({!r}).touch()\nwait_until(Path({!r}).exists)\nprint(os.environ['OMP_NUM_THREADS'])"
    one, two = str(project / "one"), str(project / "two")
    write_notebook(project, "01_one", meets.format(one, two))
    write_notebook(project, "02_two", meets.format(two, one))
    copies = book.execute_changed(project, MACHINE)
    assert [notebook.stem for notebook in copies] == ["01_one", "02_two"]
    assert [copy.cells[1].outputs[0].text for copy in copies.values()] == ["1\n", "1\n"]


def test_a_chapter_that_took_long_or_was_never_executed_comes_first(project: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("MMGAN_JOBS", "1")
    names = ["01_quick", "02_slow", "03_new", "04_new_and_large"]
    write_toc(project, *names)
    for name, source in zip(names, ("1", "1", "1", "1 + 1"), strict=True):
        notebook = write_notebook(project, name, source)
        if "new" not in name:
            copy = nbformat.read(notebook, as_version=4)
            copy.metadata["mmgan"] = {"key": "old", "seconds": 100 if "slow" in name else 9.5}
            book.write_executed(project, notebook, copy)
    copies = book.execute_changed(project, MACHINE)
    done = re.findall(r"book/(\w+).ipynb: executed in", capsys.readouterr().out)
    assert done == ["04_new_and_large", "03_new", "02_slow", "01_quick"]
    assert [notebook.stem for notebook in copies] == names


@pytest.mark.parametrize("number", ["0", "-1", "two", "1.5"])
def test_a_number_of_chapters_that_makes_no_sense_is_refused(project: Path, number: str) -> None:
    made = make_book(project, MMGAN_JOBS=number)
    assert made.returncode == 1
    assert made.stderr == f"\nMMGAN_JOBS is {number!r}; expected a whole number from 1 on.\n"
    assert not (project / "_build").exists()


def test_as_many_chapters_at_once_as_there_are_cores_and_memory_for_them(monkeypatch) -> None:
    monkeypatch.setenv("MMGAN_JOBS", "")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16), raising=False)
    memory = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 64e9 / 4096}
    monkeypatch.setattr(os, "sysconf", memory.__getitem__)
    assert execution.jobs() == 16
    memory["SC_PHYS_PAGES"] = 8e9 / 4096
    assert execution.jobs() == 4
    memory["SC_PHYS_PAGES"] = 1e9 / 4096
    assert execution.jobs() == 1


def test_failing_cell_is_named_last_and_what_runs_beside_it_is_kept(project: Path) -> None:
    write_toc(project, "01_one", "02_two", "03_three")
    nbmake = project / "nbmake"  # its process; gone once its end was noticed
    write_notebook(project, "01_one", f"import os\n\nopen({str(nbmake)!r}, 'w').write(str(os.getppid()))\n1 / 0", "2")
    write_notebook(project, "02_two", ENDED + f"wait_until(lambda: ended(Path({str(nbmake)!r})))", "3")
    write_notebook(project, "03_three", "4")
    made = make_book(project, MMGAN_JOBS="2")
    assert made.returncode == 1
    named = "book/01_one.ipynb, cell 2 (id code-0), line 4: ZeroDivisionError: division by zero\n"
    assert made.stderr.endswith(named)
    assert made.stdout.endswith(f"  {named}  book/02_two.ipynb: executed in {kept_seconds(project, '02_two')} s\n")
    assert not (project / "_build" / "executed" / "01_one.ipynb").exists()
    assert not (project / "_build" / "executed" / "03_three.ipynb").exists()
    assert not (project / "_build" / "html").exists()


def kept_seconds(project: Path, name: str) -> float:
    return book.read_executed(project, project / "book" / f"{name}.ipynb").metadata.mmgan.seconds


def test_dead_kernel_fails_with_the_name_of_the_notebook(project: Path) -> None:
    dead = write_notebook(project, "02_two", "import os\n\nos._exit(1)")
    with pytest.raises(book.BookError, match=r"DeadKernelError[\s\S]*book/02_two.ipynb did not run to its end"):
        book.execute(project, dead)


@pytest.mark.parametrize("interruption", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_ends_every_kernel_and_keeps_finished_chapters(project: Path, interruption, capsys) -> None:
    write_toc(project, "01_one", "02_two", "03_three")
    pids = [project / "pid 2", project / "pid 3"]
    for name, pid in zip(("02_two", "03_three"), pids, strict=True):
        write_notebook(
            project, name, f"import os, time\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\ntime.sleep(300)"
        )
    attentive = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # else deaf to it, if these tests are: as after &
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    three = {"env": os.environ | {"MMGAN_JOBS": "3"}, "cwd": ROOT}
    with subprocess.Popen(command(project), preexec_fn=attentive, **pipes, **three) as running:
        wait_until((project / "_build" / "executed" / "01_one.ipynb").exists)
        wait_until(lambda: all(pid.exists() and pid.read_text() for pid in pids))
        running.send_signal(interruption)
        _, told = running.communicate()
    assert running.returncode == 130
    assert "the chapters that were done are kept" in told
    wait_until(lambda: not any(alive(int(pid.read_text())) for pid in pids))

    for name in ("02_two", "03_three"):
        write_notebook(project, name, "1 + 1")
    book.execute_changed(project, MACHINE)
    printed = capsys.readouterr().out
    assert "01_one.ipynb: unchanged" in printed
    assert "02_two.ipynb: executed in" in printed


def wait_until(true) -> None:  # in vain: until pytest's own time-out
    while not true():
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
    pieces = pages.figure_cells(
        new_code_cell("plot()", id="ring", outputs=outputs, metadata={"tags": ["wide"]}), "03_gan"
    )
    assert [piece.outputs for piece in pieces] == [outputs[:3], outputs[3:4], outputs[4:6], outputs[6:]]
    assert [piece.metadata.tags for piece in pieces] == [["wide"], *[["wide", "remove-input", "continued"]] * 3]
    names = [piece.metadata.get("mystnb", {}).get("figure", {}).get("name") for piece in pieces]
    assert names == ["fig-03_gan-ring", "fig-03_gan-ring-1", None, "fig-03_gan-ring-3"]
    assert pieces[1].metadata.mystnb.image == {"alt": "Alt of two."}
    assert pieces[1].metadata.mystnb.figure.caption == "Caption of two."


def test_status_tells_what_every_chapter_took_checked_and_replaced() -> None:
    def chapter(title: str, seconds: float, *claims: str, stood_in: list[str]) -> nbformat.NotebookNode:
        cell = new_code_cell("claim(…)", id="claims")
        for claim in claims:
            told = {"metadata": {"mmgan": {"claim": claim, "holds": True}}, "data": {"text/html": f"<p>{claim}</p>"}}
            cell.outputs.append(new_output("display_data", **told))
        cell.outputs.append(new_output("display_data", {"text/html": "<p>no claim</p>"}))
        made = MACHINE | {"seconds": seconds, "when": "today", "stood_in": stood_in}
        return new_notebook(cells=[new_markdown_cell(f"(label)=\n# {title}"), cell], metadata={"mmgan": made})

    one = chapter("One", 1.5, "first", stood_in=[])
    two = chapter("Two", 2.0, "second", "third", stood_in=["a for b", "c for d"])
    page = pages.status_page({Path("01.ipynb"): one, Path("02.ipynb"): two})
    assert "| [](01.ipynb) | 1.5 | 1 | quick | today | nothing |" in page
    assert "| [](02.ipynb) | 2.0 | 2 | quick | today | a for b; c for d |" in page
    assert "| **all** | **3.5** | **3** |" in page
    assert re.findall(r"(?:## |<p>)(\w+)", page) == ["One", "first", "Two", "second", "third"]


def test_a_book_in_which_something_stood_in_is_not_published(project: Path, capsys) -> None:
    library = f"import os\n\n{RUNTIME}\n{inspect.getsource(runtime.stood_in)}"
    (project / "mmgan_lib" / "runtime.py").write_text(library)
    there = project / "recordings"
    note = f"if not os.path.exists({str(there)!r}):\n    stood_in('synthetic speech for recordings')"
    write_notebook(project, "01_one", f"import os\nfrom mmgan_lib.runtime import stood_in\n\n{note}\n{note}\n1")
    refused = make_book(project, "--publish")
    assert refused.returncode == 1
    assert refused.stderr.endswith("real thing:\n  book/01_one.ipynb: synthetic speech for recordings\n")
    assert not (project / "_build" / "html").exists()

    book.execute_changed(project, MACHINE)  # at home it can be read: nothing is executed again
    assert capsys.readouterr().out.count(": unchanged, executed in") == 2
    there.touch()
    published = make_book(project, "--publish")
    assert published.returncode == 0, published.stderr
    assert re.findall(r"(\w+).ipynb: executed in", published.stdout) == ["01_one"]


def test_a_preview_shows_the_text_as_it_stands_with_the_figures_of_the_last_run(project: Path) -> None:
    book.execute_changed(project, MACHINE)
    kept = {path: path.read_bytes() for path in (project / "_build" / "executed").iterdir()}
    (project / "mmgan_lib" / "runtime.py").write_text(RUNTIME.replace("apple", "pear"))
    write_toc(project, "01_one", "02_two", "03_new")
    write_notebook(project, "03_new", "print('never run')")
    two = nbformat.read(project / "book" / "02_two.ipynb", as_version=4)
    two.cells[0].source = "# Another title\n\nNew words."
    two.cells.insert(1, new_code_cell("'a new cell'", id="new"))
    nbformat.write(two, project / "book" / "02_two.ipynb")
    made = make_book(project, "--preview")
    assert made.returncode == 0, made.stderr
    assert "book/03_new.ipynb was never executed" in made.stdout
    assert "A preview, not the book" in made.stdout
    html = project / "_build" / "preview" / "_build" / "html"
    assert str(html / "index.html") in made.stdout
    page = (html / "book" / "02_two.html").read_text()
    for words in ("New words.", "a new cell", 'alt="Alt of the second."', pages.PREVIEW):
        assert words in page
    assert "word: apple" in (html / "book" / "01_one.html").read_text()
    assert {path: path.read_bytes() for path in (project / "_build" / "executed").iterdir()} == kept
    assert not (project / "_build" / "html").exists()

    chapters = [html / "book" / f"{name}.html" for name in ("01_one", "02_two", "03_new")]
    pages_then = {path: path.stat().st_mtime_ns for path in chapters}
    write_notebook(project, "03_new", "print('never run')", "print('changed')")
    assert make_book(project, "--preview").returncode == 0
    changed = [path.stem for path, then in pages_then.items() if path.stat().st_mtime_ns != then]
    assert changed == ["03_new"]
