"""fit and fit_gan: the steps they take, what they leave behind, and that they can be stopped at any moment."""

import copy
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgan_lib import checkpoint, training
from mmgan_lib.datasets import Batch, Loader
from mmgan_lib.fusion import Mean
from mmgan_lib.gan import Discriminator, Fused, Generator, MatchingDiscriminator
from mmgan_lib.losses import (
    GAN_LOSSES,
    L1,
    MATCHING_AWARE,
    R1,
    R2,
    GANLoss,
    GradientPenalty,
    clip_weights,
    contrastive,
    gradient_penalty,
    r1,
    r2,
)
from mmgan_lib.runtime import seed_everything
from mmgan_lib.training import (
    DivergedError,
    GANConfig,
    History,
    align,
    cosine,
    discriminator_loss,
    fit,
    fit_gan,
    generator_loss,
)
from mmgan_lib.training.acceleration import Fast

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


def stretched(x: Tensor) -> Tensor:
    """An augmentation of points in the plane."""
    return x * (1 + 0.3 * torch.randn(len(x), 1))


def reference(
    generator: nn.Module,
    discriminator: nn.Module,
    loader: Loader,
    config: GANConfig,
    augment: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor:
    """The same training, written for clearness alone: nothing reused, nothing frozen. Gives the losses (steps, 2)."""
    loss = GAN_LOSSES[config.loss]
    d_lr = config.lr if config.lr_discriminator is None else config.lr_discriminator
    d_adam = torch.optim.Adam(discriminator.parameters(), d_lr, config.betas, fused=True)
    g_adam = torch.optim.Adam(generator.parameters(), config.lr, config.betas, fused=True)
    losses = []
    for step in range(config.steps):
        for turn in range(config.n_critic):
            real = loader.batch(step * config.n_critic + turn)
            z = torch.randn(len(real), generator.latent_dim)
            samples = {"real": augment(real), "fake": augment(generator(z))}
            d_loss = discriminator_loss(discriminator, loss, **samples, penalties=config.penalties, step=step)
            d_adam.zero_grad()
            d_loss.backward()
            d_adam.step()
            if config.weight_clip:
                clip_weights(discriminator, config.weight_clip)
        g_loss = generator_loss(discriminator, loss, **samples)
        g_adam.zero_grad()
        g_loss.backward()
        g_adam.step()
        losses.append([d_loss.item(), g_loss.item()])
    return torch.tensor(losses)


@pytest.mark.parametrize("loss", GAN_LOSSES)
def test_the_loss_of_a_step_is_the_game_on_the_logits_and_the_penalties_that_are_due(loss: str) -> None:
    """Against the formulas, each of which makes passes of its own."""
    _, discriminator = toys()
    discriminator.eval()
    real, fake, game = torch.randn(8, 2), torch.randn(8, 2, requires_grad=True), GAN_LOSSES[loss]
    penalties = (R1(0.5, every=3), R2(lambda step: 0.1 * step), GradientPenalty(10.0, every=2))
    expected = game.discriminator(real_logits=discriminator(real), fake_logits=discriminator(fake))
    for step in (1, 2, 3):
        total = expected + 0.1 * step * r2(discriminator, fake=fake)
        if step == 2:
            seed_everything(1)
            total = total + 2 * 10 * gradient_penalty(discriminator, real=real, fake=fake)
        if step == 3:
            total = total + 3 * 0.5 * r1(discriminator, real=real)
        seed_everything(1)
        found = discriminator_loss(discriminator, game, real=real, fake=fake, penalties=penalties, step=step)
        torch.testing.assert_close(found, total)
        ours, theirs = (
            torch.autograd.grad(x, [*discriminator[0].parameters()], retain_graph=True) for x in (found, total)
        )
        torch.testing.assert_close(ours, theirs)
    assert real.grad is None
    assert found.grad_fn is not None
    g_loss = generator_loss(discriminator, game, real=real, fake=fake)
    assert g_loss == game.generator(real_logits=discriminator(real), fake_logits=discriminator(fake))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"loss": "hinge", "penalties": (R1(1.0, every=4),), "betas": (0.0, 0.99)},
        {"loss": "wasserstein", "penalties": (GradientPenalty(10.0),), "n_critic": 3, "betas": (0.0, 0.9)},
        {"loss": "wasserstein", "weight_clip": 0.05, "n_critic": 2, "lr_discriminator": 1e-3},
        {"loss": "relativistic", "penalties": (R1(0.5), R2(0.5))},
        {"lr_discriminator": 0.0},
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


@pytest.mark.parametrize("loss", ["non_saturating", "relativistic"])
def test_augments_all_that_the_discriminator_sees_and_the_generator_learns_through_it(loss: str) -> None:
    config = GANConfig(steps=20, loss=loss, penalties=(GradientPenalty(1.0), R1(1.0)), n_critic=2)
    plain, fitted = toys(), toys()
    seed_everything(5)
    losses = reference(*plain, points(), config, stretched)
    seed_everything(5)
    history = fit_gan(*fitted, points(), config, augment=stretched)
    assert equal(plain[0], fitted[0])
    assert equal(plain[1], fitted[1])
    assert torch.equal(torch.stack([history.discriminator_loss, history.generator_loss], dim=1), losses)


