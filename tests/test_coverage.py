"""The long comparison of losses: it is made of the chapter's own cells, and what the book shows is what it writes."""

import json
from pathlib import Path

import pytest

from tools import coverage


def test_it_plays_the_chapters_games_and_writes_what_the_book_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"STEPS": 2, "RUNS": 2, "RESULTS": tmp_path}.items():
        monkeypatch.setattr(coverage, name, value)
    coverage.main()
    ours, shown = (
        json.loads((folder / "04_wgan_loss_long.json").read_text())
        for folder in (tmp_path, coverage.ROOT / "book" / "results")
    )
    assert ours.keys() == shown.keys()
    assert (ours["steps"], ours["runs"]) == (2, 2)
    assert list(ours["numbers"]) == list(shown["numbers"])
    for columns in ours["numbers"].values():
        assert list(columns) == ["modes", "high quality", "reverse KL"]
        assert {len(values) for values in columns.values()} == {2}
        assert max(columns["modes"]) <= 1  # two steps do not get far
