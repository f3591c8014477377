"""Neighbours against other implementations, counting by hand, and generators with a known fault."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from torch import Tensor
from torch_fidelity.metric_prc import prc_features_to_metric

from mmgan_lib.metrics import density_coverage, memorisation, nearest_neighbours, pairwise_diversity, precision_recall


def gaussian(n: int, d: int = 8, *, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def all_four(real: Tensor, fake: Tensor, k: int = 5) -> dict[str, float]:
    found = precision_recall(real=real, fake=fake, neighbours=k), density_coverage(real=real, fake=fake, neighbours=k)
    return {name: score.value for part in found for name, score in part._asdict().items()}


@pytest.mark.parametrize(("n", "m", "k", "scale"), [(300, 300, 5, 1.2), (200, 350, 3, 0.7), (350, 120, 1, 1.0)])
def test_all_four_agree_with_prdc(n: int, m: int, k: int, scale: float, capsys: pytest.CaptureFixture) -> None:
    real, fake = gaussian(n, seed=1), scale * gaussian(m, seed=2)
    expected = compute_prdc(real.numpy(), fake.numpy(), nearest_k=k)
    assert all_four(real, fake, k) == pytest.approx({name: float(value) for name, value in expected.items()})


@pytest.mark.parametrize("k", [1, 3, 10])
def test_precision_and_recall_agree_with_torch_fidelity(k: int) -> None:
    real, fake = gaussian(250, seed=1) + 5, 0.8 * gaussian(180, seed=2) + 5
    theirs = prc_features_to_metric(
        fake, real, prc_neighborhood=k, prc_batch_size=100, save_cpu_ram=False, verbose=False
    )
    ours = precision_recall(real=real, fake=fake, neighbours=k)
    assert (ours.precision.value, ours.recall.value) == pytest.approx((theirs["precision"], theirs["recall"]))


@pytest.mark.parametrize("change", ["blocks", "rotation", "shift", "scale", "order", "single precision"])
def test_neighbours_do_not_depend_on(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake, train = gaussian(200, seed=1), 0.8 * gaussian(150, seed=2), gaussian(170, seed=3)

    def values(*sets: Tensor) -> list[float]:
        real, fake, train = sets
        return [*all_four(real, fake).values(), memorisation(train=train, real=real, fake=fake).value]

    before = values(real, fake, train)
    diversity = pairwise_diversity(fake=fake).value
    if change == "blocks":
        monkeypatch.setattr(nearest_neighbours, "BLOCK", 700)
        monkeypatch.setattr(nearest_neighbours, "SIDE", 33)
    rotation = torch.linalg.qr(gaussian(8, seed=4)).Q
    changed = {
        "blocks": lambda x: x,
        "rotation": lambda x: x @ rotation,
        "shift": lambda x: x + 1000,
        "scale": lambda x: 0.001 * x,
        "order": lambda x: x.flip(0),
        "single precision": lambda x: x.float(),
    }[change]
    assert values(changed(real), changed(fake), changed(train)) == pytest.approx(before, abs=1e-12)
    scale = 0.001 if change == "scale" else 1
    assert pairwise_diversity(fake=changed(fake)).value == pytest.approx(scale * diversity, rel=1e-6)


def test_samples_of_one_distribution_have_the_density_and_coverage_that_theory_says() -> None:
    found = density_coverage(real=gaussian(2000, 4, seed=1), fake=gaussian(2000, 4, seed=2), neighbours=3)
    assert found.density.value == pytest.approx(1, abs=0.05)
    n, k = 2000, 3
    expected = 1 - math.prod((n - 1 - i) / (2 * n - 1 - i) for i in range(k))  # Naeem et al., section 3.3
    assert found.coverage.value == pytest.approx(expected, abs=0.03)


def test_copies_lie_within_though_rounding_has_it_otherwise() -> None:
    real = gaussian(100, 64, seed=1).float() + 100
    assert all_four(real, real.clone().flip(0), k=3) == {"precision": 1, "recall": 1, "density": 1, "coverage": 1}
    all_the_same = torch.full((30, 64), 0.3)
    assert precision_recall(real=all_the_same, fake=all_the_same.clone()).precision.value == 1


FAULTS = {
    "good": (lambda real: gaussian(400, seed=2), {"precision": (0.6, 1), "recall": (0.6, 1), "coverage": (0.8, 1)}),
    "noisy": (lambda real: 3 * gaussian(400, seed=2), {"precision": (0, 0.2), "recall": (0.6, 1)}),
    "collapsed": (
        lambda real: real[:1] + 0.01 * gaussian(400, seed=2),
        {"recall": (0, 0.01), "coverage": (0, 0.1)},
    ),
    "copies": (lambda real: real.clone(), {"precision": (1, 1), "recall": (1, 1), "coverage": (1, 1)}),
    "far away": (
        lambda real: gaussian(400, seed=2) + 50,
        {"precision": (0, 0), "recall": (0, 0), "density": (0, 0), "coverage": (0, 0)},
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_shows_where_it_should(fault: str) -> None:
    real = gaussian(400, seed=1)
    make, expected = FAULTS[fault]
    found = all_four(real, make(real))
    assert all(low <= found[name] <= high for name, (low, high) in expected.items()), found


def test_an_outlier_vouches_for_many_in_precision_but_not_in_density() -> None:
    real = torch.cat([gaussian(200, seed=1), torch.full((1, 8), 30.0)])
    fake = gaussian(200, seed=2) * 5 + 15
    found = all_four(real, fake)
    assert found["precision"] > 0.9
    assert found["density"] < 0.5


def test_memorising_is_told_from_drawing_anew() -> None:
    train, real = gaussian(300, seed=1), gaussian(200, seed=2)
    anew = memorisation(train=train, real=real, fake=gaussian(250, seed=3))
    nearly = memorisation(train=train, real=real, fake=train[:250] + 0.1 * gaussian(250, seed=4))
    copies = memorisation(train=train, real=real, fake=train[:250])
    noisy = memorisation(train=train, real=real, fake=3 * gaussian(250, seed=5))
    assert anew.low < 0.5 < anew.high
    assert copies.value == 1
    assert nearly.low > 0.9
    assert noisy.high < 0.5
    assert (anew.n_real, anew.n_fake) == (200, 250)


def test_memorisation_is_the_share_of_pairs() -> None:
    train, real, fake = gaussian(40, seed=1), gaussian(30, seed=2), gaussian(20, seed=3)
    real[:5], fake[:7] = train[:5], train[3:10]  # ties, at distance 0
    of_real, of_fake = (
        torch.cdist(x, train, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1) for x in (real, fake)
    )
    pairs = (of_fake[:, None] < of_real).double() + 0.5 * (of_fake[:, None] == of_real)
    assert memorisation(train=train, real=real, fake=fake).value == pytest.approx(pairs.mean().item(), rel=1e-12)


def test_diversity_is_the_mean_distance_of_pairs() -> None:
    fake = gaussian(60, seed=1)
    score = pairwise_diversity(fake=fake)
    assert score.value == pytest.approx(torch.pdist(fake).mean().item(), rel=1e-9)
    assert (score.n_real, score.n_fake) == (0, 60)
    assert pairwise_diversity(fake=fake[:1].expand(20, -1)).value == 0


@pytest.mark.parametrize(
    ("k", "n", "m", "said"),
    [
        (5, 5, 50, r"^neighbours is 5; expected 1 to 4, as real has 5 samples\.$"),
        (0, 50, 50, r"^neighbours is 0; expected 1 to 49, as real has 50 samples\.$"),
        (5, 50, 5, r"^neighbours is 5; expected 1 to 4, as fake has 5 samples\.$"),
    ],
)
def test_neighbours_that_there_are_not_are_refused(k: int, n: int, m: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        precision_recall(real=gaussian(n), fake=gaussian(m), neighbours=k)


def test_the_interval_of_a_share_is_that_of_its_samples() -> None:
    real, fake = gaussian(300, seed=1), 1.3 * gaussian(300, seed=2)
    precision, _ = precision_recall(real=real, fake=fake, generator=torch.Generator().manual_seed(0))
    deviation = np.sqrt(precision.value * (1 - precision.value) / 300)
    assert (precision.low, precision.high) == pytest.approx(
        (precision.value - 1.96 * deviation, precision.value + 1.96 * deviation), abs=0.3 * deviation
    )


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_distances_are_never_held_all_at_once() -> None:
    code = """if True:
        import torch
        from mmgan_lib.metrics import density_coverage

        def peak():
            return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1e6

        real, fake = torch.randn(2, 15_000, 2)
        density_coverage(real=real[:100], fake=fake[:100])
        before = peak()
        density_coverage(real=real, fake=fake, resamples=0)
        print(peak() - before)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1.0  # GB, of which all distances would be 1.8