def test_an_augmentation_that_hides_all_leaves_the_generator_nothing_to_learn() -> None:
    (generator, discriminator), (before, _) = toys(), toys()
    fit_gan(generator, discriminator, points(), GANConfig(steps=3), augment=lambda x: 0 * x)
    assert equal(generator, before)


@pytest.mark.parametrize("loss", GAN_LOSSES)
def test_every_loss_finds_the_mean_of_the_data(loss: str) -> None:
    seed_everything(0)
    loader = Loader(3 + 0.5 * torch.randn(2000, 1), 64)
    discriminator = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))
    config = GANConfig(steps=400, loss=loss, lr=2e-2, betas=(0.0, 0.99), penalties=(R1(1.0), R2(1.0)), ema=0.98)
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
    config = GANConfig(steps=200, lr=4e-3, penalties=(R1(0.1),), ema=0.9)
    history = fit_gan(generator, discriminator, loader, config, condition=lambda b: F.one_hot(b.label, 2).float())
    dark, bright = (history.ema(torch.randn(16, 4), torch.eye(2)[[k] * 16]).mean().item() for k in (0, 1))
    assert dark < -0.5
    assert bright > 0.5


def test_what_makes_the_condition_is_not_trained() -> None:
    embed = nn.Linear(2, 3)
    loader = Loader(Batch(image=torch.zeros(64, 1, 8, 8), label=torch.arange(64) % 2), 32)
    players = Generator(4, condition_dim=3, size=8, width=4), Discriminator(condition_dim=3, size=8, width=4)
    fit_gan(*players, loader, GANConfig(steps=2), condition=lambda b: embed(F.one_hot(b.label, 2).float()))
    assert embed.weight.grad is None


def test_players_that_fuse_caption_and_sound_train_by_the_matching_aware_loss() -> None:
    fields = {"caption": torch.randn(32, 4), "sound": torch.randn(32, 4), "there": torch.rand(32, 2) < 0.7}
    loader = Loader(Batch(image=torch.rand(32, 3, 8, 8) * 2 - 1, **fields), 8)
    players = (
        Generator(8, condition_dim=4, channels=3, size=8, width=4),
        MatchingDiscriminator(condition_dim=4, channels=3, size=8, width=4),
    )
    players = [Fused(Mean([4, 4], 4), player) for player in players]
    before = copy.deepcopy(players)
    config = GANConfig(steps=3, loss=MATCHING_AWARE, penalties=(R1(0.5, every=2),))
    fit_gan(*players, loader, config, condition=lambda b: (b.caption, b.sound, b.there))
    for player, was in zip(players, before, strict=True):
        assert not equal(player.fusion, was.fusion)
        assert not equal(player.player, was.player)


class Colourist(nn.Module):
    """A generator without noise, or a judge: it takes several conditions."""

    def __init__(self, out_dim: int, inputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, out_dim)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.layer(torch.cat([x.float() for x in inputs], dim=1))


@pytest.mark.parametrize("noise", [0, 4])
def test_several_conditions_follow_the_noise_and_the_sample(noise: int) -> None:
    """A sketch, a caption and a mask that tells which of them counts; with noise and without."""
    sketch, caption, mask = torch.randn(64, 2), torch.randn(64, 3), torch.rand(64, 2) < 0.5
    loader = Loader(Batch(image=torch.randn(64, 2), sketch=sketch, caption=caption, mask=mask), 16)
    generator, discriminator, seen = Colourist(2, noise + 7), Colourist(1, 9), []
    if noise:
        generator.latent_dim = noise
    for player in (generator, discriminator):
        player.register_forward_pre_hook(lambda _, inputs: seen.append([x.shape[1] for x in inputs]))
    config = GANConfig(steps=2, penalties=(R1(1.0),))
    fit_gan(generator, discriminator, loader, config, condition=lambda b: (b.sketch, b.caption, b.mask))
    assert seen[:3] == [[noise, 2, 3, 2] if noise else [2, 3, 2], [2, 2, 3, 2], [2, 2, 3, 2]]


def test_a_generator_learns_a_distance_to_the_picture_of_the_same_sketch() -> None:
    seed_everything(0)
    sketch = torch.randn(256, 2)
    loader = Loader(Batch(image=2 * sketch, sketch=sketch), 32)
    generator, discriminator = Colourist(2, 2), Colourist(1, 4)
    config = GANConfig(steps=300, lr=2e-2, generator_penalties=(L1(50.0),), ema=0.9)
    options = {
        "condition": lambda b: b.sketch,
        "augment": lambda x: x + torch.randn_like(x),
    }
    history = fit_gan(generator, discriminator, loader, config, **options)
    torch.testing.assert_close(history.ema(sketch), 2 * sketch, rtol=0, atol=0.2)


