"""From pictures to features, what a score carries, and what is refused at the door."""

import math

import pytest
import torch
from torch import Tensor, nn

from mmgan_lib.datasets.download import DataUnavailable
from mmgan_lib.encoders import ImageEncoder, pretrained, pretrained_resnet
from mmgan_lib.metrics import (
    Estimate,
    Features,
    bootstrap,
    density_coverage,
    features,
    frechet_distance,
    image_features,
    inception_score,
    kernel_distance,
    memorisation,
    pairwise_diversity,
    precision_recall,
    pretrained_inception,
    quantise,
)


def pictures(n: int, *, seed: int = 0, size: int = 16) -> Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def gaussian(n: int, d: int = 4, *, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


# Pictures


def test_every_level_of_a_file_stays_what_it_is() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(quantise(levels / 127.5 - 1), levels)
    assert torch.equal(quantise((levels / 127.5 - 1).double()), levels)


def test_features_are_of_pictures_as_files_hold_them() -> None:
    held = quantise(pictures(5)) / 127.5 - 1
    off = (held + 0.4 / 127.5 * pictures(5, seed=1)).clamp(-1, 1)
    assert not torch.equal(off, held)
    assert torch.equal(image_features(off, nn.Flatten()).vectors, held.flatten(1))


def test_encoders_are_in_eval_mode_and_then_as_they_were() -> None:
    encoder = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3 * 16 * 16), nn.Dropout())
    encoder[2].eval()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    whole = image_features(pictures(10), encoder)
    assert [part.training for part in encoder] == [True, True, False]
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert torch.equal(whole.vectors, image_features(pictures(10), encoder, batch_size=3).vectors)
    assert not whole.vectors.requires_grad


def test_features_carry_the_name_of_their_extractor() -> None:
    resnet = pretrained_resnet("Shapes")
    assert image_features(pictures(4, size=32), resnet).extractor == "small ResNet trained on Shapes"
    assert image_features(pictures(4), ImageEncoder(16)).extractor == "ImageEncoder"


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (255 * torch.rand(2, 3, 8, 8), r"^image: found float32 from .* to .*; expected floating point in \[-1, 1\]\.$"),
        (pictures(2) + 0.2, r"^image: found float32 from .* expected floating point in \[-1, 1\]\.$"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), r"^image: found uint8 from 0 to 0; expected floating point"),
        (torch.full((2, 3, 8, 8), torch.nan), r"^image: found float32 from nan to nan; expected"),
        (torch.zeros(3, 8, 8), r"^image: found shape \(3, 8, 8\); expected \(B, C, H, W\)\.$"),
        (torch.zeros(0, 3, 8, 8), r"^image: found shape \(0, 3, 8, 8\); expected \(B, C, H, W\)\.$"),
    ],
)
def test_pictures_that_are_none_are_refused(image: Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        image_features(image, nn.Flatten())


def test_an_encoder_that_gives_maps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^encoder: gives \(2, 5, 14, 14\) of 2 images; expected \(B, D\)\.$"):
        image_features(pictures(2), nn.Conv2d(3, 5, 3))


def test_inception_gives_the_features_before_torchvisions_classifier() -> None:
    from torchvision.models import inception_v3

    torch.manual_seed(0)
    network = inception_v3(weights=None, init_weights=False).eval()
    state = torch.get_rng_state()
    encoder = features._inception(network.state_dict(), batch_size=2)
    assert torch.equal(torch.get_rng_state(), state)
    pooled = []
    network.avgpool.register_forward_hook(lambda module, inputs, output: pooled.append(output.flatten(1)))
    image = pictures(1, size=299)
    with torch.no_grad():
        network(quantise(image) / 127.5 - 1)
    found = image_features(image, encoder)
    assert found.vectors.shape == (1, 2048)
    torch.testing.assert_close(found.vectors, pooled[0], rtol=1e-3, atol=1e-4)
    assert found.extractor == "Inception v3 trained on ImageNet"


def test_inception_without_its_weights_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args, **options) -> None:
        raise DataUnavailable("no network")

    monkeypatch.setattr(pretrained.image, "fetch", unreachable)
    with pytest.raises(DataUnavailable, match=r"^https://.*inception_v3.*\.pth could not be downloaded; pretrained_"):
        pretrained_inception()


# Scores


def test_a_score_tells_what_it_stands_on() -> None:
    real, fake = Features(gaussian(50), "an encoder"), Features(gaussian(40, seed=1), "an encoder")
    score = frechet_distance(real=real, fake=fake)
    assert isinstance(score, Estimate)
    assert (score.n_real, score.n_fake, score.extractor) == (50, 40, "an encoder")
    assert float(score) == score.value
    assert repr(score).endswith("; 50 real, 40 fake; an encoder)")
    assert f"{score.value:.4g} ({score.low:.4g} to {score.high:.4g}" in repr(score)


