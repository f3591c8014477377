"""The evaluation card: the same numbers as the metrics give, beside real samples, with what makes them again."""

import pytest
import torch

from mmgan_lib.metrics import Features, evaluation_card, frechet_distance, memorisation, precision_recall

MADE = {
    "command": "python -m tools.weights some_generator",
    "seed": 7,
    "tier": "quick",
    "seconds": 12.3,
    "device": "cpu (a processor)",
    "sha256": "0123abcd",
}


def features(n: int, seed: int, *, shift: float = 0.0) -> Features:
    drawn = torch.randn(n, 5, generator=torch.Generator().manual_seed(seed)) + shift
    return Features(drawn, "some <encoder>")


TRAIN, REAL = features(300, 0), features(200, 1)


def card(fake: Features, **more):
    return evaluation_card("some generator", train=TRAIN, real=REAL, fake=fake, made=MADE, **more)


def test_the_left_column_is_what_the_metrics_say_of_as_many_fakes_as_real_samples() -> None:
    fake = features(150, 2, shift=1.0)
    scores = card(fake).scores
    expected = {
        "Fréchet distance": frechet_distance(real=REAL[:100], fake=fake[:100], resamples=0),
        "recall": precision_recall(real=REAL[:100], fake=fake[:100], resamples=0).recall,
        "memorisation": memorisation(train=TRAIN, real=REAL[:100], fake=fake[:100], resamples=0),
    }
    for name, score in expected.items():
        assert scores[name][0].value == score.value
        assert (scores[name][0].n_real or 100, scores[name][0].n_fake) == (100, 100)


def test_the_right_column_is_the_other_half_of_the_real_samples() -> None:
    both = card(Features(REAL.vectors[100:], REAL.extractor)).scores
    for name, (ours, theirs) in both.items():
        assert (ours.value, ours.low, ours.high) == (theirs.value, theirs.low, theirs.high), name


def test_fakes_that_are_off_are_worse_than_real_samples_in_their_place() -> None:
    scores = card(features(100, 3, shift=2.0)).scores
    worse = {name: (ours.value, theirs.value) for name, (ours, theirs) in scores.items()}
    for name in ("Fréchet distance", "kernel distance"):
        assert worse[name][0] > worse[name][1]
    for name in ("precision", "coverage", "density"):
        assert worse[name][0] < worse[name][1]


def test_it_says_what_makes_the_numbers_again() -> None:
    found = card(features(100, 2), seed=3)
    facts = " ".join(found.facts.values())
    for needed in (MADE["command"], "seed 7", MADE["sha256"], "100 fakes and 100 held-out", "300", "seed 3", "torch"):
        assert needed in facts
    again = card(features(100, 2), seed=3)
    assert again == found
    assert repr(again) == repr(found)


def test_further_scores_stand_in_the_left_column_alone() -> None:
    extra = frechet_distance(real=REAL, fake=TRAIN)
    assert card(features(100, 2), more={"shape as asked": extra}).scores["shape as asked"] == (extra, None)


def test_the_page_shows_every_score_and_escapes_names() -> None:
    found = card(features(100, 2))
    html = found._repr_html_()
    assert html.count("<tr>") == 1 + len(found.scores)
    assert "some &lt;encoder&gt;" in html
    assert "<encoder>" not in html
    for name in found.scores:
        assert name in html
        assert name in repr(found)


def test_too_few_fakes_are_refused() -> None:
    with pytest.raises(ValueError, match="fake: found 99 samples; expected at least 100, half of the real ones"):
        card(features(99, 2))
