"""Device, tier and seeds under the environment's orders, and what the report says of them."""

import os
import random
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import matplotlib
import numpy as np
import pytest
import torch
import torchvision
from conftest import ROOT

import mmgan_lib
from mmgan_lib import runtime

VARIABLES = ("MMGAN_DEVICE", "MMGAN_TIER", "MMGAN_SEED")


@pytest.fixture(autouse=True)
def _no_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(autouse=True)
def _leave_randomness_alone():
    python, numpy, pytorch = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(python), np.random.set_state(numpy), torch.set_rng_state(pytorch)


@pytest.fixture(params=[False, True], ids=["without_cuda", "with_cuda"])
def cuda(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2 if request.param else 0)
    return request.param


def test_cuda_where_there_is_one_and_then_the_full_tier(cuda: bool) -> None:
    assert runtime.device() == torch.device("cuda" if cuda else "cpu")
    assert runtime.tier() == ("full" if cuda else "quick")
    assert runtime.by_tier(quick=1, full=2) == (2 if cuda else 1)


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:1", "mps"])
def test_the_environment_chooses_the_device(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setenv("MMGAN_DEVICE", name)
    assert runtime.device() == torch.device(name)
    assert runtime.tier() == ("full" if name.startswith("cuda") else "quick")


@pytest.mark.parametrize("name", ["cuda:7", "cuda", "mps", "xpu", "meta"])
def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, cuda: bool, name: str) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setenv("MMGAN_DEVICE", name)
    if cuda and name == "cuda":
        assert runtime.device() == torch.device("cuda")
        return
    with pytest.raises(ValueError, match=rf"^MMGAN_DEVICE is '{name}'; expected .* where there is one\.$"):
        runtime.device()


@pytest.mark.parametrize("chosen", ["quick", "full"])
def test_the_environment_chooses_the_tier(monkeypatch: pytest.MonkeyPatch, cuda: bool, chosen: str) -> None:
    monkeypatch.setenv("MMGAN_TIER", chosen)
    assert runtime.tier() == chosen
    assert runtime.by_tier(quick="quick", full="full") == chosen


def test_empty_variables_order_nothing(monkeypatch: pytest.MonkeyPatch, cuda: bool) -> None:
    default = runtime.device(), runtime.tier(), runtime.seed_everything(3).initial_seed()
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "")
    assert (runtime.device(), runtime.tier(), runtime.seed_everything(3).initial_seed()) == default


