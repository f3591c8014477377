"""The losses against closed forms, other implementations and the identities that theory promises."""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from mmgan_lib.losses import GAN_LOSSES, MATCHING_AWARE, clip_weights, contrastive, gradient_penalty, r1, r2

EVERY_LOSS = pytest.mark.parametrize("name", GAN_LOSSES)


def logits(*shape: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradient(loss: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)


def against(label: float, x: Tensor) -> Tensor:
    return torch.full_like(x, label)


# The same games, written with PyTorch's own classification and regression losses: discriminator, generator.
REFERENCES = {
    "minimax": (
        lambda r, f: sum(F.binary_cross_entropy_with_logits(x, against(y, x)) for x, y in ((r, 1), (f, 0))),
        lambda r, f: -F.binary_cross_entropy(f.sigmoid(), against(0, f)),
    ),
    "non_saturating": (
        lambda r, f: sum(F.binary_cross_entropy_with_logits(x, against(y, x)) for x, y in ((r, 1), (f, 0))),
        lambda r, f: F.binary_cross_entropy(f.sigmoid(), against(1, f)),
    ),
    "least_squares": (
        lambda r, f: (F.mse_loss(r, against(1, r)) + F.mse_loss(f, against(0, f))) / 2,
        lambda r, f: F.mse_loss(f, against(1, f)) / 2,
    ),
    "hinge": (
        lambda r, f: sum(F.hinge_embedding_loss(x, against(-1, x)) for x in (r, -f)),
        lambda r, f: F.l1_loss(f, against(50, f)) - 50,
    ),
    "wasserstein": (
        lambda r, f: F.l1_loss(against(50, r), r) - F.l1_loss(against(50, f), f),
        lambda r, f: F.l1_loss(f, against(50, f)) - 50,
    ),
    "relativistic": (
        lambda r, f: F.soft_margin_loss(r - f, against(1, r)),
        lambda r, f: F.soft_margin_loss(r - f, against(-1, r)),
    ),
}


def test_every_game_is_held_to_a_reference() -> None:
    assert set(GAN_LOSSES) == set(REFERENCES)


@EVERY_LOSS
@pytest.mark.parametrize("shape", [(7,), (7, 1), (7, 1, 3, 3)])
def test_values_and_gradients_equal_pytorchs_own_losses(name: str, shape: tuple[int, ...]) -> None:
    real, fake = (logits(*shape, seed=seed).requires_grad_() for seed in (1, 2))
    for ours, theirs in zip(GAN_LOSSES[name][:2], REFERENCES[name], strict=True):
        mine, other = ours(real_logits=real, fake_logits=fake), theirs(real, fake)
        assert mine.shape == ()
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(gradient(mine, real, fake), gradient(other, real, fake), rtol=1e-7, atol=1e-8)


@EVERY_LOSS
@pytest.mark.parametrize("side", ["discriminator", "generator"])
def test_extreme_logits_give_finite_values_and_gradients(name: str, side: str) -> None:
    extreme = torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4])
    real, fake = (grid.clone().requires_grad_() for grid in torch.meshgrid(extreme, extreme, indexing="ij"))
    loss = getattr(GAN_LOSSES[name], side)(real_logits=real, fake_logits=fake)
    assert loss.isfinite()
    assert all(g.isfinite().all() for g in gradient(loss, real, fake))


@EVERY_LOSS
def test_only_the_declared_generators_look_at_real_logits(name: str) -> None:
    game, real, fake = GAN_LOSSES[name], logits(5, seed=1).requires_grad_(), logits(5, seed=2).requires_grad_()
    (to_real,) = gradient(game.generator(real_logits=real, fake_logits=fake), real)
    assert bool(to_real.any()) == game.generator_sees_real == (name == "relativistic")
    if not game.generator_sees_real:
        assert game.generator(fake_logits=fake) == game.generator(real_logits=real, fake_logits=fake)


