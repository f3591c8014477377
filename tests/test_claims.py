"""A claim shows its sentence and its numbers, and only then raises."""

import json
import math
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch

from mmgan_lib import claims
from mmgan_lib.claims import LEVEL, ClaimError, claim, recorded, show_recorded
from mmgan_lib.statistics import prediction_interval


def text(html: str) -> str:
    return unescape(re.sub(r"<[^>]*>", " ", html))


def test_a_claim_shows_its_sentence_and_its_numbers(displayed: list[dict]) -> None:
    claim("Fused beats either alone.", holds=0.93 > 0.71, evidence={"fused": 0.93412, "image": 0.71, "seeds": 5})
    (output,) = displayed
    assert output["data"]["text/plain"] == "✓ Fused beats either alone. [fused 0.934, image 0.71, seeds 5]"
    words = " ".join(text(output["data"]["text/html"]).split())
    assert words == "✓ Fused beats either alone. fused 0.934 · image 0.71 · seeds 5"


def test_a_claim_that_does_not_hold_is_shown_first_and_raises_its_sentence(displayed: list[dict]) -> None:
    with pytest.raises(ClaimError, match=r"^✗ All 8 modes are covered\. \[modes 3\]$"):
        claim("All 8 modes are covered.", holds=False, evidence={"modes": 3})
    (output,) = displayed
    assert output["data"]["text/plain"].startswith("✗ All 8 modes are covered.")
    assert "✗" in output["data"]["text/html"]
    assert output["metadata"]["mmgan"]["holds"] is False
    assert issubclass(ClaimError, AssertionError)


def test_what_a_claim_says_is_text_and_not_markup(displayed: list[dict]) -> None:
    sentence, name, value = 'a < b & "c" <script>alert(1)</script>', "<b>loss</b>", "<i>low</i>"
    claim(sentence, holds=True, evidence={name: value})
    html = displayed[0]["data"]["text/html"]
    assert set(re.findall(r"</?(\w+)", html)) == {"div", "span", "b"}
    assert html.count("<b>") == 1
    for said in (sentence, name, value):
        assert said in text(html)
    assert displayed[0]["metadata"]["mmgan"]["claim"] == sentence