def test_a_loss_may_be_a_value_with_parameters_of_its_own() -> None:
    def towards(target: float, *, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return (fake_logits - target).square().mean()

    named = GAN_LOSSES["least_squares"]
    own = GANLoss(named.discriminator, lambda **logits: 0.5 * towards(1.0, **logits))
    by_value, by_name = (fit_gan(*toys(), points(), GANConfig(steps=5, loss=loss)) for loss in (own, "least_squares"))
    torch.testing.assert_close(by_value.generator_loss, by_name.generator_loss)
    other = GANLoss(named.discriminator, partial(towards, 5.0))
    assert fit_gan(*toys(), points(), GANConfig(steps=5, loss=other)).generator_loss[0] > by_name.generator_loss[0]


def test_optimisers_and_schedules_is_passed_as_values() -> None:
    """The rates of both players go down a cosine; the average and the penalty by functions of the step."""
    rates, asked, steps = [], [], 8

    def rmsprop(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        optimizer = torch.optim.RMSprop(parameters, lr=1e-2)
        optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
        return optimizer

    config = GANConfig(
        steps=steps,
        optimizer=rmsprop,
        optimizer_discriminator=partial(torch.optim.SGD, lr=1e-3),
        schedule=partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=steps),
        penalties=(R1(lambda step: asked.append(step) or 1.0, every=2),),
        ema=cosine(0.0, 0.9, steps),
    )
    fit_gan(*toys(), points(), config)
    assert rates == pytest.approx([cosine(1e-2, 0.0, steps)(step) for step in range(steps)])
    assert asked == [0, 2, 4, 6]
    assert config.ema_at(0) == 0.0
    assert config.ema_at(10**6) == pytest.approx(0.9)


def test_a_scheduled_run_resumes_to_the_same_bits(tmp_path: Path) -> None:
    options = {
        "optimizer": torch.optim.AdamW,
        "schedule": partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=1e-2, total_steps=12),
        "penalties": (R1(cosine(1.0, 0.1, 12), every=2),),
    }
    straight, broken, resumed = toys(), toys(), toys(seed=9)
    seed_everything(4)
    fit_gan(*straight, points(), GANConfig(steps=12, **options))
    seed_everything(4)
    fit_gan(*broken, points(), GANConfig(steps=5, **options), folder=tmp_path)
    fit_gan(*resumed, points(), GANConfig(steps=12, **options), folder=tmp_path, resume=True)
    assert all(equal(a, b) for a, b in zip(straight, resumed, strict=True))
    with pytest.raises(ValueError, match=r"^optimizer is None, but the run in .* was begun with AdamW\.$"):
        fit_gan(*toys(), points(), GANConfig(steps=12, **options | {"optimizer": None}), folder=tmp_path, resume=True)