def test_minimax_and_non_saturating_differ_only_in_the_generators_gradient_by_the_odds() -> None:
    """-σ(f) against σ(f) - 1: one factor of σ(f) / (1 - σ(f)), the odds of being called real, on every parameter."""
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    discriminator = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    fake = discriminator(generator(torch.randn(1, 3, dtype=torch.float64))) - 4  # the discriminator is sure of a fake
    minimax, non_saturating = GAN_LOSSES["minimax"], GAN_LOSSES["non_saturating"]

    assert minimax.discriminator(real_logits=-fake, fake_logits=fake) == non_saturating.discriminator(
        real_logits=-fake, fake_logits=fake
    )
    probability = fake.sigmoid().item()
    weak, strong = (
        torch.autograd.grad(game.generator(fake_logits=fake), generator.parameters(), retain_graph=True)
        for game in (minimax, non_saturating)
    )
    assert len(weak) == 4
    for w, s in zip(weak, strong, strict=True):
        torch.testing.assert_close(w, s * probability / (1 - probability))
        assert 0 < w.norm() < 0.1 * s.norm()


@pytest.mark.parametrize("name", ["minimax", "wasserstein"])
def test_zero_sum_games_pull_a_fake_logit_in_opposite_directions(name: str) -> None:
    game, real, fake = GAN_LOSSES[name], logits(6, seed=1), logits(6, seed=2).requires_grad_()
    (discriminator,) = gradient(game.discriminator(real_logits=real, fake_logits=fake), fake)
    (generator,) = gradient(game.generator(fake_logits=fake), fake)
    torch.testing.assert_close(discriminator, -generator)


@pytest.mark.parametrize(("name", "to_logit"), [("least_squares", lambda p: p), ("minimax", torch.logit)])
def test_the_best_discriminator_is_the_share_of_real(name: str, to_logit) -> None:
    """D*(x) = p(x) / (p(x) + q(x)) on a support of three points, whose counts are p and q."""
    p, q = torch.tensor([6, 3, 1]), torch.tensor([2, 3, 5])
    best = to_logit(p.double() / (p + q)).requires_grad_()
    points = torch.arange(3)

    def loss(at: Tensor) -> Tensor:
        real, fake = at[points.repeat_interleave(p)], at[points.repeat_interleave(q)]
        return GAN_LOSSES[name].discriminator(real_logits=real, fake_logits=fake)

    (slope,) = gradient(loss(best), best)
    torch.testing.assert_close(slope, torch.zeros_like(slope))
    assert all(loss(best + 0.1 * direction) > loss(best) for direction in torch.eye(3, dtype=torch.float64))
    if name == "minimax":  # there the value is 2 log 2 - 2 JSD(p, q)
        middle = (p + q) / 20
        divergence = sum((d / 10 * (d / 10 / middle).log()).sum() / 2 for d in (p, q))
        torch.testing.assert_close(loss(best), (2 * math.log(2) - 2 * divergence).double(), rtol=1e-6, atol=0)


def test_hinge_has_no_gradient_beyond_its_margins() -> None:
    real = torch.tensor([0.9, 1.1, 5.0, -3.0], requires_grad=True)
    fake = torch.tensor([-0.9, -1.1, -5.0, 3.0], requires_grad=True)
    to_real, to_fake = gradient(GAN_LOSSES["hinge"].discriminator(real_logits=real, fake_logits=fake), real, fake)
    assert to_real.tolist() == [-0.25, 0, 0, -0.25]
    assert to_fake.tolist() == [0.25, 0, 0, 0.25]


@EVERY_LOSS
def test_order_does_not_matter_and_pairing_only_to_the_relativistic(name: str) -> None:
    game, real, fake = GAN_LOSSES[name], logits(50, seed=1), logits(50, seed=2)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    value = game.discriminator(real_logits=real, fake_logits=fake)
    torch.testing.assert_close(game.discriminator(real_logits=real[order], fake_logits=fake[order]), value)
    assert torch.isclose(game.discriminator(real_logits=real[order], fake_logits=fake), value) == (
        name != "relativistic"
    )


@EVERY_LOSS
def test_adding_a_constant_to_all_logits_changes_all_but_the_differences(name: str) -> None:
    discriminator, real, fake = GAN_LOSSES[name].discriminator, logits(50, seed=1), logits(50, seed=2)
    same = torch.isclose(
        discriminator(real_logits=real + 2, fake_logits=fake + 2), discriminator(real_logits=real, fake_logits=fake)
    )
    assert same == (name in ("relativistic", "wasserstein"))


@pytest.mark.parametrize("side", ["discriminator", "generator"])
def test_relativistic_refuses_to_broadcast(side: str) -> None:
    with pytest.raises(ValueError, match=r"^real_logits has shape \(4, 1\) and fake_logits \(4,\); expected"):
        getattr(GAN_LOSSES["relativistic"], side)(real_logits=torch.zeros(4, 1), fake_logits=torch.zeros(4))


