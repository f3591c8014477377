"""What the tests share: where the book is, a browser that looks at it, and a notebook's display."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for NumPy and SciPy too, before they are loaded

ROOT = Path(__file__).parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "book: looks at the book as `make book` made it")


@pytest.fixture(scope="session")
def html() -> Path:
    """The folder of the built book."""
    folder = ROOT / "_build" / "html"
    if not folder.exists():
        pytest.fail("there is no built book in _build/html: run `make book` first")
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """A headless Chromium found on PATH."""
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser on PATH (looked for {', '.join(BROWSERS)}); .ci/run installs Debian's chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def displayed() -> Iterator[list[dict]]:
    """What a notebook would display, as it comes."""
    config = Config({"HistoryManager": {"enabled": False}})
    shell = InteractiveShell.instance(config=config, display_pub_class=CapturingDisplayPublisher)
    yield shell.display_pub.outputs
    InteractiveShell.clear_instance()
