"""Measures how much of the library a reader has to know at once: ``python -m tools.measure_house``.

- *Names of ours in fit_gan*: the module-level names of this library in its body, and the methods that only a class of
  this library has. Files that define the names, with all their lines.
- *From a batch to its loss*: the files of fit_gan, of the functions that make its losses in its loop, of whatever these
  functions use, and of the games; not the loader, which gives the batch, the networks, nor ``checks``.
- *Validation*: lines of ``if …: raise …``, of other ``raise ValueError``, of functions named ``check_*`` or ``_check*``
  and of the calls to them; as a share of the lines of code, docstrings, comments and blank lines left out.
- *Length of a function*: its lines from ``def`` to the end, without docstring, blank lines and comments.
"""

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor, nn

LIBRARY = Path(__file__).parent.parent / "mmgan_lib"
FOREIGN = {name for kind in (nn.Module, Tensor, dict, list, str, type(inspect)) for name in dir(kind)}
OPENERS = ("What", "How", "Whether", "Which", "Where", "Who")
STEP = ("descend", "optimizer_step")  # what takes a loss and makes a step
Function = ast.FunctionDef | ast.ClassDef


class Module:
    """A file of the library: what it defines, and which names it has from which other file."""

    def __init__(self, path: Path) -> None:
        self.path, self.source = path, path.read_text()
        self.tree = ast.parse(self.source)
        self.functions = {node.name: node for node in self.tree.body if isinstance(node, Function)}
        values = [node for node in self.tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
        targets = [target for node in values for target in getattr(node, "targets", [getattr(node, "target", None)])]
        self.defined = {*self.functions, *(target.id for target in targets if isinstance(target, ast.Name))}
        self.imported = {
            alias.asname or alias.name: (node.module, alias.name)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mmgan_lib")
            for alias in node.names
        }

    def code_lines(self) -> set[int]:
        """The numbers of its lines of code: no docstrings, comments and blank lines."""
        numbered = enumerate(self.source.splitlines(), start=1)
        code = {number for number, line in numbered if line.strip() and not line.strip().startswith("#")}
        return code - {number for node in ast.walk(self.tree) for number in docstring_lines(node)}


def docstring_lines(node: ast.AST) -> range:
    """The lines of a module's, class's or function's docstring."""
    if isinstance(node, Function | ast.Module) and ast.get_docstring(node) is not None:
        return lines(node.body[0])
    return range(0)


def lines(node: ast.AST) -> range:
    """The lines that some code stands in."""
    return range(node.lineno, node.end_lineno + 1)


def resolve(modules: dict[str, Module], name: str, symbol: str) -> tuple[str, str] | None:
    """The module that defines what a name stands for in another one, and its name there."""
    module = modules.get(name)
    if module is None:
        return None
    if symbol in module.defined:
        return name, symbol
    if f"{name}.{symbol}" in modules:
        return f"{name}.{symbol}", ""
    return resolve(modules, *module.imported[symbol]) if symbol in module.imported else None


def used(modules: dict[str, Module], name: str, nodes: list[ast.AST]) -> dict[str, tuple[str, str]]:
    """The names of ours in some code of a module: name → the module that defines it, and its name there."""
    methods = {
        method.name: (module, kind.name)
        for module in modules
        for kind in modules[module].functions.values()
        if isinstance(kind, ast.ClassDef)
        for method in kind.body
        if isinstance(method, ast.FunctionDef) and method.name not in FOREIGN
    }
    found = {}
    for node in (inner for whole in nodes for inner in ast.walk(whole)):
        if isinstance(node, ast.Name) and (where := resolve(modules, name, node.id)):
            found[node.id] = where
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in methods:
            found[f".{node.func.attr}"] = methods[node.func.attr]
    return found


def makers(loop: ast.For) -> list[ast.AST]:
    """The right-hand sides in a loop on which the losses depend that its steps go down."""
    calls = [node for node in ast.walk(loop) if isinstance(node, ast.Call) and getattr(node.func, "id", "") in STEP]
    needed = {node.id for call in calls for node in ast.walk(call.args[1]) if isinstance(node, ast.Name)}
    values, before = {call.args[1] for call in calls}, -1
    while len(values) > before:
        before = len(values)
        for node in ast.walk(loop):
            if isinstance(node, ast.Assign) and needed & {n.id for n in ast.walk(node.targets[0]) if hasattr(n, "id")}:
                values.add(node.value)
                needed |= {inner.id for inner in ast.walk(node.value) if isinstance(inner, ast.Name)}
    return list(values)


def path_to_loss(modules: dict[str, Module], name: str, function: ast.FunctionDef) -> set[str]:
    """The modules that a reader opens between a batch and its loss."""
    loop = next(node for node in ast.walk(function) if isinstance(node, ast.For))
    waiting, seen = set(used(modules, name, makers(loop)).values()), {(name, function.name)}
    waiting.add(resolve(modules, "mmgan_lib.losses", "GAN_LOSSES"))
    while waiting - seen:
        module, symbol = (waiting - seen).pop()
        seen.add((module, symbol))
        node = modules[module].functions.get(symbol)
        network = isinstance(node, ast.ClassDef) and "Module" in {getattr(base, "attr", "") for base in node.bases}
        if symbol in ("Loader", "Batch") or network:
            seen.remove((module, symbol))
            waiting.discard((module, symbol))
        elif node is not None:
            waiting |= set(used(modules, module, node.body).values())
    return {module for module, symbol in seen if symbol} - {"mmgan_lib.checks"}


def validating(module: Module) -> set[int]:
    """The lines of a module that look whether an argument is right."""
    found: set[int] = set()
    for node in ast.walk(module.tree):
        refuses = isinstance(node, ast.If) and all(isinstance(inner, ast.Raise) for inner in node.body)
        checks = isinstance(node, ast.FunctionDef) and node.name.lstrip("_").startswith("check")
        raises = isinstance(node, ast.Raise) and "ValueError" in ast.unparse(node)
        called = getattr(getattr(node, "func", None), "id", "") or getattr(getattr(node, "func", None), "attr", "")
        if refuses:
            found |= {*range(node.lineno, node.body[-1].end_lineno + 1)}
        elif checks or called.lstrip("_").startswith("check") or raises:
            found |= {*lines(node)}
    return found & module.code_lines()


def functions(module: Module) -> Iterator[tuple[int, str]]:
    """The length and the name of every function."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef):
            yield len(module.code_lines() & {*lines(node)}), node.name


def loaded(name: str) -> int:
    """How many modules of ours an import loads."""
    code = f"import {name}, sys; print(sum(m.split('.')[0] == 'mmgan_lib' for m in sys.modules))"
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def total(modules: dict[str, Module], names: set[str]) -> str:
    """Some files, and how many lines they have."""
    counts = {name.partition(".")[2]: len(modules[name].source.splitlines()) for name in sorted(names)}
    each = ", ".join(f"{name} {count}" for name, count in counts.items())
    return f"{len(counts)} files, {sum(counts.values()):,} lines: {each}"


def main() -> None:
    """Print all of it."""
    paths = {path: ".".join(path.relative_to(LIBRARY.parent).with_suffix("").parts) for path in LIBRARY.rglob("*.py")}
    modules = {name.removesuffix(".__init__"): Module(path) for path, name in sorted(paths.items())}
    fit_gan = modules["mmgan_lib.training.gan"].functions["fit_gan"]
    names = used(modules, "mmgan_lib.training.gan", fit_gan.body)
    print(f"names of ours in fit_gan: {len(names)}: {', '.join(sorted(names))}")
    print("  defined in", total(modules, {module for module, _ in names.values()}))
    print("from a batch to its loss:", total(modules, path_to_loss(modules, "mmgan_lib.training.gan", fit_gan)))

    ranked = sorted((*item, name) for name, module in modules.items() for item in functions(module))
    print(f"functions: {len(ranked)}, median {ranked[len(ranked) // 2][0]} lines; the longest:")
    for length, function, name in ranked[:-11:-1]:
        print(f"  {length:3d}  {name.partition('.')[2]}.{function}")

    parts = {name: (len(validating(module)), len(module.code_lines())) for name, module in modules.items()}
    print(
        f"validation: {sum(v for v, _ in parts.values()) / sum(c for _, c in parts.values()):.1%} of the code; most in"
    )
    for name, (checks, code) in sorted(parts.items(), key=lambda item: -item[1][0])[:10]:
        print(f"  {checks / code:4.0%}  {checks:3d} of {code:3d}  {name.partition('.')[2]}")

    nodes = [node for module in modules.values() for node in ast.walk(module.tree)]
    docs = [ast.get_docstring(node) for node in nodes if isinstance(node, Function | ast.Module)]
    docs = [doc for doc in docs if doc]
    opening = [doc for doc in docs if doc.split()[0].strip(",:") in OPENERS]
    print(f"docstrings that open with {'/'.join(OPENERS)}: {len(opening)} of {len(docs)}")
    for name in ("mmgan_lib", "mmgan_lib.gan", "mmgan_lib.training", "mmgan_lib.claims"):
        print(f"import {name}: {loaded(name)} modules of ours")
    long = {name: len(m.source.splitlines()) for name, m in modules.items() if len(m.source.splitlines()) > 300}
    print("files over 300 lines:", long or "none")


if __name__ == "__main__":
    main()