def one_by_one(real: Tensor, fake: Tensor, k: int = 5) -> dict[str, float]:
    """The four by their definitions, from differences taken one by one."""
    within, across = ((a[:, None] - b).square().sum(dim=2).sqrt() for a, b in ((real, real), (fake, real)))
    among_fakes = (fake[:, None] - fake).square().sum(dim=2).sqrt()
    radii, fake_radii = (x.sort(dim=1).values[:, k] for x in (within, among_fakes))
    return {
        "precision": (across <= radii).any(dim=1).double().mean().item(),
        "recall": (across <= fake_radii[:, None]).any(dim=0).double().mean().item(),
        "density": (across < radii).sum().item() / (k * len(fake)),
        "coverage": (across < radii).any(dim=0).double().mean().item(),
    }


def with_one_at(place: float, x: Tensor) -> Tensor:
    return torch.cat([x[:-1], torch.full_like(x[-1:], place)])


@pytest.mark.parametrize(
    "change",
    [
        lambda real, fake: (real, with_one_at(1e6, fake)),
        lambda real, fake: (with_one_at(1e6, real), fake),
        lambda real, fake: (with_one_at(-1e7, real), with_one_at(1e6, fake)),
        lambda real, fake: (with_one_at(1e6, real), with_one_at(1e6, real).flip(0)),
        lambda real, fake: tuple(torch.cat([x[:150], x[150:] + 1e7]) for x in (real, fake)),
        lambda real, fake: tuple(torch.cat([x[:150], x[150:] + 1e7]) for x in (real, real.roll(1, 0))),
        lambda real, fake: (real, real[:1].expand(300, -1)),
        lambda real, fake: (real, 1e-6 * fake),
    ],
    ids=["fake far", "real far", "both far", "copies", "two places", "copies in two places", "one fake", "collapsed"],
)
@pytest.mark.parametrize("d", [2, 64])
def test_samples_far_off_or_close_change_nothing_for_the_others(change, d: int) -> None:
    """The distance of two samples near each other and far from the rest is known as well as any other."""
    real, fake = change(gaussian(300, d, seed=1), gaussian(300, d, seed=2))
    assert all_four(real, fake) == pytest.approx(one_by_one(real, fake), abs=1e-12)


@pytest.mark.parametrize("d", [2, 64])
def test_one_far_sample_does_not_hide_copies(d: int) -> None:
    train, real = gaussian(300, d, seed=1), gaussian(300, d, seed=2)
    copies = memorisation(train=train, real=real, fake=with_one_at(1e6, train))
    assert copies.value == pytest.approx(299 / 300, abs=1e-12)
    assert pairwise_diversity(fake=with_one_at(1e6, train[:1].expand(300, -1))).value == pytest.approx(
        2 / 300 * (1e6 - train[0]).norm().item(), rel=1e-12
    )