def test_the_matching_aware_game_is_hinge_where_wrong_conditions_score_as_the_fakes() -> None:
    right, fake, wrong = (logits(6, seed=seed) for seed in (1, 2, 3))
    hinge = GAN_LOSSES["hinge"]
    real_logits, fake_logits = torch.stack([right, wrong]), torch.stack([fake, right])
    value = MATCHING_AWARE.discriminator(real_logits=real_logits, fake_logits=fake_logits)
    halves = [hinge.discriminator(real_logits=right, fake_logits=other) for other in (fake, wrong)]
    torch.testing.assert_close(value, sum(halves) / 2)
    assert MATCHING_AWARE.generator(fake_logits=fake_logits) == hinge.generator(fake_logits=fake)


# Penalties


def smooth_network(*sizes: int) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.Softplus())]
    return nn.Sequential(*layers[:-1]).double()


@pytest.mark.parametrize("shape", [(6, 5), (6, 3, 4, 4)])
def test_gradient_penalty_of_a_linear_critic(shape: tuple[int, ...]) -> None:
    """(‖w‖ - 1)², whatever the samples, with gradient 2 (‖w‖ - 1) w / ‖w‖."""
    w = logits(math.prod(shape[1:])).requires_grad_()
    penalty = gradient_penalty(lambda x: x.flatten(1) @ w, real=logits(*shape, seed=1), fake=logits(*shape, seed=2))
    torch.testing.assert_close(penalty, (w.norm() - 1) ** 2)
    torch.testing.assert_close(gradient(penalty, w)[0], 2 * (w.norm() - 1) * w / w.norm())


