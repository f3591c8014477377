"""fit_gan: the steps it takes, what it leaves behind, and that it can be stopped at any moment."""

import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgan_lib import checkpoint
from mmgan_lib.datasets import Batch, Loader
from mmgan_lib.gan import Discriminator, Generator
from mmgan_lib.losses import GAN_LOSSES, clip_weights, gradient_penalty, r1, r2
from mmgan_lib.runtime import seed_everything
from mmgan_lib.training import DivergedError, GANConfig, fit_gan

BATCH = 16


class Affine(nn.Module):
    """A generator of points on the line: it can learn a mean and a deviation."""

    latent_dim = 1

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, z: Tensor) -> Tensor:
        return self.layer(z)


def toys(seed: int = 0) -> tuple[nn.Module, nn.Module]:
    """A generator and a discriminator of points in the plane, with dropout, so that random numbers matter."""
    seed_everything(seed)
    generator = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 2))
    generator.latent_dim = 3
    discriminator = nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(0.2), nn.Dropout(0.1), nn.Linear(16, 1))
    return generator, discriminator


def points() -> Loader:
    return Loader(torch.randn(200, 2, generator=torch.Generator().manual_seed(3)) + 2, BATCH, seed=1)


def equal(a: nn.Module, b: nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def reference(generator: nn.Module, discriminator: nn.Module, loader: Loader, config: GANConfig) -> Tensor:
    """The same training, written for clearness alone: nothing reused, nothing frozen. Gives the losses (steps, 2)."""
    loss = GAN_LOSSES[config.loss]
    d_adam = torch.optim.Adam(discriminator.parameters(), config.lr_discriminator or config.lr, config.betas)
    g_adam = torch.optim.Adam(generator.parameters(), config.lr, config.betas)
    losses = []
    for step in range(config.steps):
        for turn in range(config.n_critic):
            real = loader.batch(step * config.n_critic + turn)
            fake = generator(torch.randn(len(real), generator.latent_dim))
            d_loss = loss.discriminator(real=discriminator(real), fake=discriminator(fake.detach()))
            if step % config.penalty_every == 0:
                penalty = torch.zeros(())
                if config.gp:
                    penalty = penalty + config.gp * gradient_penalty(discriminator, real=real, fake=fake)
                if config.r1:
                    penalty = penalty + config.r1 * r1(discriminator, real=real)
                if config.r2:
                    penalty = penalty + config.r2 * r2(discriminator, fake=fake)
                d_loss = d_loss + config.penalty_every * penalty
            d_adam.zero_grad()
            d_loss.backward()
            d_adam.step()
            if config.clip:
                clip_weights(discriminator, config.clip)
        fake_logits = discriminator(fake)
        seen = {"real": discriminator(real)} if loss.generator_sees_real else {}
        g_loss = loss.generator(fake=fake_logits, **seen)
        g_adam.zero_grad()
        g_loss.backward()
        g_adam.step()
        losses.append([d_loss.item(), g_loss.item()])
    return torch.tensor(losses)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"loss": "hinge", "r1": 1.0, "penalty_every": 4, "betas": (0.0, 0.99)},
        {"loss": "wasserstein", "gp": 10.0, "n_critic": 3, "betas": (0.0, 0.9)},
        {"loss": "wasserstein", "clip": 0.05, "n_critic": 2, "lr_discriminator": 1e-3},
        {"loss": "relativistic", "r1": 0.5, "r2": 0.5},
    ],
    ids=lambda options: " ".join(options) or "plain",
)
def test_takes_exactly_the_steps_of_the_plain_loop(options: dict) -> None:
    config = GANConfig(steps=30, **options)
    plain, fitted = toys(), toys()
    seed_everything(5)
    losses = reference(*plain, points(), config)
    seed_everything(5)
    history = fit_gan(*fitted, points(), config)
    assert equal(plain[0], fitted[0])
    assert equal(plain[1], fitted[1])
    assert torch.equal(torch.stack([history.discriminator_loss, history.generator_loss], dim=1), losses)


@pytest.mark.parametrize("loss", GAN_LOSSES)
def test_every_loss_finds_the_mean_of_the_data(loss: str) -> None:
    seed_everything(0)
    loader = Loader(3 + 0.5 * torch.randn(2000, 1), 64)
    discriminator = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))
    config = GANConfig(steps=400, loss=loss, lr=2e-2, betas=(0.0, 0.99), r1=1.0, r2=1.0, ema=0.98)
    history = fit_gan(Affine(), discriminator, loader, config)
    made = history.ema(torch.randn(2000, 1))
    assert made.mean().item() == pytest.approx(3, abs=0.4)
    assert 0.15 < made.std().item() < 1.5


