"""What judges say, against closed forms, other implementations and drawing it out."""

import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_fidelity.metric_isc import isc_features_to_metric
from torchmetrics.image.inception import InceptionScore

from mmgan_lib.metrics import Features, classification_accuracy_score, inception_score, r_precision


def gaussian(n: int, d: int = 8, *, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labelled(n: int, *, seed: int, classes: int = 4, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    label = torch.randint(classes, (n,), generator=torch.Generator().manual_seed(seed))
    return 2 * gaussian(classes, seed=99)[label] + spread * gaussian(n, seed=seed), label


# Inception score


@pytest.mark.filterwarnings("ignore:std\\(\\):UserWarning")  # torchmetrics, of the deviation over one split
def test_inception_score_agrees_with_torchmetrics_and_torch_fidelity() -> None:
    logits = 3 * gaussian(500, 20)
    ours = inception_score(fake=logits).value
    assert ours == pytest.approx(isc_features_to_metric(logits, splits=1)["inception_score_mean"], rel=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = InceptionScore(feature=nn.Identity(), splits=1)
    theirs.update(logits)
    assert ours == pytest.approx(theirs.compute()[0].item(), rel=1e-6)


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_inception_score_lies_between_one_and_the_number_of_classes(classes: int) -> None:
    sure_and_even = 1000 * torch.eye(classes).repeat(3, 1)
    assert inception_score(fake=sure_and_even, resamples=0).value == pytest.approx(classes)
    assert inception_score(fake=sure_and_even[:1].expand(50, -1), resamples=0).value == pytest.approx(1)  # collapsed
    assert inception_score(fake=torch.zeros(50, classes), resamples=0).value == pytest.approx(1)  # unsure


def test_inception_score_of_probabilities_and_of_shifted_logits_is_the_same() -> None:
    logits = 3 * gaussian(100, 5)
    score = inception_score(fake=logits).value
    assert inception_score(fake=logits.softmax(dim=1).log()).value == pytest.approx(score)
    assert inception_score(fake=logits + gaussian(100, 1, seed=1)).value == pytest.approx(score)


def test_the_interval_of_the_inception_score_covers_what_other_samples_give() -> None:
    scores = [inception_score(fake=3 * gaussian(300, 6, seed=seed), resamples=200) for seed in range(60)]
    mean = sum(score.value for score in scores) / len(scores)
    assert sum(score.low < mean < score.high for score in scores) >= 0.85 * len(scores)
    values = torch.tensor([score.value for score in scores])
    widths = torch.tensor([score.high - score.low for score in scores])
    assert widths.mean() / (4 * values.std()) == pytest.approx(1, abs=0.3)


# R-precision


def test_r_precision_is_what_drawing_competitors_gives() -> None:
    text = gaussian(60)
    image = text + 1.5 * gaussian(60, seed=1)
    similarity = F.cosine_similarity(image[:, None], text[None], dim=2)
    g, wins, draws = torch.Generator().manual_seed(0), 0, 300
    for _ in range(draws):
        for i in range(60):
            others = torch.randperm(59, generator=g)[:9]
            others += others >= i
            wins += (similarity[i, others] < similarity[i, i]).all().item()
    expected = wins / (60 * draws)
    assert 0.2 < expected < 0.9
    assert r_precision(image=image, text=text, candidates=10).value == pytest.approx(expected, abs=0.01)


def test_r_precision_among_all_captions_is_recall_at_one() -> None:
    text = gaussian(80)
    image = text + gaussian(80, seed=1)
    nearest = F.cosine_similarity(image[:, None], text[None], dim=2).argmax(dim=1)
    expected = (nearest == torch.arange(80)).double().mean().item()
    assert r_precision(image=image, text=text, candidates=80).value == pytest.approx(expected)


def test_r_precision_of_a_generator_that_does_not_listen_is_chance() -> None:
    text, image = gaussian(2000), gaussian(2000, seed=1)
    score = r_precision(image=image, text=text, candidates=10)
    assert score.value == pytest.approx(0.1, abs=0.015)
    assert score.low < 0.1 < score.high


def test_swapped_captions_show_in_r_precision() -> None:
    text = gaussian(200)
    asked, swapped = (r_precision(image=text + 0.3 * gaussian(200, seed=1), text=t) for t in (text, text.roll(1, 0)))
    assert asked.low > 0.9
    assert swapped.high < 0.05


def test_the_same_caption_does_not_compete_with_itself() -> None:
    text = gaussian(50).repeat(3, 1)
    assert r_precision(image=text, text=text * (1 + 1e-9), candidates=50).value == 1


def test_an_encoder_that_tells_no_captions_apart_wins_nothing() -> None:
    text = torch.ones(50, 8, dtype=torch.float64)
    text[:, 0] += 1e-2 * torch.arange(50)  # different, and all at one angle to the picture
    image = torch.zeros(50, 8, dtype=torch.float64)
    assert r_precision(image=image, text=text, candidates=5).value == 0


def test_r_precision_names_both_extractors() -> None:
    image, text = Features(gaussian(20), "pictures' encoder"), Features(gaussian(20), "MiniLM")
    score = r_precision(image=image, text=text, candidates=5)
    assert (score.extractor, score.n_real, score.n_fake) == ("pictures' encoder and MiniLM", 0, 20)


@pytest.mark.parametrize(
    ("text", "candidates", "said"),
    [
        (gaussian(19), 5, r"^text: found \(19, 8\); expected \(20, 8\), one for each image\.$"),
        (gaussian(20, 7), 5, r"^text: found \(20, 7\); expected \(20, 8\), one for each image\.$"),
        (gaussian(20), 21, r"^candidates is 21; expected 2 to 20, as many as there are other captions\.$"),
        (gaussian(20), 1, r"^candidates is 1; expected 2 to 20"),
        (gaussian(10).repeat(2, 1), 20, r"^candidates is 20; expected 2 to 19"),
        (torch.ones(20, 8), 2, r"^candidates is 2; expected 2 to 1, as many as there are other captions\.$"),
    ],
)
def test_captions_that_cannot_compete_are_refused(text: Tensor, candidates: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        r_precision(image=gaussian(20, seed=1), text=text, candidates=candidates)


# Classification accuracy score


def accuracy(fake: Tensor, fake_label: Tensor):
    real, real_label = labelled(500, seed=1)
    return classification_accuracy_score(real=real, real_label=real_label, fake=fake, fake_label=fake_label)


def test_one_learns_as_well_from_good_fakes_as_from_real_samples() -> None:
    good = accuracy(*labelled(400, seed=2))
    assert good.value > 0.95
    assert good.low <= good.value <= good.high
    assert (good.n_real, good.n_fake) == (500, 400)


def test_what_the_fakes_lack_is_not_learnt() -> None:
    fake, label = labelled(400, seed=2)
    wrong = accuracy(fake, label.roll(1))
    lost = accuracy(fake[label < 2], label[label < 2])
    swapped = accuracy(fake, (label + 1) % 4)
    assert wrong.value < 0.7
    assert lost.value == pytest.approx((labelled(500, seed=1)[1] < 2).double().mean().item(), abs=0.03)
    assert swapped.value < 0.05


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (torch.zeros(9).long(), r"^fake_label: found \(9,\) torch.int64; expected \(10,\) torch.int64\.$"),
        (torch.zeros(10), r"^fake_label: found \(10,\) torch.float32; expected"),
        (torch.full((10,), 3), r"^fake_label: found only class 3; expected at least two classes to learn\.$"),
    ],
)
def test_labels_that_do_not_fit_are_refused(label: Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        accuracy(gaussian(10), label)


def test_closed_form_of_drawing_none() -> None:
    from mmgan_lib.metrics.classifier_scores import _chance_to_draw_none

    for bad, of, draws in [(0, 10, 3), (2, 10, 3), (7, 10, 3), (8, 10, 3), (10, 10, 1), (100, 9999, 99)]:
        expected = math.comb(of - bad, draws) / math.comb(of, draws)
        found = _chance_to_draw_none(torch.tensor([bad]), torch.tensor([of]), draws).item()
        assert found == pytest.approx(expected, rel=1e-9)
