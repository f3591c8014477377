"""pyproject.toml is the one source: of packages, of the repository's address, of the version."""

import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from packaging.requirements import Requirement

import mmgan_lib
from tools import address

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WITHOUT_REQUIREMENTS = {about["name"]: about for about in PROJECT["tool"]["uv"]["dependency-metadata"]}
COLAB = {
    "ipywidgets": "7.7.1",
    "matplotlib": "3.10.0",
    "numpy": "2.1.0",
    "torch": "2.11.0",
    "torchvision": "0.26.0",
    "transformers": "5.15.0",
}
HEAVY = ["IPython", "ipywidgets", "pooch", "sklearn", "soundfile", "torchvision", "transformers"]
SECONDS_TO_IMPORT = 0.3


def test_conda_environment_names_the_same_packages() -> None:
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, _, pip = conda["dependencies"]
    assert python == f"python{PROJECT['project']['requires-python']}"
    groups = PROJECT["dependency-groups"]
    extras = PROJECT["project"]["optional-dependencies"]
    assert all(set(extra) <= set(groups["test"]) for extra in extras.values())
    book = [line for line in groups["book"] if Requirement(line).name not in WITHOUT_REQUIREMENTS]
    assert pip["pip"] == ["--editable .", *PROJECT["project"]["dependencies"], *book, *groups["test"]]


def test_conda_environment_says_how_to_have_what_pip_would_install_too_much_for() -> None:
    """Only uv can install a package without what it requires and the others with it."""
    left_out = [line for line in PROJECT["dependency-groups"]["book"] if Requirement(line).name in WITHOUT_REQUIREMENTS]
    assert {Requirement(line).name for line in left_out} == set(WITHOUT_REQUIREMENTS)
    words = (ROOT / "environment.yml").read_text().replace("#", "").split()
    assert " ".join(["pip install --no-deps with", *left_out]) in " ".join(words)


def test_packages_without_requirements_are_the_pinned_ones() -> None:
    """An override for another version than the group pins would be passed over, and what it requires installed."""
    pinned = {Requirement(line).name: line for line in PROJECT["dependency-groups"]["book"]}
    for name, about in WITHOUT_REQUIREMENTS.items():
        assert pinned[name] == f"{name}=={about['version']}"
        assert about["requires-dist"] == []


@pytest.mark.parametrize(("package", "version"), COLAB.items())
def test_library_installs_on_colab_without_touching_its_packages(package: str, version: str) -> None:
    requirements = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
    assert any(wanted.name == package and wanted.specifier.contains(version) for wanted in requirements)


@pytest.mark.parametrize(("package", "version"), [("torch", "2.11.0"), ("torchvision", "0.26.0")])
def test_lock_pins_what_the_book_was_made_with(package: str, version: str) -> None:
    locked = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    assert {entry["version"] for entry in locked if entry["name"] == package} == {version}


def test_library_tells_its_version() -> None:
    assert mmgan_lib.__version__ == PROJECT["project"]["version"]


def test_import_is_light_and_silent() -> None:
    modules = [module.name for module in pkgutil.walk_packages(mmgan_lib.__path__, "mmgan_lib.")]
    assert "mmgan_lib.runtime" in modules
    code = f"import sys, {', '.join(modules)}; print(*(sys.modules.keys() & {set(HEAVY)}), end='')"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("", "")


def test_import_takes_little_time_beside_torch_and_matplotlib() -> None:
    modules = [module.name for module in pkgutil.walk_packages(mmgan_lib.__path__, "mmgan_lib.")]
    clock = "began = time.process_time(); import {}; print(time.process_time() - began)".format(", ".join(modules))
    code = f"import time, torch, matplotlib.figure; {clock}"
    for _ in range(3):  # a busy machine can make one import slow, not three
        took = float(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True))
        if took <= SECONDS_TO_IMPORT:
            break
    assert took <= SECONDS_TO_IMPORT


@pytest.mark.parametrize("path", address.files(ROOT), ids=lambda path: path.name)
def test_address_and_version_stand_as_pyproject_says(path: Path) -> None:
    ours, version = address.project(ROOT)
    text = path.read_text()
    assert address.rewrite(text, address=ours, version=version) == text, "run `make address`"

    moved = address.rewrite(text, address="https://github.com/me/fork", version="9.9.9")
    slug = ours.removeprefix("https://github.com/")
    assert slug not in moved
    assert f"v{version}" not in moved


def test_address_stands_in_every_file_that_needs_it() -> None:
    ours, version = address.project(ROOT)
    assert f"url: {ours}\n" in (ROOT / "_config.yml").read_text()
    assert f"repository-code: {ours}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"branch: v{version}\n" in (ROOT / "_config.yml").read_text()
    colab = f"colab.research.google.com/github/{ours.removeprefix('https://github.com/')}/blob/v{version}/book"
    for notebook in (ROOT / "book").glob("*.ipynb"):
        assert f"{colab}/{notebook.name}" in (ROOT / "README.md").read_text()


def test_one_command_moves_the_repository(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "book").mkdir()
    for path in [ROOT / "pyproject.toml", *address.files(ROOT)]:
        (tmp_path / path.relative_to(ROOT)).write_text(path.read_text())
    monkeypatch.setattr(sys, "argv", ["address.py", "https://github.com/me/fork"])
    address.main(tmp_path)
    assert address.project(tmp_path)[0] == "https://github.com/me/fork"
    slug = address.project(ROOT)[0].removeprefix("https://github.com/")
    for path in [tmp_path / "pyproject.toml", *address.files(tmp_path)]:
        assert slug not in path.read_text(), path.name

    monkeypatch.setattr(sys, "argv", ["address.py", "github.com/me"])
    with pytest.raises(
        SystemExit, match=r"'github.com/me' is not an address .* expected https://github.com/OWNER/NAME"
    ):
        address.main(tmp_path)


def test_make_alone_prints_a_line_for_each_target() -> None:
    make = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = make.stdout.splitlines()
    phony = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith(".PHONY:"))
    assert [line.split()[:2] for line in lines] == [["make", target] for target in phony.split()[1:]]
    assert all(len(line.split()) > 2 for line in lines)