def test_trains_networks_for_pictures_under_a_condition() -> None:
    seed_everything(0)
    label = torch.arange(64) % 2
    image = (2.0 * label - 1)[:, None, None, None].expand(-1, 1, 8, 8) * 0.9  # class 0 is dark, class 1 is bright
    loader = Loader(Batch(image=image.contiguous(), label=label), 32)
    generator = Generator(4, condition_dim=2, size=8, width=8)
    discriminator = Discriminator(condition_dim=2, size=8, width=8)
    config = GANConfig(steps=200, lr=4e-3, r1=0.1, ema=0.9)
    history = fit_gan(generator, discriminator, loader, config, condition=lambda b: F.one_hot(b.label, 2).float())
    dark, bright = (history.ema(torch.randn(16, 4), torch.eye(2)[[k] * 16]).mean().item() for k in (0, 1))
    assert dark < -0.5
    assert bright > 0.5


def test_the_discriminator_takes_n_critic_steps_on_fresh_batches() -> None:
    loader, asked = points(), []
    batch = loader.batch
    loader.batch = lambda step: asked.append(step) or batch(step)
    history = fit_gan(*toys(), loader, GANConfig(steps=5, n_critic=3))
    assert asked == list(range(15))
    assert history.images_per_second == pytest.approx(15 * BATCH / history.seconds)


def test_computes_no_gradient_that_it_does_not_need() -> None:
    generator, discriminator = toys()
    count = {"generator": 0, "discriminator": 0}

    def hook(name: str):
        return lambda _: count.update({name: count[name] + 1})

    next(generator.parameters()).register_post_accumulate_grad_hook(hook("generator"))
    next(discriminator.parameters()).register_post_accumulate_grad_hook(hook("discriminator"))
    fit_gan(generator, discriminator, points(), GANConfig(steps=6, n_critic=2))
    assert count == {"generator": 6, "discriminator": 12}


def test_leaves_frozen_weights_frozen_and_the_others_free() -> None:
    generator, discriminator = toys()
    discriminator[0].requires_grad_(False)
    before = copy.deepcopy(discriminator)
    fit_gan(generator, discriminator, points(), GANConfig(steps=5))
    assert equal(before[0], discriminator[0])
    assert not equal(before[3], discriminator[3])
    assert [p.requires_grad for p in discriminator.parameters()] == [False, False, True, True]


def test_does_not_wait_for_the_device_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []

    def spy(name: str) -> None:
        method = getattr(Tensor, name)

        def counted(self: Tensor, *arguments: object) -> object:
            if "mmgan_lib" in sys._getframe(1).f_code.co_filename:  # Adam reads its own step, which is on the CPU
                waits.append(name)
            return method(self, *arguments)

        monkeypatch.setattr(Tensor, name, counted)

    for name in ("item", "tolist", "cpu", "__bool__", "__float__"):
        spy(name)
    fit_gan(*toys(), points(), GANConfig(steps=10))
    at_the_end = len(waits)
    fit_gan(*toys(), points(), GANConfig(steps=20))
    assert 0 < at_the_end < 10
    assert len(waits) == 2 * at_the_end  # as many in the second run as in the first: none a step


def test_ema_is_the_running_average_of_the_weights() -> None:
    config, expected = GANConfig(steps=40, ema=0.8), None
    generator, discriminator = toys()
    loader, states = points(), []
    batch = loader.batch
    loader.batch = lambda step: states.append(copy.deepcopy(generator.state_dict())) or batch(step)
    expected = copy.deepcopy(generator.state_dict())
    history = fit_gan(generator, discriminator, loader, config)
    for step, state in enumerate([*states[1:], generator.state_dict()]):
        decay = min(0.8, (1 + step) / (10 + step))
        expected = {name: decay * expected[name] + (1 - decay) * state[name] for name in state}
    for name, value in history.ema.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)
    assert not history.ema.training
    assert generator.training
    assert not any(p.requires_grad for p in history.ema.parameters())


def test_watching_changes_nothing() -> None:
    watched, alone = toys(), toys()

    def watch(step: int, generator: nn.Module, discriminator: nn.Module) -> Tensor:
        assert not torch.is_grad_enabled()
        return generator(torch.randn(4, 3))

    seed_everything(2)
    history = fit_gan(*watched, points(), GANConfig(steps=12), watch=watch, watch_at=(0, 7, 12))
    seed_everything(2)
    fit_gan(*alone, points(), GANConfig(steps=12))
    assert list(history.watched) == [0, 7, 12]
    assert history.watched[7].shape == (4, 2)
    assert equal(watched[0], alone[0])


# Divergence


class Poisoned:
    """A loader whose batch of one step is not a number."""

    batch_size, seed = BATCH, 0

    def __init__(self, step: int) -> None:
        self.poisoned, self.healthy = step, points()

    def batch(self, step: int) -> Tensor:
        batch = self.healthy.batch(step)
        return batch * float("nan") if step == self.poisoned else batch


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_loss_that_is_not_a_number_names_step_and_loss(tmp_path: Path) -> None:
    config = GANConfig(steps=100, checkpoint_every=10)
    with pytest.raises(DivergedError, match=r"discriminator's loss is nan at step 37; expected"):
        fit_gan(*toys(), Poisoned(37), config, folder=tmp_path)
    generator, _ = toys()
    checkpoint.load(checkpoint.latest(tmp_path), {"generator": generator})  # what was saved is sound
    assert checkpoint.latest(tmp_path).name == "step-00000030"
    assert all(p.isfinite().all() for p in generator.parameters())