def test_gradient_penalty_looks_between_real_and_fake_at_one_point_for_each_sample() -> None:
    seen = []

    def critic(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return x.square().flatten(1).sum(1)

    torch.manual_seed(0)
    gradient_penalty(critic, real=torch.ones(2000, 2, 3, 3), fake=-torch.ones(2000, 2, 3, 3))
    epsilon = (seen[0].flatten(1) + 1) / 2
    torch.testing.assert_close(epsilon, epsilon[:, :1].expand_as(epsilon))
    uniform = torch.linspace(0, 1, 2000)
    assert (epsilon[:, 0].sort().values - uniform).abs().max() < 0.04  # Kolmogorov–Smirnov, p < 0.003


def test_gradient_penalty_of_a_quadratic_where_real_and_fake_meet() -> None:
    x = logits(8, 5)
    penalty = gradient_penalty(lambda u: u.square().sum(1) / 2, real=x, fake=x)
    torch.testing.assert_close(penalty, (x.norm(dim=1) - 1).square().mean())


def test_gradient_penalty_where_the_slope_is_zero() -> None:
    critic = nn.Linear(5, 1)
    nn.init.zeros_(critic.weight)
    penalty = gradient_penalty(critic, real=torch.randn(4, 5), fake=torch.randn(4, 5))
    penalty.backward()
    torch.testing.assert_close(penalty.detach(), torch.tensor(1.0))
    assert critic.weight.grad.isfinite().all()


@pytest.mark.parametrize("penalty", [lambda d, x: r1(d, real=x), lambda d, x: r2(d, fake=x)], ids=["r1", "r2"])
def test_r1_and_r2_of_a_quadratic(penalty) -> None:
    """D(x) = ½ xᵀ A x with symmetric A has the slope A x: the penalty is ½ E ‖A x‖²."""
    x = logits(9, 4, seed=1)
    matrix = logits(4, 4)
    matrix = (matrix + matrix.T).requires_grad_()
    value = penalty(lambda x: torch.einsum("bi,ij,bj->b", x, matrix, x) / 2, x)
    torch.testing.assert_close(value, (x @ matrix).square().sum(1).mean() / 2)
    (to_matrix,) = gradient(value, matrix)
    expected = torch.einsum("bi,bj->ij", x @ matrix, x) / 9
    torch.testing.assert_close(to_matrix + to_matrix.T, expected + expected.T)


@pytest.mark.parametrize("kind", ["gradient_penalty", "r1", "r2"])
def test_penalties_train_every_parameter(kind: str) -> None:
    """First and second derivatives against finite differences."""
    network, x, y = smooth_network(3, 4, 1), logits(3, 3, seed=1), logits(3, 3, seed=2)
    names, values = zip(*network.named_parameters(), strict=True)

    def penalty(*parameters: Tensor) -> Tensor:
        critic = partial(functional_call, network, dict(zip(names, parameters, strict=True)))
        torch.manual_seed(0)
        return {
            "gradient_penalty": lambda: gradient_penalty(critic, real=x, fake=y),
            "r1": lambda: r1(critic, real=x),
            "r2": lambda: r2(critic, fake=y),
        }[kind]()

    assert torch.autograd.gradcheck(penalty, values)
    assert torch.autograd.gradgradcheck(penalty, values)
    moved = gradient(penalty(*values), *values)
    assert [bool(g.any()) for g in moved] == [True, True, True, False]  # the last bias shifts D and not its slope


def test_penalties_reach_the_discriminator_and_not_the_generator() -> None:
    torch.manual_seed(0)
    generator, discriminator = nn.Linear(3, 5), smooth_network(5, 4, 1).float()
    fake, real = generator(torch.randn(6, 3)), torch.randn(6, 5)
    (gradient_penalty(discriminator, real=real, fake=fake) + r2(discriminator, fake=fake)).backward()
    assert discriminator[0].weight.grad.any()
    assert generator.weight.grad is None
    assert not real.requires_grad
    assert fake.grad_fn is not None


def test_penalty_of_a_batch_is_the_mean_over_its_samples() -> None:
    network, x = smooth_network(3, 4, 1), logits(5, 3)
    torch.testing.assert_close(r1(network, real=x), torch.stack([r1(network, real=one) for one in x.split(1)]).mean())


def test_slope_of_a_patch_discriminator_is_that_of_the_sum_of_its_logits() -> None:
    torch.manual_seed(0)
    patches, x = nn.Conv2d(1, 1, 3).double(), logits(2, 1, 6, 6)
    torch.testing.assert_close(r1(patches, real=x), r1(lambda x: patches(x).sum((1, 2, 3)), real=x))


def test_a_condition_is_bound_by_the_caller() -> None:
    x, condition = logits(4, 2), torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    value = r1(partial(lambda x, c: c * x.sum(1), c=condition), real=x)
    torch.testing.assert_close(value, condition.square().mean())  # ½ · c² · 2 dimensions


@pytest.mark.parametrize("kind", ["gradient_penalty", "r1", "r2"])
def test_autocast_leaves_penalties_in_float32(kind: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 8, 3), nn.SiLU(), nn.Flatten(), nn.Linear(8 * 16, 1))
    real, fake = torch.randn(2, 4, 2, 6, 6).to(torch.bfloat16)  # pictures that autocast would hand over

    def penalty(real: Tensor, fake: Tensor) -> Tensor:
        torch.manual_seed(1)
        inputs = {"gradient_penalty": {"real": real, "fake": fake}, "r1": {"real": real}, "r2": {"fake": fake}}[kind]
        return {"gradient_penalty": gradient_penalty, "r1": r1, "r2": r2}[kind](network, **inputs)

    network.double()
    exact = penalty(real.double(), fake.double())
    network.float()
    plain = penalty(real.float(), fake.float())
    torch.testing.assert_close(plain.double(), exact, rtol=1e-5, atol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network(real.float()).dtype == torch.bfloat16
        cast = penalty(real, fake)
    assert cast.dtype == torch.float32
    assert cast == plain
    parameters = tuple(network.parameters())
    torch.testing.assert_close(gradient(cast, *parameters), gradient(plain, *parameters), rtol=0, atol=0)


def test_gradient_penalty_refuses_different_shapes() -> None:
    with pytest.raises(ValueError, match=r"real has shape \(4, 2\) and fake \(3, 2\); expected the same shape"):
        gradient_penalty(nn.Linear(2, 1), real=torch.zeros(4, 2), fake=torch.zeros(3, 2))


def test_clip_weights_clamps_parameters_in_place_and_leaves_buffers() -> None:
    module = nn.Sequential(nn.Linear(50, 50), nn.BatchNorm1d(50))
    module[1].running_mean.fill_(9)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    clip_weights(module, 0.05)
    for name, p in module.named_parameters():
        assert p.requires_grad
        assert torch.equal(p, before[name].clamp(-0.05, 0.05))
    assert module[1].running_mean.eq(9).all()


@pytest.mark.parametrize("limit", [0, -0.01, math.nan])
def test_clip_weights_refuses_a_limit_that_is_not_positive(limit: float) -> None:
    with pytest.raises(ValueError, match=f"limit is {limit}; expected a positive number"):
        clip_weights(nn.Linear(2, 1), limit)


# The contrastive loss


def test_contrastive_is_the_mean_surprise_of_each_partner_from_either_side() -> None:
    a, b = logits(5, 3, seed=1), logits(5, 3, seed=2)
    total = 0.0
    for i in range(5):
        scores = [F.cosine_similarity(a[i], b[j], dim=0).item() / 0.2 for j in range(5)]
        scores_back = [F.cosine_similarity(a[j], b[i], dim=0).item() / 0.2 for j in range(5)]
        for s in (scores, scores_back):
            total -= math.log(math.exp(s[i]) / sum(map(math.exp, s)))
    assert contrastive(a, b, temperature=0.2).item() == pytest.approx(total / 10, rel=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_contrastive_at_its_best_and_at_a_guess(temperature: float) -> None:
    """The best that B pairs can do is a simplex: every wrong partner at the cosine -1/(B - 1)."""
    corners = torch.eye(6, dtype=torch.float64) - 1 / 6
    best = math.log1p(5 * math.exp(-6 / (5 * temperature)))
    assert contrastive(corners, corners, temperature=temperature).item() == pytest.approx(best)
    (slope,) = gradient(contrastive(moving := corners.clone().requires_grad_(), corners, temperature=1.0), moving)
    torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-12)
    same = torch.ones(6, 2, dtype=torch.float64)
    assert contrastive(same, same, temperature=temperature).item() == pytest.approx(math.log(6))


def test_contrastive_looks_at_directions_and_at_pairs_alone() -> None:
    a, b, order = logits(8, 4, seed=1), logits(8, 4, seed=2), torch.randperm(8)
    loss = contrastive(a, b)
    torch.testing.assert_close(contrastive(b, a), loss)
    torch.testing.assert_close(contrastive(a[order], b[order]), loss)
    torch.testing.assert_close(contrastive(3 * a, b / 7), loss)
    rotation = torch.linalg.qr(logits(4, 4, seed=3)).Q
    torch.testing.assert_close(contrastive(a @ rotation, b @ rotation), loss)
    assert not torch.isclose(contrastive(a, b.roll(1, dims=0)), loss)


def test_contrastive_at_a_low_temperature_counts_the_nearest_wrong_partner() -> None:
    a, b = logits(6, 3, seed=1), logits(6, 3, seed=2)
    cosine = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T
    wrong = cosine.masked_fill(torch.eye(6, dtype=torch.bool), -torch.inf)
    misses = [(wrong.amax(dim) - cosine.diagonal()).clamp(min=0).mean() for dim in (0, 1)]
    torch.testing.assert_close(1e-4 * contrastive(a, b, temperature=1e-4), sum(misses) / 2, rtol=1e-3, atol=1e-3)


def test_contrastive_teaches_both_sides() -> None:
    a, b = logits(5, 3, seed=1).requires_grad_(), logits(5, 3, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(partial(contrastive, temperature=0.5), (a, b))
    to_a, to_b = gradient(contrastive(a, b), a, b)
    for x, to_x in ((a, to_a), (b, to_b)):
        torch.testing.assert_close((x * to_x).sum(1), torch.zeros(5, dtype=torch.float64))  # lengths do not matter
        assert to_x.norm(dim=1).min() > 0


def test_contrastive_training_brings_partners_together() -> None:
    torch.manual_seed(0)
    a, b = nn.Parameter(torch.randn(16, 8)), torch.randn(16, 8)
    optimizer = torch.optim.Adam([a], lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        contrastive(a, b).backward()
        optimizer.step()
    assert (F.normalize(a, dim=1) @ F.normalize(b, dim=1).T).argmax(1).tolist() == list(range(16))


@pytest.mark.parametrize(("a", "b"), [((4, 2), (4, 3)), ((4, 2), (3, 2)), ((4,), (4,)), ((4, 2, 2), (4, 2, 2))])
def test_contrastive_refuses_what_cannot_be_paired(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^a has shape \(.*\) and b \(.*\); expected the same shape \(B, D\)\.$"):
        contrastive(torch.zeros(a), torch.zeros(b))
