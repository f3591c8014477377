"""A sentence of the book and the number behind it, here and over other seeds."""

import json
import os
from collections.abc import Mapping
from html import escape
from pathlib import Path
from statistics import mean
from typing import Any

from mmgan_lib import runtime
from mmgan_lib.statistics import prediction_interval

PACKAGE = Path(__file__).parent
LEVEL = 0.999  # of the interval that a recorded number is held to: one build of the book compares some fifty
RESULTS = (PACKAGE / "results", PACKAGE.parent / "book" / "results")  # as installed, and in the repository


class ClaimError(AssertionError):
    """The book says what the code does not show."""


class Claim:
    """A sentence that was checked, shown with its numbers in a notebook."""

    def __init__(self, sentence: str, holds: bool, evidence: Mapping[str, Any]) -> None:
        self.sentence, self.holds = sentence, holds
        self.evidence = {name: value.item() if hasattr(value, "item") else value for name, value in evidence.items()}

    def __repr__(self) -> str:
        numbers = ", ".join(f"{name} {_number(value)}" for name, value in self.evidence.items())
        return f"{'✓' if self.holds else '✗'} {self.sentence} [{numbers}]"

    def _repr_html_(self) -> str:
        numbers = " · ".join(f"{escape(name)} <b>{escape(_number(value))}</b>" for name, value in self.evidence.items())
        mark = "✓" if self.holds else "✗"
        return (
            f'<div class="claim"><span class="claim-mark">{mark}</span> {escape(self.sentence)}'
            f'<div class="claim-evidence">{numbers}</div></div>'
        )


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def claim(sentence: str, *, holds: bool, evidence: Mapping[str, Any]) -> None:
    """Shows a sentence with the numbers that it stands on, and raises where it does not hold.

    Args:
        sentence: what the book says.
        holds: whether the numbers say so too; compute it from them.
        evidence: name → number, as measured in this run.

    Raises:
        ClaimError: the claim does not hold.

    >>> claim("Two is even.", holds=2 % 2 == 0, evidence={"remainder": 2 % 2})
    ✓ Two is even. [remainder 0]
    """
    _display(Claim(sentence, bool(holds), evidence), {"claim": sentence})


def recorded(name: str, value: float, *, chapter: str) -> None:
    """Compares a number of this run with the same number over other seeds, which ``make results`` recorded.

    The numbers stand in ``book/results/{chapter}.json``, one list for each tier and name. This run has to fall
    within their prediction interval (:func:`mmgan_lib.statistics.prediction_interval`). Where only the other tier was
    recorded, its range is shown and not compared. ``make results`` itself sets ``MMGAN_RECORDING``, under which there
    is nothing to compare with.

    Raises:
        ClaimError: the value lies outside, or no number of that name was recorded in any tier.
    """
    number, tier = {"record": name, "value": float(value)}, runtime.tier()
    if os.environ.get("MMGAN_RECORDING"):
        return _display(Claim(f"Being recorded: {name}.", True, {"this run": float(value)}), number)
    numbers = {which: entry["numbers"][name] for which, entry in results(chapter).items() if name in entry["numbers"]}
    if not numbers:
        raise ClaimError(f"{name!r} is not recorded for {chapter}; `make results` records it.")
    compared = tier if tier in numbers else next(iter(numbers))
    values = numbers[compared]
    evidence = {"this run": float(value), "recorded mean": mean(values), "lowest": min(values), "highest": max(values)}
    if compared != tier:
        sentence = f"Recorded in the {compared} tier over {len(values)} seeds, and not yet in the {tier} tier: {name}."
        return _display(Claim(sentence, True, evidence), number)
    sentence = f"As over {len(values)} recorded seeds: {name}."
    low, high = prediction_interval(values, level=LEVEL)
    evidence[f"{LEVEL:.1%} interval for one more"] = f"{low:,.4g} to {high:,.4g}"
    return _display(Claim(sentence, low <= value <= high, evidence), number)


def show_recorded(name: str, *, chapter: str) -> None:
    """Shows the recorded values of a number that this run cannot measure, such as one that needs other data.

    Nothing is shown while ``make results`` records.

    Raises:
        ClaimError: no number of that name was recorded in any tier.
    """
    if os.environ.get("MMGAN_RECORDING"):
        return
    for tier, entry in results(chapter).items():
        if values := entry["numbers"].get(name):
            spread = f"{min(values):.3g} to {max(values):.3g}"
            print(f"Not measured here, but recorded over {len(values)} seeds ({tier} tier): {name}, {spread}.")
            return
    raise ClaimError(f"{name!r} is not recorded for {chapter}; `make results` records it.")


def results(name: str) -> dict[str, Any]:
    """Reads what ``make results`` recorded in ``book/results/{name}.json``: numbers, and how, where and when.

    Raises:
        ClaimError: there is no such record.
    """
    for folder in RESULTS:
        if (file := folder / f"{name}.json").exists():
            return json.loads(file.read_bytes())
    raise ClaimError(f"There are no recorded results for {name}; `make results` makes them.")


def _display(checked: Claim, what: dict[str, Any]) -> None:
    from IPython.display import display

    display(checked, metadata={"mmgan": what | {"holds": checked.holds, "evidence": checked.evidence}})
    if not checked.holds:
        raise ClaimError(repr(checked))