def test_a_generator_that_explodes_is_named() -> None:
    generator, discriminator = toys()
    with torch.no_grad():
        generator[2].bias.fill_(1e30)
    config = GANConfig(steps=5, loss="wasserstein", lr=1e-9)
    with pytest.raises(DivergedError, match=r"loss is -?\d\.\d+e\+\d+ at step 0"):
        fit_gan(generator, discriminator, points(), config)


# Stopping and going on


@pytest.mark.parametrize("stop", [1, 7, 20])
def test_resumed_training_ends_in_the_same_bits(tmp_path: Path, stop: int) -> None:
    options = {"loss": "wasserstein", "gp": 10.0, "n_critic": 2, "checkpoint_every": 10}

    def watch(step: int, generator: nn.Module, _: nn.Module) -> Tensor:
        return generator(torch.ones(1, 3))

    straight, broken, resumed = toys(), toys(), toys(seed=9)
    keywords = {"watch": watch, "watch_at": (0, 5, 30)}
    seed_everything(4)
    expected = fit_gan(*straight, points(), GANConfig(steps=30, **options), **keywords)
    seed_everything(4)
    fit_gan(*broken, points(), GANConfig(steps=stop, **options), folder=tmp_path, **keywords)
    seed_everything(77)
    config = GANConfig(steps=30, **options)
    history = fit_gan(*resumed, points(), config, folder=tmp_path, resume=True, **keywords)
    assert all(equal(a, b) for a, b in zip(straight, resumed, strict=True))
    assert equal(expected.ema, history.ema)
    assert torch.equal(expected.discriminator_loss, history.discriminator_loss)
    assert {step for step in expected.watched if step != stop} <= set(history.watched)
    assert torch.equal(expected.watched[30], history.watched[30])


TRAIN = """
import sys
sys.path.insert(0, {tests!r})
from test_training import *
loader = points()
batch = loader.batch
loader.batch = lambda step: time.sleep(0.01) or batch(step)
seed = seed_everything(4)
players = toys()
fit_gan(*players, loader, GANConfig(steps=60, checkpoint_every=5), folder={folder!r}, resume=True)
"""


def test_a_killed_run_resumes_to_the_same_bits(tmp_path: Path) -> None:
    folder, straight = tmp_path / "run", toys()
    fit_gan(*straight, points(), GANConfig(steps=60, checkpoint_every=5))
    program = TRAIN.format(tests=str(Path(__file__).parent), folder=str(folder))
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while checkpoint.latest(folder) is None:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert checkpoint.latest(folder).name < "step-00000060"
    resumed = toys(seed=9)
    fit_gan(*resumed, points(), GANConfig(steps=60, checkpoint_every=5), folder=folder, resume=True)
    assert all(equal(a, b) for a, b in zip(straight, resumed, strict=True))


def test_a_folder_with_another_run_is_refused(tmp_path: Path) -> None:
    fit_gan(*toys(), points(), GANConfig(steps=3), folder=tmp_path)
    with pytest.raises(ValueError, match=r"holds step-00000003; pass resume=True"):
        fit_gan(*toys(), points(), GANConfig(steps=3), folder=tmp_path)
    other = toys(seed=1)
    before = copy.deepcopy(other[0])
    with pytest.raises(ValueError, match=r"lr is 0.1, but the run in .* was begun with 0.0002"):
        fit_gan(*other, points(), GANConfig(steps=3, lr=0.1), folder=tmp_path, resume=True)
    assert equal(before, other[0])


def test_a_finished_run_is_not_trained_further(tmp_path: Path) -> None:
    first, again = toys(), toys(seed=1)
    history = fit_gan(*first, points(), GANConfig(steps=8), folder=tmp_path)
    resumed = fit_gan(*again, points(), GANConfig(steps=8), folder=tmp_path, resume=True)
    assert equal(first[0], again[0])
    assert torch.equal(history.generator_loss, resumed.generator_loss)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "vanilla"}, r"loss is 'vanilla'; expected one of minimax, non_saturating"),
        ({"steps": 0}, r"steps is 0; expected at least 1"),
        ({"n_critic": 0}, r"n_critic is 0"),
        ({"penalty_every": -1}, r"penalty_every is -1"),
    ],
)
def test_a_bad_configuration_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GANConfig(**{"steps": 10} | options)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: its number formats and layout")
@pytest.mark.parametrize("options", [{"r1": 1.0, "loss": "relativistic", "r2": 1.0}, {"gp": 10.0, "n_critic": 2}])
def test_on_a_gpu_the_losses_stay_near_those_of_the_cpu(options: dict) -> None:
    pictures = torch.rand(256, 3, 16, 16) * 2 - 1
    losses = {}
    for device in ("cpu", "cuda"):
        seed_everything(0)
        players = Generator(size=16, channels=3, width=16).to(device), Discriminator(size=16, channels=3).to(device)
        loader = Loader(pictures, 64, device=device)
        losses[device] = fit_gan(*players, loader, GANConfig(steps=20, **options)).discriminator_loss
    torch.testing.assert_close(losses["cuda"], losses["cpu"], rtol=0.2, atol=0.1)