def test_trains_networks_for_clips() -> None:
    generator = nn.Sequential(nn.Linear(4, 16), nn.Unflatten(1, (1, 4, 2, 2)), nn.Conv3d(1, 3, 3, padding=1))
    generator.latent_dim = 4
    discriminator = nn.Sequential(nn.Conv3d(3, 2, 3, padding=1), nn.Flatten(), nn.Linear(32, 1), nn.Flatten(0))
    history = fit_gan(generator, discriminator, Loader(torch.zeros(16, 3, 4, 2, 2), 8), GANConfig(steps=2))
    assert history.ema(torch.randn(5, 4)).shape == (5, 3, 4, 2, 2)


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


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls in which the library made the CPU wait for the device."""
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
    return waits


def test_does_not_wait_for_the_device_at_every_step(waits: list[str]) -> None:
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


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
@pytest.mark.parametrize("normalise", [nn.utils.spectral_norm, nn.utils.weight_norm])
def test_a_generator_with_a_computed_weight_trains_after_it_has_run(
    normalise: Callable[[nn.Module], nn.Module],
) -> None:
    fresh, ran = toys(), toys()
    for generator, _ in (fresh, ran):
        seed_everything(1)
        normalise(generator[0])
    ran[0].eval()(torch.zeros(4, 3))  # of spectral_norm in train mode the vectors would move
    averages = []
    for players in (fresh, ran):
        seed_everything(5)
        averages.append(fit_gan(*players, points(), GANConfig(steps=20)).ema)
    assert equal(*averages)
    assert torch.equal(*(average(torch.ones(4, 3)) for average in averages))
    assert not equal(averages[1], ran[0])


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


def test_what_was_watched_stays_as_it_was() -> None:
    def watch(step: int, generator: nn.Module, discriminator: nn.Module) -> dict:
        return {"weight": generator[0].weight, "more": [discriminator[0].bias, step]}

    watched = fit_gan(*toys(), points(), GANConfig(steps=6), watch=watch, watch_at=(0, 3, 6)).watched
    assert [seen["more"][1] for seen in watched.values()] == [0, 3, 6]
    for earlier, later in pairwise(watched.values()):
        assert not torch.equal(earlier["weight"], later["weight"])
        assert not torch.equal(earlier["more"][0], later["more"][0])


class Seen(NamedTuple):
    weight: Tensor
    step: int


def test_a_named_tuple_that_was_watched_keeps_its_names() -> None:
    options = {"watch": lambda step, ema, _: Seen(ema[0].weight, step), "watch_at": (0, 2)}
    watched = fit_gan(*toys(), points(), GANConfig(steps=2), **options).watched
    assert type(watched[0]) is Seen
    assert (watched[0].step, watched[2].step) == (0, 2)
    assert not torch.equal(watched[0].weight, watched[2].weight)


@pytest.mark.parametrize("seen", [Seen(torch.zeros(1), 0), Path("x"), {"deep": [nn.Linear(1, 1)]}], ids=str)
def test_what_no_checkpoint_can_hold_is_refused_when_it_is_first_watched(tmp_path: Path, seen: object) -> None:
    options = {"watch": lambda *_: seen, "watch_at": (3,)}
    assert 3 in fit_gan(*toys(), points(), GANConfig(steps=6), **options).watched
    with pytest.raises(ValueError, match=r"^What watch returned at step 3 is or holds something .*; expected tensors,"):
        fit_gan(*toys(), points(), GANConfig(steps=6), folder=tmp_path, **options)
    assert checkpoint.latest(tmp_path) is None


def test_both_networks_are_put_in_train_mode() -> None:
    (generator, discriminator), expected = toys(), toys()
    generator.eval(), discriminator.eval()
    for players in ((generator, discriminator), expected):
        seed_everything(5)
        fit_gan(*players, points(), GANConfig(steps=5))
    assert all(network.training for network in (generator, discriminator))
    assert equal(discriminator, expected[1])  # with dropout, which eval mode leaves out


def test_players_and_data_that_cannot_train_are_refused() -> None:
    generator, discriminator = toys()
    ema = fit_gan(generator, discriminator, points(), GANConfig(steps=1)).ema
    for players, name in (((ema, discriminator), "generator"), ((generator, nn.Identity()), "discriminator")):
        with pytest.raises(ValueError, match=rf"^{name}: found no parameter that needs a gradient; expected"):
            fit_gan(*players, points(), GANConfig(steps=1))
    with pytest.raises(
        ValueError,
        match=r"^generator: found no latent_dim; expected .*, or a condition",
    ):
        fit_gan(nn.Linear(3, 2), discriminator, points(), GANConfig(steps=1))
    for data, found in (
        (torch.zeros(20, 2, dtype=torch.uint8), r"samples of torch\.uint8"),
        (torch.zeros(20, 2, dtype=torch.float64), r"samples of torch\.float64"),
        (Batch(label=torch.arange(20)), "a batch without image"),
    ):
        with pytest.raises(ValueError, match=rf"^loader: found {found}; expected samples of torch\.float32"):
            fit_gan(generator, discriminator, Loader(data, BATCH), GANConfig(steps=1))
    for step in (-1, 6):
        with pytest.raises(ValueError, match=rf"^watch_at holds {step}; expected steps from 0 to 5\.$"):
            fit_gan(generator, discriminator, points(), GANConfig(steps=5), watch=lambda *_: 0, watch_at=(0, step))


def test_a_run_that_is_stopped_leaves_the_discriminator_able_to_learn() -> None:
    generator, discriminator = toys()

    def stop(gradient: Tensor) -> None:
        raise KeyboardInterrupt

    handle = next(generator.parameters()).register_hook(stop)  # in the generator's step
    with pytest.raises(KeyboardInterrupt):
        fit_gan(generator, discriminator, points(), GANConfig(steps=3))
    handle.remove()
    before = copy.deepcopy(discriminator)
    fit_gan(generator, discriminator, points(), GANConfig(steps=3))
    assert not equal(before, discriminator)


PENALISED = [{"penalties": (R1(1.0, every=2),)}, {"penalties": (GradientPenalty(1.0),), "n_critic": 2}]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of the tracer
@pytest.mark.parametrize("options", PENALISED, ids=str)
def test_compiled_networks_take_the_same_steps(monkeypatch: pytest.MonkeyPatch, options: dict) -> None:
    """As on a GPU, but for the code that is generated: what is traced, and where penalties go round it."""
    plain, fast = painters(), painters()
    seed_everything(5)
    expected = fit_gan(*plain, sketches(), GANConfig(steps=4, **options))
    compiles = partial(torch.compile, backend="aot_eager")
    nothing = torch.autocast("cpu", enabled=False)
    monkeypatch.setattr(training.gan, "accelerated", lambda *both, steps: [Fast(x, compiles(x), nothing) for x in both])
    seed_everything(5)
    found = fit_gan(*fast, sketches(), GANConfig(steps=4, **options))
    torch.testing.assert_close(found.discriminator_loss, expected.discriminator_loss, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.generator_loss, expected.generator_loss, rtol=1e-4, atol=1e-5)


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
    options = {"loss": "wasserstein", "penalties": (GradientPenalty(10.0),), "n_critic": 2, "checkpoint_every": 10}

    def watch(step: int, generator: nn.Module, _: nn.Module) -> Tensor:
        return generator(torch.ones(1, 3))

    straight, broken, resumed = toys(), toys(), toys(seed=9)
    looks = (0, 5, 30)
    seed_everything(4)
    expected = fit_gan(*straight, points(), GANConfig(steps=30, **options), watch=watch, watch_at=looks)
    seed_everything(4)
    keywords = {"watch": watch, "folder": tmp_path}
    early = [step for step in looks if step <= stop]
    fit_gan(*broken, points(), GANConfig(steps=stop, **options), watch_at=early, **keywords)
    seed_everything(77)
    config = GANConfig(steps=30, **options)
    history = fit_gan(*resumed, points(), config, resume=True, watch_at=looks, **keywords)
    assert all(equal(a, b) for a, b in zip(straight, resumed, strict=True))
    assert equal(expected.ema, history.ema)
    assert torch.equal(expected.discriminator_loss, history.discriminator_loss)
    assert {step for step in expected.watched if step != stop} <= set(history.watched)
    assert torch.equal(expected.watched[30], history.watched[30])


def painters(seed: int = 0) -> tuple[nn.Module, nn.Module]:
    """A generator and a discriminator of pictures, whose convolutions fit_gan lays out in its own way."""
    seed_everything(seed)
    return Generator(8, channels=3, size=8, width=4), Discriminator(channels=3, size=8, width=4)


def sketches() -> Loader:
    return Loader(torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(3)) * 2 - 1, BATCH, seed=1)


@pytest.mark.parametrize("options", [{}, *PENALISED], ids=str)
def test_pictures_take_the_steps_of_the_plain_loop_but_for_rounding(options: dict) -> None:
    config = GANConfig(steps=20, **options)
    plain, fitted = ([network.double() for network in painters()] for _ in range(2))
    images = Loader(sketches().data.double(), BATCH, seed=1)
    torch.set_default_dtype(torch.float64)  # of the noise
    try:
        seed_everything(5)
        reference(*plain, images, config)
        seed_everything(5)
        fit_gan(*fitted, images, config)
    finally:
        torch.set_default_dtype(torch.float32)
    for ours, theirs in zip(plain, fitted, strict=True):
        torch.testing.assert_close(theirs.state_dict(), ours.state_dict(), rtol=0, atol=1e-9)


def test_networks_for_pictures_come_back_laid_out_as_they_went_and_resume_to_the_same_bits(tmp_path: Path) -> None:
    config = GANConfig(steps=9, penalties=(R1(1.0),))
    straight, broken, resumed = painters(), painters(), painters(seed=9)
    seed_everything(5)
    expected = fit_gan(*straight, sketches(), config)
    seed_everything(5)
    fit_gan(*broken, sketches(), GANConfig(steps=4, penalties=(R1(1.0),)), folder=tmp_path)
    history = fit_gan(*resumed, sketches(), config, folder=tmp_path, resume=True)
    assert all(equal(a, b) for a, b in zip((*straight, expected.ema), (*resumed, history.ema), strict=True))
    weights = [weight for network in (*resumed, history.ema) for weight in network.parameters()]
    assert all(weight.is_contiguous() for weight in weights)


def test_a_run_goes_on_where_weights_are_laid_out_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As a run that was compiled on a GPU, and goes on without: Adam's moments follow the weights."""
    config, straight, broken, resumed = GANConfig(steps=9, lr=1e-2), painters(), painters(), painters(seed=9)
    seed_everything(5)
    expected = fit_gan(*straight, sketches(), config)
    seed_everything(5)
    with monkeypatch.context() as patch:
        patch.setattr(training.acceleration, "lay_out", lambda *networks, memory_format: None)
        fit_gan(*broken, sketches(), GANConfig(steps=4, lr=1e-2), folder=tmp_path)
    history = fit_gan(*resumed, sketches(), config, folder=tmp_path, resume=True)
    torch.testing.assert_close(history.discriminator_loss, expected.discriminator_loss, rtol=1e-4, atol=1e-5)


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


