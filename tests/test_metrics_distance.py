"""Distances against closed forms, other implementations and what they must not depend on."""

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torchmetrics.image import FrechetInceptionDistance, KernelInceptionDistance

from mmgan_lib.metrics import distance as module
from mmgan_lib.metrics import fid, frechet_distance, kernel_distance, kid

POLYNOMIAL = {"kid_kernel": "poly", "kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None}


def gaussian(n: int, d: int, *, seed: int = 0, scale: float | Tensor = 1.0, shift: float = 0.0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g, dtype=torch.float64) * scale + shift


def correlated(n: int, d: int, *, seed: int) -> Tensor:
    """Non-negative, correlated, of falling variance and far from the origin, as features of a network are."""
    mixing = gaussian(d, d, seed=seed + 100) * torch.linspace(1, 0.01, d, dtype=torch.float64)
    return (gaussian(n, d, seed=seed) @ mixing + 3).relu()


def whitened(n: int, d: int, *, seed: int) -> Tensor:
    """Samples with a mean of exactly 0 and a covariance of exactly 1."""
    x = gaussian(n, d, seed=seed)
    x = torch.linalg.qr(x - x.mean(dim=0)).Q
    return (x - x.mean(dim=0)) * (n - 1) ** 0.5


class Given(nn.Module):
    """For torchmetrics: the features are what it is given."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.num_features = d

    def forward(self, x: Tensor) -> Tensor:
        return x


def by_torchmetrics(metric: type, real: Tensor, fake: Tensor, **options: int) -> Tensor | tuple[Tensor, Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        computed = metric(feature=Given(real.shape[1]), **options).set_dtype(torch.float64)
    computed.update(real, real=True)
    computed.update(fake, real=False)
    return computed.compute()


# Fréchet distance


def test_the_short_names_are_those_of_the_same_functions() -> None:
    assert fid is frechet_distance
    assert kid is kernel_distance


def test_frechet_distance_of_gaussians_is_that_of_their_moments() -> None:
    d = 6
    deviations = torch.linspace(0.5, 3, d, dtype=torch.float64), torch.linspace(2, 0.1, d, dtype=torch.float64)
    real = whitened(200, d, seed=0) * deviations[0] + 1
    fake = whitened(300, d, seed=1) * deviations[1] - 2
    expected = 9 * d + (deviations[0] - deviations[1]).square().sum()
    assert frechet_distance(real=real, fake=fake).value == pytest.approx(expected.item(), rel=1e-10)


def test_frechet_distance_of_covariances_that_do_not_commute() -> None:
    real, fake = whitened(100, 2, seed=0), whitened(100, 2, seed=1)
    a = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=torch.float64)  # square roots of the covariances, symmetric
    b = torch.tensor([[1.0, -0.5], [-0.5, 1.5]], dtype=torch.float64)
    # in two dimensions tr √P = √(tr P + 2 √det P), here of P = a² b²
    product = a @ a @ b @ b
    common = (product.trace() + 2 * torch.linalg.det(product).sqrt()).sqrt()
    expected = (a @ a).trace() + (b @ b).trace() - 2 * common
    assert frechet_distance(real=real @ a, fake=fake @ b).value == pytest.approx(expected.item(), rel=1e-10)


@pytest.mark.parametrize(("n", "m", "d"), [(300, 200, 16), (500, 500, 64), (150, 400, 100)])
def test_frechet_distance_agrees_with_torchmetrics_and_torch_fidelity(n: int, m: int, d: int) -> None:
    real, fake = correlated(n, d, seed=0), 1.1 * correlated(m, d, seed=1)
    ours = frechet_distance(real=real, fake=fake, resamples=0).value
    statistics = fid_features_to_statistics(real), fid_features_to_statistics(fake)
    theirs = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert ours == pytest.approx(theirs, rel=1e-6)
    assert ours == pytest.approx(by_torchmetrics(FrechetInceptionDistance, real, fake).item(), rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(20, 20), (15, 40), (40, 15), (20, 200), (2, 2)])
def test_frechet_distance_with_fewer_samples_than_dimensions_is_exact(n: int, m: int) -> None:
    real, fake = correlated(n, 64, seed=0), 1.2 * correlated(m, 64, seed=1)
    x, y = (z - z.mean(dim=0) for z in (real, fake))
    # the common trace is the nuclear norm of the samples' inner products
    common = torch.linalg.matrix_norm(x @ y.T, ord="nuc") / ((n - 1) * (m - 1)) ** 0.5
    expected = (real.mean(dim=0) - fake.mean(dim=0)).square().sum() + real.var(dim=0).sum() + fake.var(dim=0).sum()
    found = frechet_distance(real=real, fake=fake).value
    assert found == pytest.approx((expected - 2 * common).item(), rel=1e-6)


@pytest.mark.parametrize("n", [10, 500])
def test_frechet_distance_of_identical_features_is_zero(n: int) -> None:
    real = correlated(n, 32, seed=0)
    assert frechet_distance(real=real, fake=real.clone()).value == 0
    assert frechet_distance(real=real, fake=real.flip(0)).value < 1e-6 * real.var(dim=0).sum()


@pytest.mark.parametrize("change", ["rotation", "shift", "order", "sides", "single precision"])
def test_frechet_distance_does_not_depend_on(change: str) -> None:
    real, fake = correlated(200, 16, seed=0), correlated(150, 16, seed=1)
    before = frechet_distance(real=real, fake=fake).value
    rotation = torch.linalg.qr(gaussian(16, 16, seed=2)).Q
    changed = {
        "rotation": lambda: (real @ rotation, fake @ rotation),
        "shift": lambda: (real + 1000, fake + 1000),
        "order": lambda: (real.flip(0), fake.roll(7, 0)),
        "sides": lambda: (fake, real),
        "single precision": lambda: (real.float(), fake.float()),
    }[change]()
    assert frechet_distance(real=changed[0], fake=changed[1]).value == pytest.approx(before, rel=1e-5)


def test_frechet_distance_of_features_that_are_always_zero_or_the_same_as_others() -> None:
    real, fake = correlated(200, 16, seed=0), correlated(150, 16, seed=1)
    redundant = [torch.cat([x, torch.zeros_like(x[:, :8]), x[:, :4]], dim=1) for x in (real, fake)]
    weights = torch.cat([torch.full((4,), 2.0), torch.ones(12)]).double().sqrt()
    weighted = frechet_distance(real=real * weights, fake=fake * weights)
    score = frechet_distance(real=redundant[0], fake=redundant[1])
    assert score.value == pytest.approx(weighted.value, rel=1e-6)
    assert score.high - score.low == pytest.approx(weighted.high - weighted.low, rel=0.2)


def test_frechet_distance_grows_with_the_square_of_the_scale() -> None:
    real, fake = correlated(200, 16, seed=0), correlated(200, 16, seed=1)
    once, thrice = (frechet_distance(real=scale * real, fake=scale * fake) for scale in (1, 3))
    ends = [(9 * once.low, thrice.low), (9 * once.value, thrice.value), (9 * once.high, thrice.high)]
    assert thrice.value == pytest.approx(9 * once.value, rel=1e-9)
    assert all(b == pytest.approx(a, rel=0.05) for a, b in ends)


def test_frechet_distance_of_a_generator_that_draws_one_picture() -> None:
    real, picture = gaussian(200, 8), torch.ones(50, 8)
    expected = (real.mean(dim=0) - 1).square().sum() + real.var(dim=0).sum()
    score = frechet_distance(real=real, fake=picture)
    assert score.value == pytest.approx(expected.item(), rel=1e-9)
    assert score.low < score.value < score.high


def test_frechet_distance_of_samples_is_biased_by_about_one_over_n() -> None:
    def mean(n: int) -> float:
        pairs = [(gaussian(n, 16, seed=2 * seed), gaussian(n, 16, seed=2 * seed + 1)) for seed in range(20)]
        return sum(frechet_distance(real=real, fake=fake, resamples=0).value for real, fake in pairs) / len(pairs)

    assert mean(200) / mean(800) == pytest.approx(4, rel=0.1)


def test_influences_are_the_derivative_of_the_distance() -> None:
    real, fake = correlated(60, 5, seed=0), correlated(90, 5, seed=1)

    def moments(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        mean = (weight @ x) / weight.sum()
        return mean, (weight * (x - mean).T) @ (x - mean) / weight.sum()

    def by_weight(a: Tensor, b: Tensor) -> Tensor:
        (mean_a, covariance_a), (mean_b, covariance_b) = moments(real, a), moments(fake, b)
        common = torch.linalg.eigvals(covariance_a @ covariance_b).real.sqrt().sum()
        return (mean_a - mean_b).square().sum() + covariance_a.trace() + covariance_b.trace() - 2 * common

    weights = [torch.ones(len(x), dtype=torch.float64, requires_grad=True) for x in (real, fake)]
    expected = torch.autograd.grad(by_weight(*weights), weights)

    (mean_real, covariance_real), (mean_fake, covariance_fake) = (
        moments(x, torch.ones_like(x[:, 0])) for x in (real, fake)
    )
    root = torch.linalg.cholesky(covariance_real, upper=True)
    towards_real, towards_fake = module._roots_of_maps(root, root @ covariance_fake)
    shift = mean_real - mean_fake
    sides = (real, towards_fake, shift, expected[0]), (fake, towards_real, -shift, expected[1])
    for x, map_root, away, gradient in sides:
        influence = module._influence(x, map_root, away)
        torch.testing.assert_close((influence - influence.mean()) / len(x), gradient, rtol=1e-6, atol=1e-9)


# Kernel distance


def mmd(real: Tensor, fake: Tensor) -> float:
    """Unbiased, by its definition."""
    k = [(((a @ b.T) / a.shape[1]) + 1) ** 3 for a, b in ((real, real), (fake, fake), (real, fake))]
    n, m = len(real), len(fake)
    return (
        (k[0].sum() - k[0].trace()) / (n * (n - 1)) + (k[1].sum() - k[1].trace()) / (m * (m - 1)) - 2 * k[2].mean()
    ).item()


def test_kernel_distance_of_all_samples_is_its_definition() -> None:
    real, fake = correlated(80, 12, seed=0), correlated(80, 12, seed=1)
    score = kernel_distance(real=real, fake=fake, subsets=3, subset_size=80)
    assert score.value == pytest.approx(mmd(real, fake), rel=1e-10)
    assert score.deviation == pytest.approx(0, abs=1e-12)


def test_kernel_distance_agrees_with_torchmetrics_on_the_same_subsets() -> None:
    real, fake = correlated(300, 24, seed=0), correlated(250, 24, seed=1)
    options = {"subsets": 20, "subset_size": 100}
    torch.manual_seed(7)
    mean, deviation = by_torchmetrics(KernelInceptionDistance, real, fake, **options)
    ours = kernel_distance(real=real, fake=fake, **options, generator=torch.Generator().manual_seed(7))
    assert ours.value == pytest.approx(mean.item(), rel=1e-6)
    assert ours.deviation == pytest.approx(deviation.item(), rel=1e-6)


def test_kernel_distance_agrees_with_torch_fidelity() -> None:
    real, fake = correlated(200, 24, seed=0), correlated(200, 24, seed=1)
    theirs = kid_features_to_metric(
        real, fake, kid_subsets=1, kid_subset_size=200, kid_kernel_poly_coef0=1, rng_seed=0, verbose=False, **POLYNOMIAL
    )["kernel_inception_distance_mean"]
    assert kernel_distance(real=real, fake=fake, subset_size=200).value == pytest.approx(theirs, rel=1e-6)


def test_kernel_distance_is_unbiased_where_the_frechet_distance_is_not() -> None:
    pairs = [(gaussian(60, 8, seed=2 * seed), gaussian(60, 8, seed=2 * seed + 1)) for seed in range(60)]
    values = torch.tensor([kernel_distance(real=x, fake=y, subset_size=60, resamples=0).value for x, y in pairs])
    assert values.mean().abs() < 3 * values.std() / len(values) ** 0.5
    assert (values < 0).any()


def test_kernel_distance_in_blocks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = correlated(90, 8, seed=0), correlated(70, 8, seed=1)
    options = {"real": real, "fake": fake, "subset_size": 50}
    whole = kernel_distance(**options, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(module, "BLOCK", 500)
    monkeypatch.setattr(module, "ROWS", 16)
    assert vars(kernel_distance(**options, generator=torch.Generator().manual_seed(0))) == pytest.approx(vars(whole))
    assert frechet_distance(real=real, fake=fake).value == pytest.approx(
        frechet_distance(real=real.flip(0), fake=fake.flip(0)).value
    )


@pytest.mark.parametrize(("subsets", "size"), [(100, 51), (100, 1), (0, 20)])
def test_subsets_that_cannot_be_drawn_are_refused(subsets: int, size: int) -> None:
    found = f"found {subsets} subsets of {size} samples out of 60 real and 50 fake"
    said = rf"^subsets and subset_size: {found}; expected at least 1, of 2 to 50\.$"
    with pytest.raises(ValueError, match=said):
        kernel_distance(real=gaussian(60, 3), fake=gaussian(50, 3), subsets=subsets, subset_size=size)


# Both


@pytest.mark.parametrize("shift", [0.0, 0.5])
@pytest.mark.parametrize("metric", ["frechet", "kernel"])
def test_the_interval_tells_where_other_samples_would_put_the_value(metric: str, shift: float) -> None:
    def score(seed: int) -> tuple[float, float, float]:
        real, fake = gaussian(150, 6, seed=2 * seed), gaussian(150, 6, seed=2 * seed + 1, shift=shift)
        g = torch.Generator().manual_seed(seed)
        if metric == "frechet":
            found = frechet_distance(real=real, fake=fake, resamples=200, generator=g)
        else:
            found = kernel_distance(real=real, fake=fake, subsets=1, subset_size=150, resamples=200, generator=g)
        return found.value, found.low, found.high

    value, low, high = torch.tensor([score(seed) for seed in range(100)]).T
    covered = ((low < value.mean()) & (value.mean() < high)).double().mean()
    assert covered >= 0.87
    spread = value.quantile(0.975) - value.quantile(0.025)
    assert 0.8 < (high - low).mean() / spread < 2.2


@pytest.mark.parametrize("metric", [frechet_distance, kernel_distance])
def test_distances_react_to_noise_and_to_lost_modes(metric) -> None:
    def drawn(seed: int, modes: int = 4) -> Tensor:
        mode = torch.randint(modes, (400,), generator=torch.Generator().manual_seed(seed))
        return gaussian(400, 8, seed=seed) + 2 * gaussian(4, 8, seed=9)[mode]

    options = {"subset_size": 400, "subsets": 1} if metric is kernel_distance else {}
    fakes = drawn(1), drawn(1) + 2 * gaussian(400, 8, seed=2), drawn(1, modes=1)
    good, noisy, lost = (metric(real=drawn(0), fake=fake, **options) for fake in fakes)
    assert good.high < min(noisy.low, lost.low)
