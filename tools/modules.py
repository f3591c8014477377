"""The library's modules as its source has them: ``python tools/modules.py mmgan_lib`` prints which uses which."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path


def imported(tree: ast.AST) -> Iterator[str]:
    """The full names of everything that is imported, inside functions too.

    >>> list(imported(ast.parse("import os; from mmgan_lib import losses, models")))
    ['os', 'mmgan_lib.losses', 'mmgan_lib.models']
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layers(library: Path) -> list[str]:
    """The modules in the order in which the library's docstring lists them, those that it forgets first."""
    docstring = ast.get_docstring(ast.parse((library / "__init__.py").read_text())) or ""
    _, _, listed = docstring.partition("in this list:")
    found = {path.stem for path in library.glob("*.py")} | {path.parent.name for path in library.glob("*/__init__.py")}
    return sorted(found - {"__init__"}, key=lambda name: (listed.find(name), name))


def files(library: Path, module: str) -> list[Path]:
    """The source of a module, that of a sub-package with its ``__init__`` first."""
    return sorted((library / module).rglob("*.py")) or [library / f"{module}.py"]


def uses(library: Path, module: str) -> set[str]:
    """The other modules of the library that a module imports from."""
    names = {name for path in files(library, module) for name in imported(ast.parse(path.read_text()))}
    return {name.split(".")[1] for name in names if name.startswith("mmgan_lib.")} & {*layers(library)} - {module}


def page(library: Path) -> str:
    """The generated part of ``book/architecture.md``: a row for each module, marked where it uses another."""
    order = layers(library)
    numbers = "".join(f"<th>{number}</th>" for number in range(1, len(order) + 1))
    matrix, purposes = [f"<tr><th></th>{numbers}<th>lines</th></tr>"], ["| module | |", "|---|---|"]
    for number, module in enumerate(order, start=1):
        used, sources = uses(library, module), [path.read_text() for path in files(library, module)]
        marks = [f'<td title="{module} uses {name}">●</td>' if name in used else "<td></td>" for name in order]
        marks[number - 1] = '<td class="itself"></td>'
        link = f'<a href="api.html#module-mmgan_lib.{module}">{module}</a>'
        lines = sum(len(source.splitlines()) for source in sources)
        matrix.append(f"<tr><th>{number} {link}</th>{''.join(marks)}<td>{lines}</td></tr>")
        purposes.append(f"| {module} | {purpose(ast.parse(sources[0]))} |")
    return "\n".join(['<table class="modules">', *matrix, "</table>", "", *purposes, ""])


def purpose(node: ast.AST) -> str:
    """The first line of a docstring."""
    return (ast.get_docstring(node) or "").partition("\n")[0]


def files_page(library: Path) -> str:
    """A row for each file: its lines, and what it holds."""
    rows = ["| file | lines | |", "|---|---|---|"]
    for path in (path for module in layers(library) for path in files(library, module)):
        name, source = path.relative_to(library).as_posix(), path.read_text()
        rows.append(f"| `{name}` | {len(source.splitlines())} | {purpose(ast.parse(source))} |")
    return "\n".join([*rows, ""])


def definition(paths: list[Path], name: str) -> tuple[Path, ast.AST]:
    """The file among these that defines a function or a class, and the definition."""
    found = ((path, node) for path in paths for node in ast.parse(path.read_text()).body)
    return next((path, node) for path, node in found if getattr(node, "name", None) == name)


def loop_page(library: Path) -> str:
    """A row for each name of the library in the body of ``fit_gan``, in the order in which it is met."""
    tree = ast.parse((library / "training" / "gan.py").read_text())
    sources = {
        alias.name: node.module.removeprefix("mmgan_lib.").replace(".", "/")
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module.startswith("mmgan_lib.")
        for alias in node.names
    }
    (fit_gan,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "fit_gan")
    met = [node for statement in fit_gan.body for node in ast.walk(statement) if isinstance(node, ast.Name)]
    names = dict.fromkeys(node.id for node in sorted(met, key=lambda node: node.lineno) if node.id in sources)
    rows = ["| name | file | |", "|---|---|---|"]
    for name in names:
        where, node = definition(files(library, sources[name]), name)
        rows.append(f"| `{name}` | `{where.relative_to(library).as_posix()}` | {purpose(node)} |")
    return "\n".join([*rows, ""])


if __name__ == "__main__":
    print(page(Path(sys.argv[1])))