def test_fewer_steps_than_have_been_taken_are_refused(tmp_path: Path) -> None:
    fit_gan(*toys(), points(), GANConfig(steps=8), folder=tmp_path)
    with pytest.raises(ValueError, match=r"^steps is 5, but the run in .* has taken 8 already\.$"):
        fit_gan(*toys(), points(), GANConfig(steps=5), folder=tmp_path, resume=True)


def test_a_finished_run_is_not_trained_further(tmp_path: Path) -> None:
    first, again = toys(), toys(seed=1)
    history = fit_gan(*first, points(), GANConfig(steps=8), folder=tmp_path)
    resumed = fit_gan(*again, points(), GANConfig(steps=8), folder=tmp_path, resume=True)
    assert equal(first[0], again[0])
    assert torch.equal(history.generator_loss, resumed.generator_loss)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "vanilla"}, r"loss is 'vanilla'; expected a GANLoss, or one of minimax, non_saturating"),
        ({"steps": 0}, r"steps is 0; expected at least 1"),
        ({"n_critic": 0}, r"n_critic is 0"),
        ({"ema": 1.5}, r"ema is 1.5; expected a decay from 0 to below 1"),
        ({"weight_clip": 0.0}, r"weight_clip is 0.0; expected a limit above 0, or None"),
    ],
)
def test_a_bad_configuration_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GANConfig(**{"steps": 10} | options)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"weight": float("nan")}, r"^weight is nan; expected 0 or more"), ({"weight": 1.0, "every": 0}, r"^every is 0")],
)
@pytest.mark.parametrize("kind", [R1, R2, GradientPenalty])
def test_a_bad_penalty_is_refused(kind: type, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**options)


def test_decays_may_be_whole_numbers() -> None:
    whole, fraction = (fit_gan(*toys(), points(), GANConfig(steps=3, betas=betas)) for betas in ((0, 0.9), (0.0, 0.9)))
    assert torch.equal(whole.generator_loss, fraction.generator_loss)


