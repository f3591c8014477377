"""Every page of the built book in Chromium, with all outside requests refused."""

import functools
import http.server
import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from sphinx.util.inventory import InventoryFile
from test_layers import LAYERS

from tools import address
from tools.book import toc_files

pytestmark = pytest.mark.book

DOCUMENTS = list(toc_files(yaml.safe_load((ROOT / "_toc.yml").read_text())))
SOURCES = ["_modules/index.html", "_modules/mmgan_lib/training/gan.html"]  # of the library; the others look alike
PAGES = [f"{document}.html" for document in DOCUMENTS] + ["search.html", "genindex.html", "py-modindex.html", *SOURCES]
REDIRECTS = yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]["config"]["redirects"]
VIEWS = [(1280, "light"), (1280, "dark"), (390, "light")]

WAIT = """async () => {
    if (window.MathJax?.startup?.promise) await MathJax.startup.promise;
    await document.fonts.ready;
    // solutions, unfolded
    document.querySelectorAll(".toggle-hidden").forEach((e) => e.classList.remove("toggle-hidden"));
    for (const image of document.images) { image.loading = "eager"; await image.decode().catch(() => null); }
}"""

# Faults that the page itself can tell, one sentence each.
LOOK = """() => {
    const faults = [];
    const name = (e) => `<${e.tagName.toLowerCase()} class="${e.getAttribute("class") ?? ""}">`;
    const each = (selector, look) => document.querySelectorAll(selector).forEach(look);
    const own = (e) => ["auto", "scroll"].includes(getComputedStyle(e).overflowX);
    const scrolls = (e) => !e.matches("article") && (own(e) || scrolls(e.parentElement));
    const width = document.documentElement.clientWidth;

    each("mjx-merror, [data-mjx-error]", (e) => faults.push(`formula that MathJax cannot read: ${e.textContent}`));
    each("span.math, div.math", (e) => {
        if (!e.querySelector("mjx-container")) faults.push(`formula not typeset: ${e.textContent}`);
    });
    each("img", (e) => {
        if (!e.naturalWidth) faults.push(`image not loaded: ${e.src.slice(0, 120)}`);
    });
    each("article img", (e) => {
        const unsaid = !e.alt.trim() || e.alt.includes("_images/");  // Sphinx puts the file's name where there is none
        if (unsaid) faults.push(`image without alt text: ${e.src.slice(0, 120)}`);
    });
    each("article :is(img, svg, canvas, video, figure, table, pre, .output, mjx-container)", (e) => {
        const right = Math.round(e.getBoundingClientRect().right);
        if (right > width + 1 && !scrolls(e)) faults.push(`${name(e)} ends at ${right} px, the window at ${width} px`);
    });
    const wide = document.documentElement.scrollWidth;
    if (wide > width) faults.push(`the page is ${wide} px wide, the window ${width} px`);
    return faults;
}"""


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """The address of a server of the folder's files on this machine."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def site(html: Path) -> Iterator[str]:
    with serve(html) as address:
        yield address


@contextmanager
def visit(browser, site: str, path: str, *, width: int = 1280, theme: str = "light") -> Iterator[tuple]:
    """Open a page; gives the page and the list of faults that the network and the console told."""
    faults = []

    def gate(route) -> None:
        if route.request.url.startswith(site):
            route.continue_()
        else:
            faults.append(f"asks another machine for {route.request.url}")
            route.abort()

    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
    context.route(lambda url: not url.startswith(("data:", "blob:")), gate)
    page = context.new_page()
    page.on("console", lambda message: faults.append(f"console: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(f"script: {error}"))
    page.on("response", lambda reply: faults.append(f"{reply.status} for {reply.url}") if reply.status > 399 else None)
    page.goto(f"{site}/{path}", wait_until="load")
    page.evaluate(WAIT)
    yield page, faults
    context.close()


@pytest.mark.parametrize(("width", "theme"), VIEWS)
@pytest.mark.parametrize("path", PAGES)
def test_page_is_sound(browser, site: str, path: str, width: int, theme: str) -> None:
    with visit(browser, site, path, width=width, theme=theme) as (page, faults):
        assert page.locator("html").get_attribute("data-theme") == theme
        assert faults + page.evaluate(LOOK) == []


def test_no_page_is_left_unseen(html: Path) -> None:
    built = {page.relative_to(html).as_posix() for page in html.rglob("*.html") if "_static" not in page.parts}
    built -= {f"{old}.html" for old in REDIRECTS}
    assert {page for page in built if not page.startswith("_modules/mmgan_lib/")} | {*SOURCES} == {*PAGES, "index.html"}


@pytest.mark.parametrize(("old", "new"), REDIRECTS.items())
def test_an_old_address_leads_to_its_chapter(html: Path, old: str, new: str) -> None:
    assert f"url={new}" in (html / f"{old}.html").read_text()
    assert f"book/{new}" in PAGES


def test_the_first_page_leads_to_the_introduction(html: Path) -> None:
    assert f'http-equiv="Refresh" content="0; url={DOCUMENTS[0]}.html"' in (html / "index.html").read_text()


def test_library_leads_to_its_source(html: Path) -> None:
    assert f'href="../{SOURCES[1]}#fit_gan"' in (html / "book" / "api.html").read_text()


@pytest.mark.parametrize("module", LAYERS)
def test_every_public_name_is_documented(html: Path, module: str) -> None:
    with (html / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, page: page)
    documented = {name for kind, names in inventory.items() if kind.startswith("py:") for name in names}
    path = f"mmgan_lib.{module}"
    loaded = importlib.import_module(path)
    own = [name for name, value in vars(loaded).items() if getattr(value, "__module__", "") == path]
    public = [name for name in getattr(loaded, "__all__", own) if name[0] != "_" and name != "T"]
    assert public
    assert [name for name in public if f"{path}.{name}" not in documented] == []


def test_search_finds_without_a_network(browser, site: str) -> None:
    with visit(browser, site, "search.html?q=adversarial") as (page, faults):
        page.wait_for_selector("#search-results li a")
        assert "book/" in page.locator("#search-results li a").first.get_attribute("href")
        assert faults == []


def test_chapters_offer_colab_and_the_clean_notebook(html: Path) -> None:
    repository, version = address.project(ROOT)
    colab = repository.replace("https://github.com", "https://colab.research.google.com/github")
    for document in DOCUMENTS:
        notebook = ROOT / f"{document}.ipynb"
        if notebook.exists():
            page = (html / f"{document}.html").read_text()
            assert f"{colab}/blob/v{version}/{document}.ipynb" in page
            assert (html / "_sources" / f"{document}.ipynb").read_text() == notebook.read_text()


PLANTED = """<html data-theme="light"><body><main><article>
<script>undefined_function()</script> <script>console.error("planted")</script>
<script src="https://example.org/library.js"></script>
<img src="missing.png" alt="A picture that is not there"> <img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">
<div class="math">not typeset</div> <div class="math"><mjx-container><mjx-merror>bad</mjx-merror></mjx-container></div>
<div style="overflow-x: hidden"><table style="width: 2000px"><tr><td>wide</td></tr></table></div>
<p style="width: 3000px">wide</p>
</article></main></body></html>"""


@pytest.mark.parametrize(
    "fault",
    [
        "asks another machine for https://example.org/library.js",
        "404 for http",
        "script: undefined_function is not defined",
        "console: planted",
        "image not loaded: http",
        "image without alt text: data:",
        "formula not typeset: not typeset",
        "formula that MathJax cannot read: bad",
        '<table class=""> ends at',
        "the page is 30",
    ],
)
def test_planted_faults_are_seen(browser, tmp_path: Path, fault: str) -> None:
    (tmp_path / "page.html").write_text(PLANTED)
    with serve(tmp_path) as address, visit(browser, address, "page.html") as (page, faults):
        assert any(found.startswith(fault) for found in faults + page.evaluate(LOOK)), (faults, page.evaluate(LOOK))