@pytest.mark.parametrize(
    ("value", "number", "shown"),
    [
        (np.float32(0.5), 0.5, "0.5"),
        (np.float64(0.125), 0.125, "0.125"),
        (np.int64(7), 7, "7"),
        (np.bool_(True), True, "True"),
        (torch.tensor(2 / 3, dtype=torch.double), 2 / 3, "0.667"),
        (torch.tensor([3]), 3, "3"),
        (torch.tensor(0.5, requires_grad=True), 0.5, "0.5"),
        (torch.tensor(False), False, "False"),
        (7, 7, "7"),
        ("digits", "digits", "digits"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_evidence_is_kept_as_plain_numbers(displayed: list[dict], value: object, number: object, shown: str) -> None:
    claim("It is so.", holds=True, evidence={"value": value})
    metadata = displayed[0]["metadata"]
    assert metadata == {"mmgan": {"claim": "It is so.", "holds": True, "evidence": {"value": number}}}
    assert type(metadata["mmgan"]["evidence"]["value"]) is type(number)
    assert json.loads(json.dumps(metadata)) == metadata
    assert displayed[0]["data"]["text/plain"] == f"✓ It is so. [value {shown}]"


@pytest.mark.parametrize("truth", [torch.tensor(1.0) > 0, np.float32(1) > 0, True])
def test_what_holds_may_be_computed_by_any_library(displayed: list[dict], truth: object) -> None:
    claim("One is positive.", holds=truth, evidence={})
    assert displayed[0]["metadata"]["mmgan"]["holds"] is True
    with pytest.raises(ClaimError, match="One is positive"):
        claim("One is positive.", holds=truth ^ True, evidence={})


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded results of one chapter: the numbers 2, 3 and 4 on the quick tier."""
    (tmp_path / "03_gan.json").write_text(json.dumps({"quick": {"numbers": {"modes": [2.0, 4.0, 3.0]}}}))
    monkeypatch.setattr(claims, "RESULTS", (tmp_path / "not there", tmp_path))
    monkeypatch.setenv("MMGAN_TIER", "quick")
    monkeypatch.delenv("MMGAN_RECORDING", raising=False)


# The interval of 2, 3 and 4: their deviation is 1, and Student's t with 2 degrees of freedom exceeds 31.599 once in
# 2,000 times; 31.599 √(4/3) = 36.49.
@pytest.mark.usefixtures("record")
@pytest.mark.parametrize("value", [3 - 36.48, 3.5, 3 + 36.48, torch.tensor(3.5)])
def test_a_run_may_fall_where_one_more_is_expected(displayed: list[dict], value: float) -> None:
    recorded("modes", value, chapter="03_gan")
    about = displayed[0]["metadata"]["mmgan"]
    evidence = {"this run": float(value), "recorded mean": 3.0, "lowest": 2.0, "highest": 4.0}
    evidence["99.9% interval for one more"] = "-33.49 to 39.49"
    assert about == {"record": "modes", "value": float(value), "holds": True, "evidence": evidence}
    assert "As over 3 recorded seeds: modes." in displayed[0]["data"]["text/plain"]


@pytest.mark.usefixtures("record")
def test_a_number_that_cannot_be_measured_here_is_shown_as_recorded(capsys, monkeypatch) -> None:
    show_recorded("modes", chapter="03_gan")
    assert capsys.readouterr().out == ("Not measured here, but recorded over 3 seeds (quick tier): modes, 2 to 4.\n")
    with pytest.raises(ClaimError, match=r"^'spread' is not recorded for 03_gan; `make results` records it\.$"):
        show_recorded("spread", chapter="03_gan")
    monkeypatch.setenv("MMGAN_RECORDING", "1")
    show_recorded("spread", chapter="03_gan")
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("record")
@pytest.mark.parametrize("value", [3 - 36.5, 3 + 36.5, math.nan])
def test_a_run_unlike_the_recorded_ones_is_shown_and_raises(displayed: list[dict], value: float) -> None:
    with pytest.raises(ClaimError, match="As over 3 recorded seeds: modes"):
        recorded("modes", value, chapter="03_gan")
    assert displayed[0]["metadata"]["mmgan"]["holds"] is False


def test_the_interval_knows_how_many_values_there_are() -> None:
    widths = [high - low for low, high in (prediction_interval([2.0, 4.0] * n, level=LEVEL) for n in (1, 2, 4, 8))]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] > 2 * 3.29  # never narrower than a normal distribution's 99.9 %


def test_one_more_value_falls_into_the_interval_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(5.0, 2.0, (4000, 6))
    intervals = np.array([prediction_interval(row.tolist(), level=0.9) for row in draws[:, :5]])
    inside = (intervals[:, 0] <= draws[:, 5]) & (draws[:, 5] <= intervals[:, 1])
    assert inside.mean() == pytest.approx(0.9, abs=0.02)  # four standard errors


@pytest.mark.parametrize("values", [[], [2.0], [2.0, math.nan], [2.0, math.inf]])
def test_values_that_have_no_interval_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"^values: found \d, \d of them finite; expected two or more finite"):
        prediction_interval(values)


def test_a_number_that_never_varied_may_vary_by_a_little() -> None:
    low, high = prediction_interval([1.0] * 5)
    assert 0.9 < low < 0.99 < 1.01 < high < 1.1


@pytest.mark.usefixtures("record")
@pytest.mark.parametrize(
    ("name", "chapter", "sentence"),
    [
        ("accuracy", "03_gan", "'accuracy' is not recorded for 03_gan"),
        ("modes", "04_none", "There are no recorded results for 04_none"),
    ],
)
def test_what_was_never_recorded_is_refused(name: str, chapter: str, sentence: str) -> None:
    with pytest.raises(ClaimError, match=f"^{sentence}.*`make results`"):
        recorded(name, 3.0, chapter=chapter)


def test_records_are_in_utf_8_whatever_the_system_writes_in(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes('{"device": "größer"}'.encode())
    code = "import sys, pathlib; from mmgan_lib import claims; claims.RESULTS = (pathlib.Path(sys.argv[1]),); "
    code += "print(ascii(claims.results('a')['device']))"
    plain = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "PYTHONPATH": str(claims.PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", code, tmp_path], env=plain, capture_output=True, text=True)
    assert done.stdout.strip() == ascii("größer"), done.stderr


@pytest.mark.usefixtures("record")
def test_a_tier_without_a_record_says_so_and_shows_the_others(displayed: list[dict], monkeypatch) -> None:
    monkeypatch.setenv("MMGAN_TIER", "full")
    recorded("modes", 99.0, chapter="03_gan")
    assert displayed[0]["data"]["text/plain"] == (
        "✓ Recorded in the quick tier over 3 seeds, and not yet in the full tier: modes. "
        "[this run 99, recorded mean 3, lowest 2, highest 4]"
    )


@pytest.mark.usefixtures("record")
def test_while_it_is_recorded_a_number_is_shown_and_not_compared(displayed: list[dict], monkeypatch) -> None:
    monkeypatch.setenv("MMGAN_RECORDING", "1")
    recorded("accuracy", 99.0, chapter="04_none")
    about = displayed[0]["metadata"]["mmgan"]
    assert about == {"record": "accuracy", "value": 99.0, "holds": True, "evidence": {"this run": 99.0}}