def test_a_run_goes_on_whatever_its_decays_stand_in(tmp_path: Path) -> None:
    fit_gan(*toys(), points(), GANConfig(steps=3, betas=[0, 0.9]), folder=tmp_path)
    history = fit_gan(*toys(), points(), GANConfig(steps=6, betas=(0.0, 0.9)), folder=tmp_path, resume=True)
    assert len(history.generator_loss) == 6


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: its number formats and layout")
@pytest.mark.parametrize(
    "options",
    [*PENALISED, {"penalties": (R1(1.0), R2(1.0)), "loss": "relativistic"}],
)
def test_on_a_gpu_the_losses_stay_near_those_of_the_cpu(options: dict) -> None:
    pictures = torch.rand(256, 3, 16, 16) * 2 - 1
    losses = {}
    for device in ("cpu", "cuda"):
        seed_everything(0)
        players = Generator(size=16, channels=3, width=16).to(device), Discriminator(size=16, channels=3).to(device)
        loader = Loader(pictures, 64, device=device)
        losses[device] = fit_gan(*players, loader, GANConfig(steps=20, **options)).discriminator_loss
    torch.testing.assert_close(losses["cuda"], losses["cpu"], rtol=0.2, atol=0.1)


# Supervised training: points of the plane, and the sign of the product of their coordinates


