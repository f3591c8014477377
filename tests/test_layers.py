"""The library as a whole: modules import only upwards and stay small; nothing is unpickled; few places are online."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from conftest import ROOT

import mmgan_lib
from mmgan_lib.datasets.arrays import ArrayUnpickler
from tools import measure_house, modules

LIBRARY = ROOT / "mmgan_lib"
FILES = sorted(LIBRARY.rglob("*.py"))
LAYERS = re.search(r"upwards in this list: ([\w,\s]+)\.", mmgan_lib.__doc__)[1].replace("\n", " ").split(", ")
MOST_LINES = 310
PRANK = "torch.load(folder / 'prank.pth', weights_only=False)"  # chapter 03 shows what it does
ARRAYS = LIBRARY / "datasets" / "arrays.py"  # reads pickles that hold arrays, and refuses all others
NETWORK = {"http", "huggingface_hub", "requests", "socket", "urllib"}
SOURCES = {"download.pytorch.org", "github.com", "ossci-datasets.s3.amazonaws.com"}  # each file's sha256 is checked
UNSAFE = {"pickle", "dill", "joblib", "shelve", "marshal"}

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(LIBRARY).as_posix())


def layer(path: Path) -> str:
    """The module of the list that a file belongs to."""
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


def code(path: Path) -> str:
    """The Python of a file; of a notebook, that of its cells but for the shell's lines."""
    if path.suffix == ".py":
        return path.read_text()
    cells = (cell["source"] for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code")
    return "\n".join(re.sub(r"(?m)^(\s*)%.*$", r"\1pass", "".join(source)) for source in cells)


def unsafe(tree: ast.AST) -> list[str]:
    """The imports and calls that would let data run code of its own."""
    found = [name for name in modules.imported(tree) if name.split(".")[0] in UNSAFE]
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        if ast.unparse(call.func) in ("torch.load", "load_state_dict_from_url") and given.get("weights_only") != "True":
            found.append(ast.unparse(call))
        if ast.unparse(call.func) == "torch.jit.load" or "allow_pickle" in given:
            found.append(ast.unparse(call))
    return found


def test_list_of_modules_is_that_of_the_folder() -> None:
    assert modules.layers(LIBRARY) == LAYERS
    assert len(LAYERS) <= 17


@pytest.mark.parametrize(
    ("name", "most", "without"),
    [("mmgan_lib.gan", 12, ("datasets", "encoders")), ("mmgan_lib.claims", 5, ("datasets", "encoders", "metrics"))],
)
def test_an_import_loads_few_modules_and_none_of_other_trades(name: str, most: int, without: tuple[str, ...]) -> None:
    code = f"import {name}, sys; print(*(m for m in sys.modules if m.split('.')[0] == 'mmgan_lib'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = done.stdout.split()
    assert name in loaded
    assert len(loaded) <= most
    assert not {m.split(".")[1] for m in loaded if "." in m} & set(without)


@each_file
def test_imports_only_upwards(path: Path) -> None:
    own = layer(path)
    allowed = ["__version__", *LAYERS[: LAYERS.index(own) + 1]] if own in LAYERS else ["runtime"]
    tree = ast.parse(path.read_text())
    assert not any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(tree)), "a relative import"
    names = [name.split(".") for name in modules.imported(tree) if name.startswith("mmgan_lib")]
    assert [".".join(name) for name in names if name[1] not in allowed] == []


@each_file
def test_files_stay_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize(
    "path",
    [*FILES, *sorted((ROOT / "tools").glob("*.py")), *sorted((ROOT / "book").glob("*.ipynb"))],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_nothing_is_unpickled(path: Path) -> None:
    excepted = {ROOT / "book" / "03_gan.ipynb": [PRANK], ARRAYS: ["pickle"]}
    assert unsafe(ast.parse(code(path))) == excepted.get(path, [])


def test_the_one_file_with_an_unpickler_hands_out_array_constructors_alone() -> None:
    """What it refuses is tried in test_digit_sources.py; here, that it has no other way into a pickle."""
    attributes = [node for node in ast.walk(ast.parse(code(ARRAYS))) if isinstance(node, ast.Attribute)]
    assert {node.attr for node in attributes if ast.unparse(node.value) == "pickle"} == {"Unpickler", "UnpicklingError"}
    assert set(ArrayUnpickler.ADMITTED.values()) == {np.ndarray, np.dtype, np.empty(0).__reduce__()[0]}


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_the_search_for_unsafe_code_finds_it(line: str) -> None:
    assert unsafe(ast.parse(line))
    assert not unsafe(ast.parse("torch.load(path, weights_only=True)"))


def test_downloads_come_from_few_places() -> None:
    trees = {path.relative_to(LIBRARY).as_posix(): ast.parse(path.read_text()) for path in FILES}
    online = {path for path, tree in trees.items() if NETWORK & {n.split(".")[0] for n in modules.imported(tree)}}
    assert online == {"datasets/download.py", "encoders/pretrained/text.py"}
    texts = [node.value for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    addresses = [urlsplit(text) for text in texts if isinstance(text, str) and re.match(r"\w+://", text)]
    assert {address.scheme for address in addresses} == {"https"}
    assert {address.netloc for address in addresses} == SOURCES


def test_page_of_the_architecture_has_a_mark_for_each_import() -> None:
    page = modules.page(LIBRARY)
    marks = set(re.findall(r'title="(\w+) uses (\w+)"', page))
    assert {("training", "losses"), ("fusion", "encoders"), ("encoders", "datasets")} <= marks
    assert ("losses", "training") not in marks
    assert re.findall(r"#module-mmgan_lib\.(\w+)", page) == LAYERS
    assert len(re.findall(r"(?m)^\| \w+ \| \S.* \|$", page)) == len(LAYERS)


def test_page_of_the_architecture_follows_fit_gan_to_its_files() -> None:
    rows = re.findall(r"(?m)^\| `(\w+)` \| `(\S+)` \| \S.* \|$", modules.loop_page(LIBRARY))
    assert rows[0] == ("check_players", "checks.py")
    assert {("discriminator_loss", "training/step.py"), ("clip_weights", "losses/penalties.py")} <= set(rows)
    assert len(rows) == len(dict(rows)) <= 12
    assert modules.files_page(LIBRARY).count(".py` |") == len(FILES) - 1  # all but the package itself


def test_page_of_the_library_has_a_section_for_each_module() -> None:
    page = (ROOT / "book" / "api.md").read_text()
    assert re.findall(r"(?m)^\.\. automodule:: mmgan_lib\.(\w+)$", page) == LAYERS
    assert re.findall(r"(?m)^## (\w+)$", page) == LAYERS


def test_no_docstring_opens_with_a_question() -> None:
    docs = [doc for path in FILES for doc in docstrings(path.read_text())]
    assert len(docs) > 500
    assert [doc.splitlines()[0] for doc in docs if doc.split()[0].strip(",:") in measure_house.OPENERS] == []


def docstrings(source: str) -> list[str]:
    """The docstrings of a file, and the strings that stand below the fields of a tuple."""
    strings = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Expr)]
    return [node.value for node in strings if isinstance(node, ast.Constant) and isinstance(node.value, str)]
