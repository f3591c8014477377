"""Attributes read back from pictures: the classifier on real ones, and the counting."""

import pytest
import torch

from mmgan_lib.checkpoint import load_pretrained
from mmgan_lib.datasets import Shapes
from mmgan_lib.metrics import binomial_interval, caption_accuracy, read_attributes
from mmgan_lib.metrics.captions import AttributeClassifier

NAMES = ("shape", "colour", "size", "place")
PICTURES = {"image": NAMES}


@pytest.fixture(scope="module")
def scenes() -> Shapes:
    return Shapes(1000, split="test", seed=123, tells=PICTURES)


def test_the_classifier_reads_new_real_pictures(scenes: Shapes) -> None:
    right = caption_accuracy(drawn=scenes[:].image, asked=scenes.attributes)
    assert tuple(right) == NAMES
    assert min(score.value for score in right.values()) >= 0.99


def test_the_manifest_says_how_good_it_is() -> None:
    entry = load_pretrained("attribute_classifier", AttributeClassifier())
    assert entry["metrics"].keys() == {f"{name} of test pictures" for name in NAMES}
    assert min(entry["metrics"].values()) >= 0.99


@pytest.mark.parametrize("column", range(4))
def test_a_wrong_attribute_counts_against_itself_alone(scenes: Shapes, column: int) -> None:
    drawn = scenes[:200].image
    asked = read_attributes(drawn)
    asked[:50, column] = (asked[:50, column] + 1) % len(scenes.vocabularies[NAMES[column]])
    values = [score.value for score in caption_accuracy(drawn=drawn, asked=asked).values()]
    assert values == [0.75 if a == column else 1.0 for a in range(4)]


def test_every_score_says_on_how_many_pictures_and_by_what(scenes: Shapes) -> None:
    score = caption_accuracy(drawn=scenes[:30].image, asked=scenes.attributes[:30])["shape"]
    assert (score.n_real, score.n_fake, score.extractor) == (0, 30, "attribute classifier of Shapes")
    assert (score.low, score.high) == binomial_interval(round(30 * score.value), 30)


def test_shuffled_captions_are_right_by_chance(scenes: Shapes) -> None:
    asked = scenes.attributes.roll(1, dims=0)
    for name, score in caption_accuracy(drawn=scenes[:].image, asked=asked).items():
        chance = (scenes.attributes == asked).float().mean(dim=0)[NAMES.index(name)].item()
        assert score.value == pytest.approx(chance, abs=0.01)


def test_pictures_are_read_as_a_file_would_hold_them(scenes: Shapes) -> None:
    """What 256 levels cannot hold has no effect on what is read."""
    torch.manual_seed(0)
    image = scenes[:100].image
    assert torch.equal(read_attributes(image), read_attributes((image + 0.0035 * torch.rand_like(image)).clamp(-1, 1)))


def test_reading_leaves_the_random_numbers_alone(scenes: Shapes) -> None:
    torch.manual_seed(0)
    expected = torch.randn(3)
    torch.manual_seed(0)
    read_attributes(scenes[:2].image)
    assert torch.equal(torch.randn(3), expected)


def test_reading_does_not_depend_on_the_neighbours(scenes: Shapes) -> None:
    image = scenes[:300].image  # more than are read at once
    one_by_one = torch.cat([read_attributes(image[i : i + 1]) for i in range(0, 300, 29)])
    assert torch.equal(one_by_one, read_attributes(image)[::29])


@pytest.mark.parametrize(
    ("drawn", "asked", "message"),
    [
        (torch.zeros(2, 1, 32, 32), torch.zeros(2, 4).long(), r"drawn: found shape \(2, 1, 32, 32\)"),
        (torch.zeros(2, 3, 32, 32), torch.zeros(3, 4).long(), r"asked: found \(3, 4\) torch.int64; expected \(2, 4\)"),
        (torch.zeros(2, 3, 32, 32), torch.zeros(2, 4), "torch.float32"),
        (torch.zeros(2, 3, 32, 32), torch.tensor([[0, 7, 0, 0]] * 2), "values of colour from 7 to 7; expected 0 to 6"),
        (torch.zeros(2, 3, 32, 32), torch.tensor([[-1, 0, 0, 0]] * 2), "values of shape from -1 to -1"),
        (torch.full((2, 3, 32, 32), 2.0), torch.zeros(2, 4).long(), r"expected floating point in \[-1, 1\]"),
    ],
)
def test_bad_input_is_refused(drawn: torch.Tensor, asked: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        caption_accuracy(drawn=drawn, asked=asked)
