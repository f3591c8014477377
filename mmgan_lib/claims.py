"""A sentence of the book and the number behind it."""

from collections.abc import Mapping
from html import escape
from typing import Any


class ClaimError(AssertionError):
    """The book says what the code does not show."""


class Claim:
    """A sentence that was checked, shown with its numbers in a notebook."""

    def __init__(self, sentence: str, holds: bool, evidence: Mapping[str, Any]) -> None:
        self.sentence, self.holds, self.evidence = sentence, holds, dict(evidence)

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
    """Show a sentence with the numbers that it stands on, and raise where it does not hold.

    Args:
        sentence: what the book says.
        holds: whether the numbers say so too; compute it from them.
        evidence: name → number, as measured in this run.

    Raises:
        ClaimError: the claim does not hold.

    >>> claim("Two is even.", holds=2 % 2 == 0, evidence={"remainder": 2 % 2})
    ✓ Two is even. [remainder 0]
    """
    from IPython.display import display

    checked = Claim(sentence, bool(holds), evidence)
    display(checked, metadata={"mmgan": {"claim": sentence, "holds": checked.holds, "evidence": checked.evidence}})
    if not checked.holds:
        raise ClaimError(repr(checked))
