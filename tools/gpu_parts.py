"""The parts of :mod:`tools.gpu`. Each tells what it finds as it goes, as facts (name → value) of its report."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from mmgan_lib import runtime
from mmgan_lib.datasets import Loader
from mmgan_lib.training import GANConfig, fit_gan
from tools.stacked_mnist import stacked_mnist

__all__ = ["bench", "chapter", "cuda_tests", "stacked_mnist"]
TESTS = Path(__file__).parent.parent / "tests"
Tell = Callable[[dict[str, Any]], None]


def bench(*, tell: Tell) -> None:
    """Images per second of ``fit_gan`` and the plain tutorial loop, which take turns, and their share of the peak."""
    from tools import bench

    device = runtime.device()
    loader = Loader(torch.rand(4096, 3, 32, 32) * 2 - 1, bench.BATCH, device=device)

    def plain(steps: int) -> None:
        bench.tutorial_loop(*bench.networks(device), loader, steps)

    def ours(steps: int) -> None:
        fit_gan(*bench.networks(device), loader, GANConfig(steps=steps))

    loops = {"plain tutorial loop": plain, "fit_gan": ours}
    peak, work = bench.peak(device), bench.flops(device, loader)
    tell({"matrix product, GFLOP/s": peak / 1e9})
    times = {name: [] for name in loops}
    for turn in range(bench.ROUNDS + 1):  # the first warms up
        for name, loop in loops.items():
            taken = bench.seconds(lambda loop=loop: loop(bench.STEPS), device) / bench.STEPS
            times[name] += [taken] if turn else []
        if turn:
            rates = {name: bench.BATCH / median(taken) for name, taken in times.items()}
            shares = {name: work / median(taken) / peak for name, taken in times.items()}
            tell({"rounds": turn, "images per second": rates, "share of the peak": shares})


class SkippedElsewhere:
    """A plugin of pytest: of the tests it keeps those that are skipped without CUDA, and tells what became of each."""

    def __init__(self, tell: Tell) -> None:
        self.tell, self.outcomes = tell, {}

    def pytest_collection_modifyitems(self, items: list) -> None:
        """Keep what is marked with a reason that names CUDA."""
        items[:] = [x for x in items if any("CUDA" in mark.kwargs["reason"] for mark in x.iter_markers("skipif"))]

    def pytest_runtest_logreport(self, report: Any) -> None:
        """One report for each of setup, call and teardown: the call counts, or whatever did not pass."""
        if report.when == "call" or not report.passed:
            self.outcomes[report.nodeid] = report.outcome if not report.failed else f"failed: {report.longreprtext}"
            self.tell({"tests": self.outcomes})


def cuda_tests(*, tell: Tell) -> None:
    """The tests that are skipped where there is no CUDA."""
    import pytest

    needs_cuda = re.compile(r"skipif\(not torch\.cuda\.is_available\(\)")
    files = [str(file) for file in sorted(TESTS.glob("test_*.py")) if needs_cuda.search(file.read_text())]
    plugin = SkippedElsewhere(tell)
    # A warning of another version of some package is no error here.
    status = pytest.main([*files, "-W", "default", "-p", "no:cacheprovider"], plugins=[plugin])
    if status:
        failed = [name for name, outcome in plugin.outcomes.items() if outcome.startswith("failed")]
        raise RuntimeError(f"pytest ended with {status!r}; failed: {', '.join(failed) or 'none'}")


def chapter(notebook: Path, *, tell: Tell) -> None:
    """The code cells of a chapter, one after the other, and what it claims; claims that do not hold do not stop it.

    Raises:
        RuntimeError: a cell failed for another reason, or some claims do not hold.
    """
    from IPython.core.displaypub import CapturingDisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    from mmgan_lib.claims import ClaimError

    os.chdir(notebook.parent)
    config = Config({"HistoryManager": {"enabled": False}})
    shell = InteractiveShell.instance(config=config, display_pub_class=CapturingDisplayPublisher)
    cells, claims = json.loads(notebook.read_text())["cells"], []
    for number, cell in enumerate(cells, start=1):
        if cell["cell_type"] != "code":
            continue
        ended = shell.run_cell("".join(cell["source"]))
        error = ended.error_before_exec or ended.error_in_exec
        shown = [output.get("metadata", {}).get("mmgan", {}) for output in shell.display_pub.outputs]
        shell.display_pub.outputs.clear()
        claims += [{"cell": cell["id"]} | what | {"holds": bool(what["holds"])} for what in shown if "holds" in what]
        tell({"tier": runtime.tier(), "cells": f"{number} of {len(cells)}", "claims": claims})
        if error and not isinstance(error, ClaimError):
            raise RuntimeError(f"cell {number} (id {cell['id']}): {type(error).__name__}: {error}") from error
    if failed := sum(not claim["holds"] for claim in claims):
        raise RuntimeError(f"{failed} of {len(claims)} claims do not hold")