def test_without_resamples_there_is_no_interval() -> None:
    score = frechet_distance(real=gaussian(50), fake=gaussian(50, seed=1), resamples=0)
    assert math.isnan(score.low)
    assert "no interval" in repr(score)
    with pytest.raises(ValueError, match=r"^resamples is -1 "):
        frechet_distance(real=gaussian(50), fake=gaussian(50, seed=1), resamples=-1)


METRICS = [frechet_distance, lambda **sets: kernel_distance(**sets, subset_size=20), precision_recall, density_coverage]


@pytest.mark.parametrize("metric", METRICS)
def test_the_same_seed_gives_the_same_interval(metric) -> None:
    def found(seed: int):
        torch.manual_seed(seed)
        return metric(real=gaussian(40), fake=1.5 * gaussian(40, seed=1))

    assert found(0) == found(0)
    assert metric is not frechet_distance or found(0) != found(1)


def test_bootstrap_of_a_mean_has_its_standard_error() -> None:
    x = gaussian(400)[:, 0].double()
    means = bootstrap(torch.mean, x, resamples=2000, generator=torch.Generator().manual_seed(0))
    assert means.std().item() == pytest.approx(x.std(correction=0).item() / 20, rel=0.06)
    assert means.mean().item() == pytest.approx(x.mean().item(), abs=0.005)


def test_a_bootstrap_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^resamples is 0 and samples have the lengths \[3\]; expected at"):
        bootstrap(torch.mean, torch.zeros(3), resamples=0)
    with pytest.raises(ValueError, match=r"samples have the lengths \[3, 0\]; expected at least 1 of each"):
        bootstrap(lambda a, b: a.mean() - b.mean(), torch.zeros(3), torch.zeros(0))


def test_a_paired_bootstrap_keeps_pairs_together() -> None:
    x = gaussian(100)[:, :1].double()
    pairs = torch.cat([x, x + 0.1], dim=1)
    differences = bootstrap(lambda rows: (rows[:, 1] - rows[:, 0]).mean(), pairs, resamples=50)
    torch.testing.assert_close(differences, torch.full((50,), 0.1, dtype=torch.float64))


def test_features_are_cut_with_their_name() -> None:
    whole = Features(gaussian(10), "an encoder")
    assert len(whole[:3]) == 3
    assert whole[torch.tensor([1, 5])].extractor == "an encoder"
    assert torch.equal(whole[2:4].vectors, whole.vectors[2:4])


# The door

NAN = gaussian(20).index_fill(0, torch.tensor([7]), torch.nan)
BAD = {
    "another length": (gaussian(20, 5), r"^fake: found length 5 of the vectors; expected 4, that of real\.$"),
    "one sample": (gaussian(1), r"^fake: found 1 sample; expected at least 2\.$"),
    "no sample": (gaussian(0), r"^fake: found 0 samples; expected at least 2\.$"),
    "NaN": (NAN, r"^fake: found NaN or infinity in sample 7\.$"),
    "infinity": (NAN.nan_to_num(-torch.inf), r"^fake: found NaN or infinity in sample 7\.$"),
    "pictures": (pictures(20), r"^fake: found \(20, 3, 16, 16\) torch.float32; expected \(N, D\) floating point\.$"),
    "integers": (gaussian(20).long(), r"^fake: found \(20, 4\) torch.int64; expected \(N, D\) floating point\.$"),
    "no dimension": (gaussian(20, 0), r"^fake: found \(20, 0\) torch.float32; expected \(N, D\) floating point\.$"),
    "another extractor": (
        Features(gaussian(20), "Inception"),
        r"^fake: found extractor Inception of the vectors; expected unnamed features, that of real\.$",
    ),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("metric", METRICS)
def test_features_that_cannot_be_compared_are_refused(metric, bad: str) -> None:
    fake, said = BAD[bad]
    with pytest.raises(ValueError, match=said):
        metric(real=gaussian(20), fake=fake)


def test_metrics_of_one_or_three_sets_have_the_same_door() -> None:
    for metric in (pairwise_diversity, inception_score):
        with pytest.raises(ValueError, match=r"^fake: found 1 sample; expected at least 2\.$"):
            metric(fake=gaussian(1))
    with pytest.raises(ValueError, match=r"^real: found length 5 of the vectors; expected 4, that of train\.$"):
        memorisation(train=gaussian(9), real=gaussian(9, 5), fake=gaussian(9))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_features_on_another_device_are_refused_and_on_one_give_the_same() -> None:
    real, fake = gaussian(50), 1.3 * gaussian(50, seed=1)
    with pytest.raises(ValueError, match=r"^fake: found device cuda:0 of the vectors; expected cpu, that of real\.$"):
        frechet_distance(real=real, fake=fake.cuda())
    for metric in METRICS[:1] + METRICS[2:]:
        on_cpu, on_gpu = (metric(real=real.to(d), fake=fake.to(d), resamples=0) for d in ("cpu", "cuda"))
        assert repr(on_gpu) == repr(on_cpu)