def examples(n: int = 200, seed: int = 3) -> Tensor:
    """Rows of two coordinates and a class, a tenth of the classes wrong."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, generator=generator)
    wrong = torch.rand(n, generator=generator) < 0.1
    return torch.cat([x, ((x.prod(dim=1) > 0) ^ wrong)[:, None].float()], dim=1)


def learner(seed: int = 0) -> nn.Module:
    """With dropout, so that random numbers matter, and batch normalisation, so that the mode does."""
    seed_everything(seed)
    return nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 1))


def surprise(model: nn.Module):
    return lambda rows: F.binary_cross_entropy_with_logits(model(rows[:, :2]).squeeze(1), rows[:, 2])


def train(model: nn.Module, steps: int = 40, **options: object) -> History:
    return fit(model, Loader(examples(), BATCH, seed=1), loss=surprise(model), steps=steps, lr=1e-2, **options)


def held_back() -> Loader:
    return Loader(examples(70, seed=8), 32, shuffle=False)


@pytest.mark.parametrize("options", [{}, {"l1": 0.01}, {"l2": 0.02}, {"l1": 0.01, "l2": 0.02}], ids=str)
def test_fit_takes_exactly_the_steps_of_the_plain_loop(options: dict) -> None:
    plain, fitted, losses = learner(), learner(), []
    loader, adam = Loader(examples(), BATCH, seed=1), torch.optim.Adam(plain.parameters(), lr=1e-2, fused=True)
    seed_everything(5)
    for step in range(40):
        loss = surprise(plain)(loader.batch(step))
        losses.append(loss.item())
        for layer in (plain[0], plain[4]):  # the weights: no bias, no scale or shift of the normalisation
            loss = loss + options.get("l1", 0) * layer.weight.abs().sum()
            loss = loss + options.get("l2", 0) * layer.weight.square().sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    seed_everything(5)
    history = train(fitted, **options)
    assert history.loss.tolist() == losses  # without the penalties
    assert history.validation_loss == {}
    if options.get("l1") and options.get("l2"):  # a sum of two penalties is rounded otherwise
        for name, value in plain.state_dict().items():
            torch.testing.assert_close(value, fitted.state_dict()[name])
    else:
        assert equal(plain, fitted)


def test_fit_takes_the_steps_of_a_loop_with_another_optimiser_and_a_schedule() -> None:
    plain, fitted = learner(), learner()
    adam, one_cycle = torch.optim.AdamW(plain.parameters()), partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=1e-2)
    schedule, loader = one_cycle(adam, total_steps=40), Loader(examples(), BATCH, seed=1)
    seed_everything(5)
    for step in range(40):
        adam.zero_grad()
        surprise(plain)(loader.batch(step)).backward()
        adam.step()
        schedule.step()
    seed_everything(5)
    train(fitted, optimizer=torch.optim.AdamW, schedule=partial(one_cycle, total_steps=40))
    assert equal(plain, fitted)


def test_align_takes_the_steps_of_the_plain_contrastive_loop_and_brings_partners_together() -> None:
    features, steps = torch.randn(200, 6), 60
    noisy = features @ torch.randn(6, 5) + 0.1 * torch.randn(200, 5)
    encoders = []
    for _ in range(2):
        seed_everything(0)
        encoders.append(nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 8)))
        encoders[-1].out_dim = 8
    seed_everything(1)
    project = nn.Linear(6, 8)
    adam = torch.optim.AdamW([*encoders[0].parameters(), *project.parameters()])
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, 3e-3, total_steps=steps)
    loader = Loader(torch.arange(200), 50, seed=4)
    for step in range(steps):
        rows = loader.batch(step)
        adam.zero_grad()
        contrastive(project(features[rows]), encoders[0](noisy[rows])).backward()
        adam.step()
        schedule.step()
    seed_everything(1)
    history = align(encoders[1], [noisy], features, steps=steps, batch_size=50, seed=4)
    assert equal(*encoders)
    assert history.loss[-5:].mean() < 0.5 * history.loss[0]


def test_an_epoch_longer_than_the_run_is_validated_at_its_end() -> None:
    assert list(train(learner(), steps=5, validation=held_back()).validation_loss) == [5]


def test_l2_is_what_adam_calls_weight_decay() -> None:
    """Twice as much, on the weights alone: Adam adds decay · w to the gradient, and that of l2 · w² is 2 · l2 · w."""
    ours, theirs = learner(), learner()
    for model in (ours, theirs):
        model[1] = nn.Identity()  # before a normalisation a bias has no gradient but rounding, which Adam blows up
    loader = Loader(examples(), BATCH, seed=1)
    weights, biases = ([getattr(theirs[i], name) for i in (0, 4)] for name in ("weight", "bias"))
    adam = torch.optim.Adam([{"params": weights, "weight_decay": 0.1}, {"params": biases}], lr=1e-2, fused=True)
    seed_everything(5)
    for step in range(40):
        adam.zero_grad()
        surprise(theirs)(loader.batch(step)).backward()
        adam.step()
    seed_everything(5)
    train(ours, l2=0.05)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [2.0, -0.3, 0.1]),
        ({"l1": 0.5}, [1.5, 0.0, 0.0]),  # soft thresholding
        ({"l2": 0.5}, [1.0, -0.15, 0.05]),  # shrunk by 1 + 2 · l2
    ],
)
def test_penalties_find_the_minimum_known_from_theory(options: dict, expected: list[float]) -> None:
    """Of (w - a)² / 2 + l1 |w| + l2 w² for each weight."""
    model, a = nn.Linear(1, 3, bias=False), torch.tensor([[2.0], [-0.3], [0.1]])
    loader = Loader(torch.zeros(4, 1), 4)
    fit(model, loader, loss=lambda _: 0.5 * (model.weight - a).square().sum(), steps=900, lr=1e-2, **options)
    assert model.weight.flatten().tolist() == pytest.approx(expected, abs=0.02)


def test_validation_is_the_mean_loss_in_eval_mode() -> None:
    model, seen = learner(), {}
    history = train(model, validation=held_back(), validate_every=40)
    model.eval()
    with torch.no_grad():
        seen[40] = surprise(model)(examples(70, seed=8)).item()  # all at once: batches count by their size
    assert history.validation_loss == pytest.approx(seen)
    epochs = train(learner(), steps=30, validation=held_back())
    assert list(epochs.validation_loss) == [12, 24]  # 200 examples are 12 whole batches of 16


def test_validation_changes_nothing() -> None:
    watched, alone = learner(), learner()
    seed_everything(2)
    history = train(watched, validation=held_back(), validate_every=7)
    seed_everything(2)
    assert torch.equal(train(alone).loss, history.loss)
    assert equal(watched, alone)
    assert watched.training


def given(losses: list[float]):
    """A model whose weight counts the steps, and a loss that on validation data is the next of these."""
    model, upcoming = nn.Linear(1, 1, bias=False), iter(losses)
    nn.init.zeros_(model.weight)

    def loss(batch: Tensor) -> Tensor:
        return -model.weight.sum() if model.training else torch.tensor(next(upcoming))

    return model, loss


@pytest.mark.parametrize(
    ("losses", "patience", "last", "best"),
    [
        ([5, 4, 3, 4, 5, 1], 2, 5, 3),  # stopped before the better one
        ([5, 4, 3, 4, 2, 6, 7, 1], 2, 7, 5),  # patience counts from the newest lowest
        ([5, 5, 5, 5], 2, 3, 1),  # the same is no better
        ([5, 4, 3, 2, 1, 0], 1, 6, 6),  # runs to the end
        ([1, 2, 3, 4, 5, 6], 10, 6, 1),  # to the end, and back to the best
    ],
)
def test_early_stopping_restores_the_best_weights(losses: list, patience: int, last: int, best: int) -> None:
    model, loss = given([float(value) for value in losses])
    loader, lr = Loader(torch.zeros(4, 1), 4), 0.5
    options = {"validation": [torch.zeros(1, 1)], "validate_every": 1, "patience": patience}
    history = fit(model, loader, loss=loss, steps=6 if last == 6 else 100, lr=lr, **options)
    assert len(history.loss) == last
    assert list(history.validation_loss) == list(range(1, last + 1))
    assert history.best_step == best
    assert model.weight.item() == pytest.approx(lr * best, rel=1e-4)  # Adam's step down a constant slope is lr


def test_without_patience_the_last_weights_stay() -> None:
    model, loss = given([1.0, 2.0, 3.0])
    options = {"validation": [torch.zeros(1, 1)], "validate_every": 1}
    history = fit(model, Loader(torch.zeros(4, 1), 4), loss=loss, steps=3, lr=0.5, **options)
    assert history.best_step == 1
    assert model.weight.item() == pytest.approx(1.5, rel=1e-4)
    with pytest.raises(ValueError, match=r"^history holds no validation loss; expected"):
        History(torch.zeros(3), {}, 1.0).best_step  # noqa: B018


@pytest.mark.parametrize("stop", [1, 13, 20, 30])
@pytest.mark.parametrize("patience", [None, 3])
def test_resumed_fits_end_in_the_same_bits(tmp_path: Path, stop: int, patience: int | None) -> None:
    """Early stopping among them: with this patience the run ends by itself before its last step."""
    options = {"l1": 1e-3, "validation": held_back(), "validate_every": 1, "patience": patience}
    straight, broken, resumed = learner(), learner(), learner(seed=9)
    seed_everything(4)
    expected = train(straight, **options)
    assert (len(expected.loss) == 40) == (patience is None)
    seed_everything(4)
    train(broken, steps=stop, folder=tmp_path, checkpoint_every=10, **options)
    seed_everything(77)
    history = train(resumed, folder=tmp_path, resume=True, checkpoint_every=10, **options)
    assert equal(straight, resumed)
    assert torch.equal(expected.loss, history.loss)
    assert expected.validation_loss == history.validation_loss


def test_a_finished_fit_is_not_trained_further(tmp_path: Path) -> None:
    first, again = learner(), learner(seed=1)
    history = train(first, folder=tmp_path)
    resumed = train(again, folder=tmp_path, resume=True)
    assert equal(first, again)
    assert torch.equal(history.loss, resumed.loss)
    assert history.seconds == resumed.seconds
    with pytest.raises(ValueError, match=r"holds step-00000040; pass resume=True"):
        train(first, folder=tmp_path)
    with pytest.raises(ValueError, match=r"^l2 is 0.5, but the run in .* was begun with 0.0\.$"):
        train(first, folder=tmp_path, resume=True, l2=0.5)


def test_a_run_of_the_other_loop_is_refused(tmp_path: Path) -> None:
    fit_gan(*toys(), points(), GANConfig(steps=3), folder=tmp_path)
    with pytest.raises(ValueError, match=r"but the run in .* was begun with"):
        train(learner(), folder=tmp_path, resume=True)


def test_fit_does_not_wait_for_the_device_at_every_step(waits: list[str]) -> None:
    train(learner(), steps=10)
    at_the_end = len(waits)
    train(learner(), steps=20)
    assert 0 < at_the_end < 10
    assert len(waits) == 2 * at_the_end


def test_fit_leaves_frozen_weights_frozen_and_trains_in_train_mode() -> None:
    model = learner().eval()
    model[0].requires_grad_(False)
    before = copy.deepcopy(model)
    train(model, l1=0.1, l2=0.1)
    assert equal(before[0], model[0])
    assert not equal(before[4], model[4])
    assert not torch.equal(before[1].running_mean, model[1].running_mean)


@pytest.mark.parametrize("step", [0, 37])
def test_a_fit_that_diverges_names_the_step(tmp_path: Path, step: int) -> None:
    model = learner()
    poisoned = Loader(examples(), BATCH, seed=1)
    batch = poisoned.batch
    poisoned.batch = lambda at: batch(at) * (float("nan") if at == step else 1)
    with pytest.raises(DivergedError, match=rf"^The loss is nan at step {step}; expected a number within .*\."):
        fit(model, poisoned, loss=surprise(model), steps=100, folder=tmp_path, checkpoint_every=10)
    if step:
        assert checkpoint.latest(tmp_path).name == "step-00000030"


def test_a_validation_loss_that_is_not_a_number_is_named() -> None:
    model, loss = given([2.0, float("inf")])
    options = {"validation": [torch.zeros(1, 1)], "validate_every": 5, "patience": 2}
    with pytest.raises(DivergedError, match=r"^The validation loss is inf at step 10; expected"):
        fit(model, Loader(torch.zeros(4, 1), 4), loss=loss, steps=20, **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 0}, r"^steps is 0; expected at least 1\.$"),
        ({"checkpoint_every": 0}, r"^checkpoint_every is 0; expected at least 1\.$"),
        ({"patience": 0, "validation": [examples()]}, r"^patience is 0; expected at least 1\.$"),
        ({"validate_every": 0, "validation": [examples()]}, r"^validate_every is 0; expected at least 1\.$"),
        ({"l1": -1.0}, r"^l1 is -1.0; expected 0 or more\.$"),
        ({"l2": float("nan")}, r"^l2 is nan; expected 0 or more\.$"),
        ({"patience": 3}, r"^patience and validate_every say how to validate; expected validation data with them\.$"),
        ({"validate_every": 3}, r"expected validation data with them\.$"),
        ({"validation": examples()}, r"^validation is a Tensor; expected batches, as a Loader or a list gives\.$"),
        ({"validation": []}, r"^validation: found no batches; expected some, the same at each validation\.$"),
    ],
)
def test_bad_arguments_of_fit_are_refused(options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        train(learner(), **options)
    model = learner().requires_grad_(False)
    with pytest.raises(ValueError, match=r"^model: found no parameter that needs a gradient; expected at least one\.$"):
        train(model)


@pytest.mark.parametrize(
    ("reduce", "found"),
    [
        (lambda each: each, r"shape \(16,\)"),
        (lambda each: each.mean().detach(), r"shape \(\) without a gradient"),
        (lambda each: each.mean().item(), "a float"),
    ],
)
def test_a_loss_that_cannot_be_lowered_is_refused(reduce: Callable, found: str) -> None:
    model = learner()

    def loss(rows: Tensor) -> Tensor:
        return reduce((model(rows[:, :2]).squeeze(1) - rows[:, 2]).square())

    with pytest.raises(ValueError, match=rf"^loss: found {found}; expected a scalar tensor with a gradient"):
        fit(model, Loader(examples(), BATCH), loss=loss, steps=1)
