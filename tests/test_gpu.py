"""The script for minutes on a GPU, on the stand-in: what was reached counts, however it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from torch import Tensor, nn

from mmgan_lib.datasets.digit_sources import MNIST_SHA256
from tools import gpu, pack
from tools.stacked_mnist import score, stack

IMPORTS = "import torch\nfrom mmgan_lib import runtime\nfrom mmgan_lib.claims import claim\n"
HOLDS = "claim('One is odd.', holds=True, evidence={'rest': 1})"
FAILS = "claim('Two is odd.', holds=False, evidence={'rest': 0})"
NEVER_ENDS = "import pathlib, time\nwhile True:\n    pathlib.Path('alive').touch()\n    time.sleep(0.1)"


@pytest.fixture
def book(tmp_path: Path) -> Path:
    (tmp_path / "book").mkdir()
    return tmp_path / "book"


def write(book: Path, name: str, *sources: str) -> None:
    cells = [{"cell_type": "code", "id": f"cell-{i}", "source": [source]} for i, source in enumerate(sources)]
    (book / f"{name}.ipynb").write_text(json.dumps({"cells": cells}))


def start(book: Path, *arguments: str) -> tuple[subprocess.Popen, Path]:
    out = book.parent / "out" / "gpu.json"
    command = [sys.executable, "-m", "tools.gpu", "0", "--book", book, "--out", out, *arguments]
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True), out


def wait_for(condition: Callable[[], object]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.2)
    pytest.fail("waited for two minutes")


def test_chapters_run_on_the_stand_in_and_their_claims_are_kept_also_those_that_do_not_hold(book: Path) -> None:
    elsewhere = "assert str(torch.ones(1, device=runtime.device()).device) == 'standin:0'"
    write(book, "01_true", IMPORTS + HOLDS, elsewhere)
    write(book, "02_untrue", IMPORTS + FAILS, HOLDS)
    write(book, "03_breaks", IMPORTS + HOLDS, "torch.ones(2, device=runtime.device()) + torch.ones(2)", HOLDS)
    process, out = start(book, "--limit", "inf")
    assert process.wait() == 2  # failed
    report = json.loads(out.read_text())
    assert report["torch"] == version("torch")
    assert report["device"].startswith("standin")
    true, untrue, breaks = report["parts"].values()
    assert true["state"] == "done"
    assert true["claims"] == [{"cell": "cell-0", "claim": "One is odd.", "holds": True, "evidence": {"rest": 1}}]
    assert untrue["why"] == "RuntimeError: 1 of 2 claims do not hold"
    assert [claim["holds"] for claim in untrue["claims"]] == [False, True]
    assert breaks["state"] == "failed"
    assert breaks["why"].startswith("RuntimeError: cell 2 (id cell-1): RuntimeError: aten::add: expected all")
    assert len(breaks["claims"]) == 1


def test_a_part_whose_time_is_over_is_cut_off_and_the_next_has_its_turn(book: Path) -> None:
    write(book, "01_stuck", IMPORTS + HOLDS, NEVER_ENDS)
    write(book, "02_stuck", IMPORTS + HOLDS, NEVER_ENDS)
    began = time.monotonic()
    process, out = start(book, "--limit", "20")
    assert process.wait() == 0
    assert time.monotonic() - began < 60
    first, second = json.loads(out.read_text())["parts"].values()
    assert first["state"] == second["state"] == "cut off"
    assert first["why"].startswith("its share of the time was over")
    assert first["seconds"] >= second["seconds"] > 0  # half of the time, and then what is left


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_what_was_reached_counts_when_the_program_is_ended(book: Path, end: signal.Signals) -> None:
    write(book, "01_stuck", IMPORTS + HOLDS, NEVER_ENDS)
    write(book, "02_unreached", IMPORTS + HOLDS)
    process, out = start(book, "--limit", "inf")
    wait_for(lambda: out.exists() and json.loads(out.read_text())["parts"]["01_stuck"].get("claims"))
    wait_for((book / "alive").exists)
    os.kill(process.pid, end)
    process.wait()
    stuck, unreached = json.loads(out.read_text())["parts"].values()
    assert stuck["state"] == {signal.SIGTERM: "cut off", signal.SIGKILL: "running"}[end]
    assert stuck["claims"][0]["claim"] == "One is odd."
    assert unreached == {"state": "not reached"}
    wait_for(lambda: time.time() - (book / "alive").stat().st_mtime > 3)  # nothing outlives the program


def test_shorter_chapters_come_first_and_those_that_lack_bert_last(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "BERT", "no-such-package")
    write(book, "01_words", "bert = pretrained_bert()")
    for name in ("02_long", "03_unknown", "04_short"):
        write(book, name, "pass")
    known = {"01_words": 1.0, "02_long": 90.0, "04_short": 20.0}
    parts = gpu.chosen(book, [], known)
    assert [part.name for part in parts[3:]] == ["04_short", "02_long", "03_unknown", "01_words"]
    assert [part.name for part in parts[:3]] == ["bench", "cuda_tests", "stacked_mnist"]
    assert [gpu.lacks_bert(part) for part in parts] == [False] * 6 + [True]
    assert [part.share for part in parts[-2:]] == [0.5, 1.0]
    assert [part.name for part in gpu.chosen(book, ["04", "bench"], known)] == ["bench", "04_short"]


def test_a_name_that_is_no_part_is_refused(book: Path) -> None:
    command = [sys.executable, "-m", "tools.gpu", "nine", "--book", book]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "No part begins with nine; expected bench, cuda_tests, stacked_mnist or numbers of chapters such as 03.\n"
    )


def test_tests_that_are_skipped_without_cuda_are_found() -> None:
    code = (
        "from tools import gpu_parts; gpu_parts.cuda_tests(tell=lambda facts: print('\\n', *facts['tests'], sep='\\n'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = set(done.stdout.splitlines())
    assert "tests/test_datasets.py::TestLoader::test_drawing_on_a_gpu_never_waits_for_it" in told
    assert not any("test_runtime" in line for line in told)  # it plays CUDA, and needs none


class Reads(nn.Module):
    """Sure of the digit that the brightness of a picture tells."""

    def forward(self, pictures: Tensor) -> Tensor:
        return 99 * nn.functional.one_hot(pictures.mean(dim=(1, 2, 3)).round().long(), 10).float()


def test_stacked_digits_are_read_channel_by_channel_and_their_kinds_counted() -> None:
    digits = torch.arange(10.0)[:, None, None, None].expand(10, 1, 4, 4)
    pictures = stack(digits, 26_000, seed=1)
    assert pictures.shape == (26_000, 3, 4, 4)
    found = score(pictures, Reads(), device=torch.device("cpu"))
    assert found["kinds"] == found["sure kinds"] == found["of"] == 1000
    assert found["reverse KL"] == pytest.approx(999 / 2 / 26_000, rel=0.15)  # of a sample that is even: its bias
    one = score(digits[[1, 2, 3]].squeeze(1).expand(50, 3, 4, 4), Reads(), device=torch.device("cpu"))
    assert one["kinds"] == 1
    assert one["reverse KL"] == pytest.approx(torch.tensor(1000.0).log().item())


def test_what_has_no_room_is_left_out_of_the_luggage_and_the_rest_is_found_there(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(folder: Path, name: str, size: int) -> None:
        (folder / "site").mkdir()
        (folder / "site" / f"{name}.py").write_bytes(b"#" + os.urandom(size).hex().encode())

    contents = {name: partial(fill, name=name, size=n) for name, n in {"small": 1, "large": 10**5, "tiny": 1}.items()}
    pack.pack(tmp_path / "packed", contents, 2000)
    assert [path.name for path in sorted((tmp_path / "packed").iterdir())] == ["small.tar.xz", "tiny.tar.xz"]
    assert "left out" in capsys.readouterr().out.splitlines()[1]
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("PYTHONPATH", "MMGAN_DATA"):
        monkeypatch.setenv(name, "/nowhere")
    pack.unpack(tmp_path / "packed")
    subprocess.run([sys.executable, "-c", "import small, tiny"], check=True)


def test_the_luggage_holds_what_ipython_and_soundfile_need_there() -> None:
    assert {"ipython", "traitlets", "jedi", "parso", "cffi", "platformdirs"} <= pack.closure(pack.WANTED)
    assert not pack.closure(pack.WANTED) & {"numpy", "torch", "requests", "colorama"}


def test_mnist_travels_as_it_was_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = torch.randint(256, (6, 1, 28, 28), dtype=torch.uint8), torch.tensor([0, 1, 2, 3, 4, 9])
    monkeypatch.setattr(pack.digit_sources, "mnist", lambda train: (images, labels))
    pack.mnist(tmp_path)
    files = sorted((tmp_path / "data/mnist/MNIST/raw").iterdir())
    assert {file.name for file in files} == set(MNIST_SHA256)
    assert [file.read_bytes()[:4] for file in files] == [b"\0\0\x08\x03", b"\0\0\x08\x01"] * 2
    assert torch.equal(torch.frombuffer(bytearray(files[0].read_bytes()[16:]), dtype=torch.uint8), images.flatten())
    assert files[1].read_bytes()[8:] == bytes(labels.tolist())
