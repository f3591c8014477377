"""The networks of a GAN: shapes, gradients, closed forms and oracles."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgan_lib.fusion import Mean
from mmgan_lib.gan import (
    ConditionalBatchNorm2d,
    Discriminator,
    Fused,
    Generator,
    MatchingDiscriminator,
    ProjectionHead,
    ResidualDiscriminator,
    ResidualGenerator,
)

LATENT = 5
EVERY_NETWORK = [
    pytest.param(size, channels, condition_dim, id=f"{size}px-{channels}ch-condition{condition_dim}")
    for size in (8, 16, 32, 64)
    for channels in (1, 3)
    for condition_dim in (0, 4)
]
EVERY_NORM = pytest.mark.parametrize("norm", [None, nn.BatchNorm2d], ids=["no_norm", "batch_norm"])
every_network = pytest.mark.parametrize(("size", "channels", "condition_dim"), EVERY_NETWORK)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def some_condition(batch: int, condition_dim: int) -> Tensor | None:
    return torch.randn(batch, condition_dim) if condition_dim else None


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def assert_every_weight_learns(network: nn.Module, output: Tensor) -> None:
    (output * torch.randn_like(output)).sum().backward()
    still = [name for name, weight in network.named_parameters() if weight.grad is None or (weight.grad == 0).any()]
    assert still == []


@every_network
def test_pictures_have_the_size_asked_for_and_lie_in_range(size: int, channels: int, condition_dim: int) -> None:
    generator = Generator(LATENT, condition_dim=condition_dim, channels=channels, size=size, width=2)
    nn.init.normal_(generator.to_image.weight, std=10)
    image = generator(torch.randn(6, LATENT), some_condition(6, condition_dim))
    assert image.shape == (6, channels, size, size)
    assert image.dtype == torch.float32
    assert 0.9 < image.abs().max() <= 1


@every_network
def test_one_logit_for_each_picture(size: int, channels: int, condition_dim: int) -> None:
    discriminator = Discriminator(condition_dim=condition_dim, channels=channels, size=size, width=2)
    logit = discriminator(torch.rand(6, channels, size, size) * 2 - 1, some_condition(6, condition_dim))
    assert logit.shape == (6,)


def test_logits_are_not_probabilities() -> None:
    logit = Discriminator(size=8, width=4)(20 * torch.randn(64, 1, 8, 8))
    assert logit.min() < 0
    assert logit.max() > 1


@pytest.mark.parametrize("condition_dim", [0, 4])
def test_a_gradient_reaches_every_weight_of_the_generator(condition_dim: int) -> None:
    generator = Generator(LATENT, condition_dim=condition_dim, size=16, width=4)
    assert_every_weight_learns(generator, generator(torch.randn(16, LATENT), some_condition(16, condition_dim)))


@EVERY_NORM
@pytest.mark.parametrize("condition_dim", [0, 4])
def test_a_gradient_reaches_every_weight_of_the_discriminator(condition_dim: int, norm: type | None) -> None:
    discriminator = Discriminator(condition_dim=condition_dim, size=16, width=4, norm=norm)
    image = torch.rand(16, 1, 16, 16) * 2 - 1
    assert_every_weight_learns(discriminator, discriminator(image, some_condition(16, condition_dim)))


def test_a_gradient_reaches_noise_picture_and_condition() -> None:
    z, c = torch.randn(8, LATENT, requires_grad=True), torch.randn(8, 4, requires_grad=True)
    image = Generator(LATENT, condition_dim=4, size=8, width=4)(z, c)
    logit = Discriminator(condition_dim=4, size=8, width=4)(image, c.detach())
    for gradient in torch.autograd.grad(logit.sum(), (z, c, image)):
        assert gradient.flatten(1).norm(dim=1).min() > 0


def test_conditional_batch_norm_starts_as_plain_batch_norm() -> None:
    conditional, plain = ConditionalBatchNorm2d(3, 4), nn.BatchNorm2d(3)
    for _ in range(2):
        x = 2 + 3 * torch.randn(8, 3, 5, 5)
        torch.testing.assert_close(conditional(x, torch.randn(8, 4)), plain(x))
    conditional.eval(), plain.eval()
    torch.testing.assert_close(conditional(x, torch.randn(8, 4)), plain(x))
    torch.testing.assert_close(ConditionalBatchNorm2d(3, 0)(x), nn.BatchNorm2d(3)(x))


def test_conditional_batch_norm_gives_each_class_a_batch_norm_of_its_own() -> None:
    conditional, x = ConditionalBatchNorm2d(3, 4), torch.randn(8, 3, 5, 5)
    nn.init.normal_(conditional.scale_shift.weight)
    weight, classes = conditional.scale_shift.weight.detach(), torch.arange(8) % 4
    found = conditional(x, F.one_hot(classes, 4).float())
    for i, k in enumerate(classes):
        gamma, beta = weight[:3, k], weight[3:, k]
        expected = F.batch_norm(x, None, None, weight=1 + gamma, bias=beta, training=True)
        torch.testing.assert_close(found[i], expected[i])


def test_the_condition_changes_the_picture_from_the_start() -> None:
    generator, z = Generator(LATENT, condition_dim=4, size=8, width=4).eval(), torch.randn(4, LATENT)
    one, other = (generator(z, F.one_hot(torch.full((4,), k), 4).float()) for k in (0, 1))
    assert not torch.allclose(one, other)


def test_the_logit_is_linear_in_the_condition_by_the_projection() -> None:
    discriminator = Discriminator(condition_dim=4, size=16, width=2).double()
    x, c = torch.randn(6, 1, 16, 16).double(), torch.randn(6, 4).double()
    unconditional = discriminator(x, torch.zeros_like(c))
    match = torch.einsum("bc,hc,bh->b", c, discriminator.head.projection.weight, discriminator.features(x))
    torch.testing.assert_close(discriminator(x, c) - unconditional, match)
    torch.testing.assert_close(discriminator(x, -2 * c) - unconditional, -2 * match)
    torch.testing.assert_close(unconditional, discriminator.head.linear(discriminator.features(x))[:, 0])


def test_the_projection_head_judges_places_as_it_judges_one() -> None:
    head, features, c = ProjectionHead(6, 4), torch.randn(3, 5, 2, 6), torch.randn(3, 4)
    logits = head(features, c)
    assert logits.shape == (3, 5, 2)
    torch.testing.assert_close(logits[:, 4, 1], head(features[:, 4, 1], c))
    assert ProjectionHead(6)(features[:, 0, 0]).shape == (3,)


def test_the_matching_discriminator_judges_under_the_neighbours_condition_besides() -> None:
    plain, matching = (kind(condition_dim=4, size=8, width=4) for kind in (Discriminator, MatchingDiscriminator))
    matching.load_state_dict(plain.state_dict())
    image, c = torch.randn(3, 1, 8, 8), torch.randn(3, 4)
    torch.testing.assert_close(matching(image, c), torch.stack([plain(image, c), plain(image, c[[2, 0, 1]])]))


def test_a_fused_player_is_given_the_fusion_of_what_is_there() -> None:
    fusion, generator = Mean([4, 4], 4), Generator(LATENT, condition_dim=4, size=8, width=4)
    player, z, (caption, sound) = Fused(fusion, generator), torch.randn(3, LATENT), torch.randn(2, 3, 4)
    mask = torch.tensor([[True, True], [True, False], [False, True]])
    assert player.latent_dim == LATENT
    assert Fused(fusion, Discriminator(condition_dim=4)).latent_dim is None
    assert torch.equal(player(z, caption, sound, mask), generator(z, fusion([caption, sound], mask)))


@EVERY_NORM
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_only_batch_norm_in_training_judges_a_picture_by_its_company(norm: type | None, mode: str) -> None:
    discriminator = Discriminator(size=16, width=4, norm=norm).train(mode == "train")
    picture, company, other = torch.randn(1, 1, 16, 16), torch.randn(7, 1, 16, 16), 3 * torch.rand(7, 1, 16, 16)
    judged = [discriminator(torch.cat([picture, around]))[0] for around in (company, other)]
    assert torch.allclose(*judged, rtol=1e-5, atol=1e-7) == (norm is None or mode == "eval")


@pytest.mark.parametrize("size", [-8, 0, 1, 4, 12, 28, 31, 33])
@pytest.mark.parametrize("network", [Generator, Discriminator])
def test_sizes_that_do_not_halve_to_four_are_refused(network: type, size: int) -> None:
    with pytest.raises(ValueError, match=rf"^size is {size}; expected 8, 16, 32, 64 or another 4 × a power of two\.$"):
        network(size=size)


def conditioned(condition_dim: int) -> list:
    generator = Generator(LATENT, condition_dim=condition_dim, size=8, width=2)
    discriminator = Discriminator(condition_dim=condition_dim, size=8, width=2)
    z, image = torch.randn(3, LATENT), torch.randn(3, 1, 8, 8)
    return [lambda c: generator(z, c), lambda c: discriminator(image, c)]


@pytest.mark.parametrize("network", [0, 1], ids=["generator", "discriminator"])
@pytest.mark.parametrize(
    ("condition", "found"),
    [
        (None, "none"),
        (torch.zeros(3), r"shape \(3,\)"),
        (torch.zeros(2, 4), r"shape \(2, 4\)"),
        (torch.zeros(3, 5), r"shape \(3, 5\)"),
        (torch.zeros(1, 4), r"shape \(1, 4\)"),
    ],
)
def test_a_condition_of_another_shape_is_refused(network: int, condition: Tensor | None, found: str) -> None:
    with pytest.raises(ValueError, match=rf"^condition: found {found}; expected \(3, 4\)\.$"):
        conditioned(4)[network](condition)


@pytest.mark.parametrize("network", [0, 1], ids=["generator", "discriminator"])
def test_a_condition_of_whole_numbers_is_refused(network: int) -> None:
    one_hot = torch.eye(4, dtype=torch.int64)[:3]
    with pytest.raises(ValueError, match=r"^condition: found numbers of type torch\.int64; expected floating point"):
        conditioned(4)[network](one_hot)
    conditioned(4)[network](one_hot.float())


@pytest.mark.parametrize("network", [0, 1], ids=["generator", "discriminator"])
def test_a_condition_that_nobody_asked_for_is_refused(network: int) -> None:
    with pytest.raises(ValueError, match=r"condition was given, .* condition_dim=0; expected none"):
        conditioned(0)[network](torch.zeros(3, 4))


@pytest.mark.parametrize("shape", [(3, 1, 28, 28), (3, 1, 33, 33), (3, 3, 32, 32), (3, 32, 32)])
def test_pictures_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    found = ", ".join(map(str, shape))
    with pytest.raises(ValueError, match=rf"^image: found shape \({found}\); expected \(B, 1, 32, 32\)\.$"):
        Discriminator(size=32, width=2)(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(3, 6), (3, 5, 1)])
def test_noise_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    found = ", ".join(map(str, shape))
    with pytest.raises(ValueError, match=rf"^z: found shape \({found}\); expected \(B, 5\)\.$"):
        Generator(LATENT, size=8, width=2)(torch.zeros(shape))


@pytest.mark.parametrize("condition_dim", [0, 4])
def test_in_eval_mode_a_batch_is_its_pictures_one_by_one(condition_dim: int) -> None:
    generator = Generator(LATENT, condition_dim=condition_dim, size=16, width=2).eval()
    discriminator = Discriminator(condition_dim=condition_dim, size=16, width=2, norm=nn.BatchNorm2d).eval()
    z, c = torch.randn(4, LATENT), some_condition(4, condition_dim)
    image = generator(z, c)
    alone = [None if c is None else c[i : i + 1] for i in range(4)]
    torch.testing.assert_close(torch.cat([generator(z[i : i + 1], alone[i]) for i in range(4)]), image)
    logits = [discriminator(image[i : i + 1], alone[i]) for i in range(4)]
    torch.testing.assert_close(torch.cat(logits), discriminator(image, c))


def test_channels_last_gives_the_same_result() -> None:
    generator = Generator(LATENT, condition_dim=4, channels=3, size=16, width=4)
    discriminator = Discriminator(condition_dim=4, channels=3, size=16, width=4, norm=nn.BatchNorm2d)
    z, c = torch.randn(4, LATENT), torch.randn(4, 4)
    image = generator(z, c)
    logit = discriminator(image, c)
    generator.to(memory_format=torch.channels_last), discriminator.to(memory_format=torch.channels_last)
    torch.testing.assert_close(generator(z, c), image)
    torch.testing.assert_close(discriminator(image.to(memory_format=torch.channels_last), c), logit)


@every_network
def test_the_generator_has_as_many_weights_as_its_formula(size: int, channels: int, condition_dim: int) -> None:
    w, k = 3, (size // 4).bit_length() - 1  # width of the last map, doublings from 4 × 4
    project = 16 * (LATENT + condition_dim) * w * 2 ** (k - 1)
    convolutions = 32 * w**2 * (4 ** (k - 1) - 1) // 3  # 4 × 4 kernels from 2ⁱ w to 2ⁱ⁻¹ w channels, i = 1 … k - 1
    scales_and_shifts = 2 * (condition_dim + 1) * w * (2**k - 1)
    to_image = channels * (16 * w + 1)
    generator = Generator(LATENT, condition_dim=condition_dim, channels=channels, size=size, width=w)
    assert count(generator) == project + convolutions + scales_and_shifts + to_image


@EVERY_NORM
@every_network
def test_the_discriminator_has_as_many_weights_as_its_formula(
    size: int, channels: int, condition_dim: int, norm: type | None
) -> None:
    w, k = 3, (size // 4).bit_length() - 1
    convolutions = 16 * channels * w + 32 * w**2 * (4 ** (k - 1) - 1) // 3
    biases = w * (2**k - 1) if norm is None else w + 2 * w * (2**k - 2)  # scale and shift instead, but in the first
    head = 16 * w * 2 ** (k - 1) * (1 + condition_dim) + 1
    discriminator = Discriminator(condition_dim=condition_dim, channels=channels, size=size, width=w, norm=norm)
    assert count(discriminator) == convolutions + biases + head


def test_weights_are_drawn_as_dcgan_does_where_batch_norm_restores_the_scale() -> None:
    generator, discriminator = Generator(size=32), Discriminator(size=32, norm=nn.BatchNorm2d)
    for network in (generator, discriminator):
        layers = [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]
        drawn = torch.cat([layer.weight.flatten() for layer in layers])
        assert drawn.std().item() == pytest.approx(0.02, rel=0.01)
        assert drawn.mean().item() == pytest.approx(0, abs=2e-4)
    # With nothing to restore the scale, logits of such small weights would hardly depend on the picture.
    spread = [Discriminator(size=32, norm=norm)(torch.randn(16, 1, 32, 32)).std() for norm in (None, nn.BatchNorm2d)]
    assert min(spread) > 0.01


@pytest.mark.parametrize("condition_dim", [0, 4])
def test_a_network_is_its_state_dict(condition_dim: int) -> None:
    z, c = torch.randn(4, LATENT), some_condition(4, condition_dim)
    first, second = (Generator(LATENT, condition_dim=condition_dim, size=16, width=2) for _ in range(2))
    image = first(z, c)  # in training: the running averages move, and belong to the state
    first.eval(), second.eval()
    assert not torch.equal(first(z, c), second(z, c))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(z, c), second(z, c))

    judges = [Discriminator(condition_dim=condition_dim, size=16, width=2) for _ in range(2)]
    judges[1].load_state_dict(judges[0].state_dict())
    assert torch.equal(*(judge(image, c) for judge in judges))


@pytest.mark.parametrize("network", [Generator, Discriminator, ResidualGenerator, ResidualDiscriminator])
def test_networks_without_width_are_refused(network: type) -> None:
    with pytest.raises(ValueError, match=r"^width is 0; expected at least 1\.$"):
        network(width=0)
