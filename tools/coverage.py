"""Play the games of the chapter on the Wasserstein loss for 10,000 steps: ``python -m tools.coverage``.

Networks, games and measures are those of the chapter, read from its cells; only the number of steps and of runs
differs. Writes ``book/results/04_wgan_loss_long.json``, which the chapter shows beside published figures.
"""

import json
import time

import nbformat
import torch

from tools.results import ROOT, provenance, write

CHAPTER = ROOT / "book" / "04_wgan_loss.ipynb"
CELLS = ("imports", "imports-library", "runs", "games", "game")
RESULTS = ROOT / "book" / "results"
STEPS, RUNS = 10_000, 5
SHOWN = 400  # points of the first run of each game on the grid


def main() -> None:
    """Train, measure and write."""
    sources = {cell.id: cell.source for cell in nbformat.read(CHAPTER, as_version=4).cells}
    chapter: dict = {}
    for name in CELLS:
        exec(sources[name], chapter)
    chapter["RUNS"] = RUNS
    began, numbers, drawn = time.monotonic(), {}, {}
    for task in ("ring", "grid"):
        mixture = chapter[f"gaussian_{task}"](50_000, generator=torch.Generator().manual_seed(0))
        for name, settings in chapter["GAMES"].items():
            samples, _ = chapter["play"](mixture, STEPS, **settings)
            columns = chapter["count"](samples, mixture).T.tolist()
            numbers[f"{task}: {name}"] = dict(zip(("modes", "high quality", "reverse KL"), columns, strict=True))
            print(task, name, numbers[f"{task}: {name}"], flush=True)
            if task == "grid":
                drawn[name] = [[round(x, 2) for x in point] for point in samples[0, :SHOWN].tolist()]
    made = {"steps": STEPS, "runs": RUNS, "numbers": numbers, "drawn on the grid": drawn}
    entry = provenance("python -m tools.coverage", began) | made
    file = RESULTS / f"{CHAPTER.stem}_long.json"
    write(file, json.dumps(entry, ensure_ascii=False) + "\n")
    print(f"wrote {file}")


if __name__ == "__main__":
    main()
