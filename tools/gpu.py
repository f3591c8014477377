"""Run chapters as on a GPU, each in a Python of its own: ``python -m tools.gpu [03 08 ...]``, all if none is named.

On a machine with CUDA this tells whether every claim holds there at the full tier, and how long each chapter takes; it
needs IPython and ipywidgets, but no Jupyter. Elsewhere the chapters run on a stand-in (:mod:`tools.stand_in`), which
refuses what a GPU would refuse.
"""

import json
import multiprocessing
import os
import sys
import time
from pathlib import Path

import torch

BOOK = Path(__file__).parent.parent / "book"


def run(notebook: Path) -> None:
    """Run the cells of a chapter one after the other, and exit with 1 at the first that fails."""
    from IPython.core.interactiveshell import InteractiveShell

    from mmgan_lib import runtime
    from tools.stand_in import adopt

    os.chdir(notebook.parent)
    if not torch.cuda.is_available():
        adopt()
    began, shell = time.monotonic(), InteractiveShell.instance()
    for number, cell in enumerate(json.loads(notebook.read_text())["cells"], start=1):
        if cell["cell_type"] == "code" and not shell.run_cell("".join(cell["source"])).success:
            print(f"{notebook.name}, cell {number} (id {cell['id']}) failed (above)", file=sys.stderr)
            sys.exit(1)
    seconds, where = time.monotonic() - began, runtime.machine(runtime.device())
    print(f"{notebook.name} ran in {seconds:.0f} s ({runtime.tier()} tier, {where})")


def main() -> int:
    """Run the chapters whose names begin as asked; returns how many failed."""
    os.environ |= {"MPLBACKEND": "agg", "PYTHONHASHSEED": "0"}
    if data := os.environ.get("MMGAN_DATA"):
        os.environ["MMGAN_DATA"] = str(Path(data).resolve())  # chapters run in another folder
    asked, failed = tuple(sys.argv[1:]), 0
    notebooks = [path for path in sorted(BOOK.glob("[0-9]*.ipynb")) if path.name.startswith(asked or "")]
    if not notebooks:
        sys.exit(f"No chapter begins with {' or '.join(asked)}; expected numbers such as 03.")
    for notebook in notebooks:
        process = multiprocessing.get_context("spawn").Process(target=run, args=(notebook,))
        process.start()
        process.join()
        failed += process.exitcode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
