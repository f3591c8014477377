"""Write the repository's address and version, which stand in ``pyproject.toml``, wherever else they are needed.

``python tools/address.py`` rewrites; ``python tools/address.py https://github.com/me/fork`` sets the address first.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
ADDRESS = r"https://github\.com/[\w.-]+/[\w.-]*\w"


def project(root: Path) -> tuple[str, str]:
    """The address and the version that ``pyproject.toml`` gives."""
    settings = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    return settings["urls"]["Repository"], settings["version"]


def rewrite(text: str, *, address: str, version: str) -> str:
    """Replace our address and version in each of the forms in which they occur.

    >>> rewrite("pip install git+https://github.com/a/b@v1.0", address="https://github.com/me/fork", version="2.0.1")
    'pip install git+https://github.com/me/fork@v2.0.1'
    """
    owner, name = address.split("/")[-2:]
    forms = {
        rf"git\+{ADDRESS}@v[\d.]*\d": f"git+{address}@v{version}",
        rf"git clone {ADDRESS}(\s+(?:&& )?cd )[\w.-]+": rf"git clone {address}\1{name}",
        rf"(?m)^( +url|repository-code): {ADDRESS}$": rf"\1: {address}",
        r"(?m)^version: [\d.]+$": f"version: {version}",
        r"colab\.research\.google\.com/github/[\w.-]+/[\w.-]+/blob/[\w.-]+/": (
            f"colab.research.google.com/github/{owner}/{name}/blob/v{version}/"
        ),
        r"(?m)^  branch: [\w.-]+$": f"  branch: v{version}",  # what the pages' button for Colab opens
        r"(?m)(^url: |Read the book\]\()https://[\w-]+\.github\.io/[\w.-]*\w": rf"\1https://{owner}.github.io/{name}",
    }
    for form, ours in forms.items():
        text = re.sub(form, ours, text)
    return text


def files(root: Path) -> list[Path]:
    """The files that name the repository."""
    named = [root / "README.md", root / "CITATION.cff", root / "_config.yml"]
    return [*named, *sorted((root / "book").glob("*.md")), *sorted((root / "book").glob("*.ipynb"))]


def main(root: Path = ROOT) -> None:
    """Set the address if one is given, then rewrite every file that differs."""
    settings = root / "pyproject.toml"
    standing = rf'(?m)^Repository = "{ADDRESS}"$'
    for address in sys.argv[1:]:
        if not re.fullmatch(ADDRESS, address):
            sys.exit(f"{address!r} is not an address of a repository; expected https://github.com/OWNER/NAME")
        settings.write_text(re.sub(standing, f'Repository = "{address}"', settings.read_text()))
    address, version = project(root)
    for path in files(root):
        text = path.read_text()
        ours = rewrite(text, address=address, version=version)
        if ours != text:
            path.write_text(ours)
            print(f"{path.relative_to(root)}: now {address}, version {version}")


if __name__ == "__main__":
    main()
