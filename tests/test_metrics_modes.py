"""mode_coverage and nearest_mode: counting by hand, closed forms, scipy's entropy, and what is refused."""

import math

import pytest
import torch
from scipy.stats import entropy

from mmgan_lib.datasets import gaussian_grid, gaussian_ring
from mmgan_lib.metrics import mode_coverage, nearest_mode


def test_one_mode_is_log_k_away_and_all_modes_alike_are_not_away() -> None:
    one = mode_coverage(torch.zeros(50, dtype=torch.int64), modes=25)
    assert (one.modes, one.high_quality) == (1, 1.0)
    assert one.reverse_kl == pytest.approx(math.log(25))
    every = mode_coverage(torch.arange(100) % 25, modes=25)
    assert every.modes == 25
    assert every.reverse_kl == pytest.approx(0, abs=1e-12)


def test_reverse_kl_is_the_relative_entropy_to_the_uniform_distribution() -> None:
    mode = torch.multinomial(torch.rand(10), 3000, replacement=True, generator=torch.Generator().manual_seed(0))
    share = mode.bincount(minlength=10) / 3000
    expected = entropy(share.double().numpy(), [0.1] * 10)
    assert mode_coverage(mode, modes=10).reverse_kl == pytest.approx(expected, rel=1e-6)


def test_a_mode_counts_by_its_good_samples_alone() -> None:
    mode, good = torch.tensor([0, 0, 1, 2]), torch.tensor([False, True, False, True])
    found = mode_coverage(mode, modes=3, good=good)
    assert (found.modes, found.high_quality) == (2, 0.5)
    assert found.reverse_kl == pytest.approx(mode_coverage(mode, modes=3).reverse_kl)


def test_order_and_names_of_the_modes_do_not_matter() -> None:
    mode = torch.randint(7, (500,), generator=torch.Generator().manual_seed(0))
    renamed = torch.randperm(7, generator=torch.Generator().manual_seed(1))[mode.flip(0)]
    one, other = (mode_coverage(m, modes=7) for m in (mode, renamed))
    assert (one.modes, one.high_quality) == (other.modes, other.high_quality)
    assert one.reverse_kl == pytest.approx(other.reverse_kl)


@pytest.mark.parametrize("mixture", [gaussian_ring, gaussian_grid])
def test_the_mixture_itself_covers_its_modes(mixture) -> None:
    truth = mixture(2500, generator=torch.Generator().manual_seed(0))
    mode, good = nearest_mode(truth.points, centres=truth.centres, std=truth.std)
    found = mode_coverage(mode, modes=len(truth.centres), good=good)
    assert found.modes == len(truth.centres)
    assert found.reverse_kl < 0.02
    # Of a round Gaussian in the plane, all but exp(-9/2) = 1.1 % lie within three standard deviations.
    assert found.high_quality == pytest.approx(1 - math.exp(-4.5), abs=0.01)


def test_three_standard_deviations_are_the_border() -> None:
    centres = torch.tensor([[0.0, 0.0, 0.0], [10.0, 0.0, 0.0]])
    fake = torch.tensor([[0.0, 2.99, 0.0], [0.0, 3.01, 0.0], [5.1, 0.0, 0.0]])
    mode, good = nearest_mode(fake, centres=centres, std=1.0)
    assert mode.tolist() == [0, 0, 1]
    assert good.tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"mode": torch.zeros(3)}, r"mode: found \(3,\) torch.float32; expected \(N,\) torch.int64"),
        ({"mode": torch.zeros(0, dtype=torch.int64)}, r"mode: found \(0,\)"),
        ({"good": torch.ones(3, dtype=torch.bool)}, r"good: found \(3,\) torch.bool; expected \(N,\) torch.bool"),
        ({"good": torch.ones(2)}, r"good: found \(2,\) torch.float32"),
        ({"modes": 1}, "modes is 1; expected at least 2"),
        ({"mode": torch.tensor([0, 4])}, "mode: found modes from 0 to 4; expected 0 to 3"),
        ({"mode": torch.tensor([-1, 2])}, "mode: found modes from -1 to 2; expected 0 to 3"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict, said: str) -> None:
    arguments = {"mode": torch.tensor([0, 1]), "modes": 4, **arguments}
    with pytest.raises(ValueError, match=said):
        mode_coverage(arguments.pop("mode"), **arguments)


def test_the_nearest_mode_does_not_depend_on_where_zero_is_nor_on_the_other_samples() -> None:
    centres = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    samples = centres.repeat(20, 1) + 0.01 * torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    far = 100 + samples.double()  # exact in double precision
    expected = nearest_mode(far, centres=100 + centres.double(), std=0.01)
    found = nearest_mode(far.float(), centres=100 + centres, std=0.01)
    assert torch.equal(found[0], expected[0])
    assert (found[1] == expected[1]).float().mean() >= 0.95  # but for samples at the very limit
    assert torch.equal(nearest_mode(far[:3].float(), centres=100 + centres, std=0.01)[1], found[1][:3])


def test_samples_of_another_dimension_are_refused() -> None:
    with pytest.raises(ValueError, match=r"std is 0.0; expected more than 0"):
        nearest_mode(torch.zeros(5, 2), centres=torch.zeros(4, 2), std=0.0)
    with pytest.raises(ValueError, match=r"^fake: found numbers of type torch\.int64; expected floating point"):
        nearest_mode(torch.zeros(5, 2).long(), centres=torch.zeros(4, 2), std=1.0)
    with pytest.raises(ValueError, match=r"centres: found shape \(2,\); expected \(K, D\)"):
        nearest_mode(torch.zeros(5, 2), centres=torch.zeros(2), std=1.0)
    with pytest.raises(ValueError, match=r"^fake: found shape \(5, 3\); expected \(N, 2\)"):
        nearest_mode(torch.zeros(5, 3), centres=torch.zeros(4, 2), std=1.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_samples_of_half_precision_have_a_nearest_mode(dtype: torch.dtype) -> None:
    mode, good = nearest_mode(torch.tensor([[0.1, 0.0], [7.0, 9.0]], dtype=dtype), centres=torch.eye(2) * 9, std=0.1)
    assert (mode.tolist(), good.tolist()) == ([0, 1], [False, False])
