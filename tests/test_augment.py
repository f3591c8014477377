"""Augmentation: what each function changes and what it leaves, and that a gradient passes."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmgan_lib.gan import brightness, contrast, cutout, diff_augment, saturation, translate

STEPS = (brightness, saturation, contrast, translate, cutout)

each_step = pytest.mark.parametrize("step", [*STEPS, diff_augment], ids=lambda step: step.__name__)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def pictures(batch: int = 64, channels: int = 3, height: int = 16, width: int = 24) -> Tensor:
    return 2 * torch.rand(batch, channels, height, width) - 1


@each_step
def test_draws_a_change_for_each_picture_from_the_global_random_numbers(step) -> None:
    same = pictures(1).expand(8, -1, -1, -1)
    first, second = step(same), step(same)
    torch.manual_seed(0)
    pictures(1)
    assert torch.equal(step(same), first)
    assert not torch.equal(first, second)
    assert first.shape == same.shape
    assert len(torch.unique(first.flatten(1), dim=0)) > 4


@each_step
def test_a_gradient_passes(step) -> None:
    x = pictures(6, 3, 8, 8).double().requires_grad_()

    def changed(x: Tensor) -> Tensor:
        torch.manual_seed(1)
        return step(x)

    assert torch.autograd.gradcheck(changed, x)


def test_brightness_adds_one_number_from_minus_to_plus_one_half() -> None:
    x = pictures(2000, 3, 4, 4)
    added = (brightness(x) - x).flatten(1)
    assert (added.amax(1) - added.amin(1)).max() < 1e-6
    assert added.mean().item() == pytest.approx(0, abs=0.02)
    assert added.std().item() == pytest.approx(12**-0.5, abs=0.01)  # of a uniform number in an interval of length 1


def test_saturation_stretches_colours_about_grey_by_up_to_two() -> None:
    x = pictures(2000, 3, 4, 4)
    grey = x.mean(1, keepdim=True)
    changed = saturation(x)
    torch.testing.assert_close(changed.mean(1, keepdim=True), grey)
    factor = ((changed - grey) * (x - grey)).sum((1, 2, 3)) / (x - grey).square().sum((1, 2, 3))
    torch.testing.assert_close(changed, grey + factor[:, None, None, None] * (x - grey), atol=1e-5, rtol=0)
    assert 0 <= factor.min() < 0.02
    assert 1.98 < factor.max() <= 2
    one = pictures(channels=1)
    assert torch.equal(saturation(one), one)


def test_contrast_stretches_values_about_the_mean_of_the_picture() -> None:
    x = pictures(2000, 3, 4, 4)
    mean = x.mean((1, 2, 3), keepdim=True)
    changed = contrast(x)
    torch.testing.assert_close(changed.mean((1, 2, 3), keepdim=True), mean)
    factor = changed.std((1, 2, 3)) / x.std((1, 2, 3))
    torch.testing.assert_close(changed, mean + factor[:, None, None, None] * (x - mean), atol=1e-5, rtol=0)
    assert 0.5 <= factor.min() < 0.51
    assert 1.49 < factor.max() <= 1.5


@pytest.mark.parametrize(("share", "most"), [({}, (2, 3)), ({"share": 1 / 16}, (1, 2))], ids=str)
def test_translation_moves_the_picture_and_lets_zeros_in(share: dict, most: tuple[int, int]) -> None:
    x = pictures(600) + 2  # nowhere 0
    moved = translate(x, **share)
    found = set()
    for before, after in zip(x, moved, strict=True):
        there = (after != 0).all(0)
        rows, columns = there.any(1).nonzero()[:, 0], there.any(0).nonzero()[:, 0]
        down = int(rows[0]) or int(rows[-1]) - 15  # what is left of 16 rows and 24 columns tells the shift
        right = int(columns[0]) or int(columns[-1]) - 23
        padded = F.pad(before, (3, 3, 2, 2))
        assert torch.equal(after, padded[:, 2 - down : 18 - down, 3 - right : 27 - right])
        found.add((down, right))
    assert found == {(down, right) for down in range(-most[0], most[0] + 1) for right in range(-most[1], most[1] + 1)}


def test_cutout_hides_a_rectangle_of_half_the_sides() -> None:
    hidden = cutout(torch.ones(4000, 2, 16, 24)) == 0
    assert torch.equal(hidden[:, 0], hidden[:, 1])
    rows, columns = hidden[:, 0].any(2), hidden[:, 0].any(1)
    assert torch.equal(hidden[:, 0], rows[:, :, None] & columns[:, None])
    for stretch, side in ((rows, 16), (columns, 24)):
        runs = stretch.int().diff(dim=1).abs().sum(1)
        assert runs.max() == 2  # in one piece
        assert set(stretch.sum(1).tolist()) == set(range(side // 4, side // 2 + 1))
        assert stretch.float().mean(0)[side // 4 : -side // 4].std() < 0.02  # all of the inner part alike
        torch.testing.assert_close(stretch.float().mean(0), stretch.float().mean(0).flip(0), atol=0.03, rtol=0)


def test_leaves_what_the_steps_leave() -> None:
    x = pictures()
    assert diff_augment(x, ()) is x
    torch.manual_seed(3)
    expected = cutout(translate(contrast(saturation(brightness(x)))))
    torch.manual_seed(3)
    assert torch.equal(diff_augment(x), expected)


@pytest.mark.parametrize("bad", [torch.zeros(3, 8, 8), torch.zeros(2, 3, 8, 8, dtype=torch.uint8)])
def test_refuses_what_is_no_batch_of_pictures(bad: Tensor) -> None:
    with pytest.raises(ValueError, match=r"image: found .* torch\.(float32|uint8); expected \(B, C, H, W\)"):
        diff_augment(bad)