@pytest.mark.parametrize(
    ("variable", "value", "ask", "expected"),
    [
        ("MMGAN_DEVICE", "gpu", runtime.device, "'cpu', or 'cuda', 'cuda:1' or 'mps' where there is one"),
        ("MMGAN_DEVICE", "cuda:first", runtime.device, "'cpu', or 'cuda', 'cuda:1' or 'mps' where there is one"),
        ("MMGAN_TIER", "fast", runtime.tier, "'quick' or 'full'"),
        ("MMGAN_TIER", "Full", lambda: runtime.by_tier(quick=1, full=2), "'quick' or 'full'"),
        ("MMGAN_SEED", "1.5", lambda: runtime.seed_everything(0), "a whole number"),
        ("MMGAN_SEED", "one", lambda: runtime.seed_everything(0), "a whole number"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(monkeypatch, variable: str, value: str, ask, expected: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=rf"^{variable} is '{value}'; expected {expected}\.$"):
        ask()


def draws(seed: int) -> list[list[float]]:
    """Four numbers from each source of randomness after the seed."""
    generator = runtime.seed_everything(seed)
    return [
        [random.random() for _ in range(4)],
        np.random.rand(4).tolist(),
        torch.rand(4).tolist(),
        torch.rand(4, generator=generator).tolist(),
    ]


@pytest.mark.parametrize("seed", [0, 7, -1, 2**32 + 7])
def test_a_seed_fixes_every_source_of_randomness(seed: int) -> None:
    first = draws(seed)
    assert draws(seed) == first
    assert all(one != other for one, other in zip(draws(seed + 1), first, strict=True))


def test_the_generator_has_the_seed_and_leaves_the_global_one_alone() -> None:
    generator = runtime.seed_everything(7)
    assert generator.initial_seed() == torch.initial_seed() == 7
    before = torch.get_rng_state()
    torch.rand(9, generator=generator)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("shift", [0, 1, -2])
def test_the_environment_shifts_every_seed(monkeypatch: pytest.MonkeyPatch, shift: int) -> None:
    expected = draws(7 + shift)
    monkeypatch.setenv("MMGAN_SEED", str(shift))
    assert draws(7) == expected


def in_a_fresh_python(code: str, **variables: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "MMGAN_STOOD_IN")}
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.check_output(command, text=True, cwd=ROOT, env=kept | variables)


@pytest.mark.parametrize("variables", [{}, {"OMP_NUM_THREADS": ""}, {"OMP_NUM_THREADS": "1"}])
def test_any_import_of_the_library_lets_pytorch_use_one_thread_even_after_it_used_more(variables) -> None:
    busy = "torch.set_num_threads(3); a = torch.rand(600, 600); a @ a"
    asked = "print(torch.get_num_threads(), end='')"
    everywhere = f"import threading; thread = threading.Thread(target=lambda: {asked}); thread.start(); thread.join()"
    told = in_a_fresh_python(f"import torch; {busy}; import mmgan_lib.losses; {asked}; {everywhere}")
    assert told == "11"


def test_a_number_of_threads_that_the_environment_chose_stays() -> None:
    code = "import torch; torch.set_num_threads(3); from mmgan_lib import runtime; print(runtime.processor())"
    assert in_a_fresh_python(code, OMP_NUM_THREADS="3").endswith(", 3 threads\n")


def test_the_processor_is_told_with_its_one_thread() -> None:
    assert in_a_fresh_python("from mmgan_lib import runtime; print(runtime.processor())").endswith(", 1 thread\n")


def test_what_stood_in_is_noted_for_the_builder_and_nowhere_else(monkeypatch, tmp_path, capfd) -> None:
    monkeypatch.delenv("MMGAN_STOOD_IN", raising=False)
    monkeypatch.chdir(tmp_path)
    runtime.stood_in("a for b")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("MMGAN_STOOD_IN", str(tmp_path / "notes"))
    runtime.stood_in("synthetic speech for voices")
    runtime.stood_in("a café for a bistro")
    assert (tmp_path / "notes").read_text("utf-8") == "synthetic speech for voices\na café for a bistro\n"
    assert capfd.readouterr() == ("", "")


def report() -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in runtime.report().splitlines())


@pytest.mark.parametrize("chosen", ["quick", "full"])
def test_the_report_names_tier_device_and_python(monkeypatch: pytest.MonkeyPatch, chosen: str) -> None:
    monkeypatch.setenv("MMGAN_DEVICE", "cpu")
    monkeypatch.setenv("MMGAN_TIER", chosen)
    told = report()
    assert told["tier"] == chosen
    assert told["device"] == f"cpu ({runtime.processor()})"
    assert told["python"] == sys.version.split()[0]
    assert told["system"]


def test_the_report_names_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMGAN_DEVICE", "cuda:1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", {torch.device("cuda:1"): "NVIDIA H100"}.__getitem__)
    assert report()["device"] == "cuda:1 (NVIDIA H100)"


def test_the_report_says_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        if package == "transformers":
            raise PackageNotFoundError(package)
        return "1.0"

    monkeypatch.setattr(runtime, "version", version)
    assert report()["transformers"] == "not installed"
    assert report()["torch"] == "1.0"


def test_the_report_tells_the_versions_that_run() -> None:
    running = {
        "mmgan-lib": mmgan_lib,
        "torch": torch,
        "torchvision": torchvision,
        "numpy": np,
        "matplotlib": matplotlib,
    }
    told = report()
    for name, module in running.items():
        assert told[name] == module.__version__.partition("+")[0]  # "+cu130" is the build, not the version
    heavy = ("transformers", "scikit-learn", "ipywidgets")
    assert {name: told[name] for name in heavy} == {name: version(name) for name in heavy}


# The doors to the GPU are walled up first, so that this means something on a machine without one.
WALLED = """
import sys, torch
def refuse(*_): raise AssertionError("the import looks for a GPU")
torch.cuda._lazy_init = torch.cuda.is_available = torch.cuda.device_count = refuse
import mmgan_lib
import mmgan_lib.training
assert not torch.cuda.is_initialized()
print(*sorted(sys.modules.keys() & {"IPython", "ipywidgets", "pooch", "sklearn", "soundfile", "transformers"}))
"""


def test_importing_the_training_loop_needs_torch_and_touches_no_gpu() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", WALLED], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("\n", "")
