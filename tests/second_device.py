"""The library on a second device (tools/stand_in.py): the numbers of the CPU, and nothing mixed with it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mmgan_lib import explain
from mmgan_lib.datasets import Batch, Loader
from mmgan_lib.encoders import AudioEncoder, ImageEncoder, TextEncoder, Vocabulary
from mmgan_lib.fusion import FUSIONS
from mmgan_lib.gan import Discriminator, Generator, diff_augment
from mmgan_lib.losses import GAN_LOSSES, R1, R2, GradientPenalty
from mmgan_lib.metrics import frechet_distance, kernel_distance
from mmgan_lib.runtime import seed_everything
from mmgan_lib.training import GANConfig, fit, fit_gan
from tools import stand_in

CPU, OTHER = "cpu", stand_in.NAME


@pytest.fixture(autouse=True, scope="module")
def device() -> None:
    stand_in.register()


@pytest.mark.parametrize(
    "mixed",
    [
        lambda here, there: here + there,
        lambda here, there: torch.cat([here, there]),
        lambda here, there: nn.Linear(4, 2).to(OTHER)(here),
        lambda here, there: nn.functional.mse_loss(there, here),
        lambda here, there: here[there.argmax(dim=1)],
        lambda here, there: torch.zeros(()).add_(there.sum()),
        lambda here, there: torch.where(there > 0, here, there),
        lambda here, there: torch.randn(4, device=OTHER, generator=torch.Generator()),
        lambda here, there: there @ here,
    ],
)
def test_what_lies_on_two_devices_is_refused(mixed: Callable[[Tensor, Tensor], Tensor]) -> None:
    with pytest.raises(RuntimeError, match=r"expected (all tensors on the same device|a generator of standin)"):
        mixed(torch.ones(4, 4), torch.ones(4, 4, device=OTHER))


def test_what_cuda_allows_is_allowed() -> None:
    there = torch.arange(6.0, device=OTHER).reshape(3, 2)
    assert (there * torch.tensor(2.0)).device.type == OTHER  # a number of the CPU
    assert there[torch.tensor([2, 0])].tolist() == [[4.0, 5.0], [0.0, 1.0]]  # indices of the CPU
    assert torch.zeros(3, 2).copy_(there).device.type == CPU
    assert torch.equal(there.cpu(), torch.arange(6.0).reshape(3, 2))


def test_numpy_cannot_look_into_it() -> None:
    with pytest.raises(TypeError, match="can't convert standin device type tensor to numpy"):
        torch.ones(2, device=OTHER).numpy()


def assert_same_on_both(run: Callable[[str], list[Tensor]]) -> None:
    """What `run` gives on the other device lies there, and is what it gives on the CPU."""
    seed_everything(0)
    here = run(CPU)
    seed_everything(0)
    there = run(OTHER)
    assert len(here) == len(there) > 0
    assert all(x.device.type == OTHER for x in there)
    torch.testing.assert_close([x.cpu() for x in there], here)


@pytest.mark.parametrize("name", FUSIONS)
def test_fusions(name: str) -> None:
    def run(device: str) -> list[Tensor]:
        fusion = FUSIONS[name]([8, 8], 8).to(device)
        vectors = [torch.randn(6, 8).to(device).requires_grad_() for _ in range(2)]
        mask = torch.tensor([[True, True], [True, False], [False, True]] * 2).to(device)
        fused = fusion(vectors, mask)
        return [fused, *torch.autograd.grad(fused.square().sum(), vectors, allow_unused=True)]

    assert_same_on_both(run)


def test_encoders() -> None:
    vocabulary = Vocabulary.of(["a red ring", "two blue stars"])

    def run(device: str) -> list[Tensor]:
        text = TextEncoder(vocabulary, 8, width=16).to(device)
        words = [x.to(device) for x in vocabulary.encode(["a blue ring", "stars"])]
        image, audio = ImageEncoder(8, width=4).to(device), AudioEncoder(8, width=4).to(device)
        pictures, sounds = torch.rand(2, 3, 32, 32).to(device), torch.rand(2, 1, 40, 32).to(device)
        return [text(*words), *text.sequence(*words)[:1], image(pictures), audio(sounds)]

    assert_same_on_both(run)


@pytest.mark.parametrize("loss", GAN_LOSSES)
@pytest.mark.parametrize(
    "bound",
    [
        {},
        {"penalties": (GradientPenalty(10.0),)},
        {"penalties": (R1(1.0, every=2), R2(1.0, every=2))},
        {"weight_clip": 0.1},
    ],
    ids=str,
)
def test_gans(loss: str, bound: dict) -> None:
    samples = Batch(image=torch.rand(32, 1, 16, 16) * 2 - 1, label=torch.arange(32) % 3)

    def run(device: str) -> list[Tensor]:
        generator = Generator(size=16, condition_dim=3, width=4).to(device)
        discriminator = Discriminator(size=16, condition_dim=3, width=4).to(device)
        history = fit_gan(
            generator,
            discriminator,
            Loader(samples, 8, device=device),
            GANConfig(steps=3, loss=loss, **bound),
            condition=lambda batch: nn.functional.one_hot(batch.label, 3).float(),
            augment=diff_augment,
        )
        assert history.generator_loss.device.type == CPU
        return [*generator.parameters(), *discriminator.parameters(), *history.ema.parameters()]

    assert_same_on_both(run)


def test_supervised_training() -> None:
    x = torch.randn(40, 5)
    data = Batch(image=x, label=(x[:, 0] > 0).long())

    def run(device: str) -> list[Tensor]:
        network = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2)).to(device)

        def loss(batch: Batch) -> Tensor:
            return nn.functional.cross_entropy(network(batch.image), batch.label)

        fit(network, Loader(data, 8), loss=loss, steps=12, l1=1e-3, l2=1e-3)
        return list(network.parameters())

    assert_same_on_both(run)


def test_distances_and_explanations() -> None:
    def run(device: str) -> list[Tensor]:
        real, fake = torch.randn(60, 4).to(device), torch.randn(60, 4).to(device)
        network = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)).to(device)
        pictures = torch.rand(5, 3, 4, 4).to(device)
        apart = [frechet_distance(real=real, fake=fake), kernel_distance(real=real, fake=fake, subset_size=30)]
        return [
            torch.tensor([x.value for x in apart], device=device),
            explain.saliency(lambda x: network(x)[:, 1], pictures),
            explain.integrated_gradients(lambda x: network(x)[:, 1], pictures, baseline=0.0),
        ]

    assert_same_on_both(run)
