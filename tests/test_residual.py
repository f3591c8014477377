"""The residual networks: they start shallow, learn everywhere, judge each picture alone, and take DCGAN's places."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgan_lib.gan import Discriminator, Generator, ResidualBlock, ResidualDiscriminator, ResidualGenerator
from mmgan_lib.losses import r1

CONDITIONS = pytest.mark.parametrize("condition_dim", [0, 4])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def some_condition(batch: int, condition_dim: int) -> Tensor | None:
    return torch.randn(batch, condition_dim) if condition_dim else None


def awake(network: nn.Module) -> nn.Module:
    """The network with the last convolution of each block no longer zero."""
    for block in network.modules():
        if isinstance(block, ResidualBlock):
            nn.init.normal_(block.third.weight, std=0.1)
    return network


@pytest.mark.parametrize("size", [8, 16, 64])
@pytest.mark.parametrize("channels", [1, 3])
@CONDITIONS
def test_they_fit_where_dcgan_fits(size: int, channels: int, condition_dim: int) -> None:
    shape = {"condition_dim": condition_dim, "channels": channels, "size": size, "width": 2}
    c = some_condition(5, condition_dim)
    for generator in (Generator(7, **shape), ResidualGenerator(7, **shape)):
        image = generator(torch.randn(5, generator.latent_dim), c)
        assert image.shape == (5, channels, size, size)
    for discriminator in (Discriminator(**shape), ResidualDiscriminator(**shape)):
        assert discriminator(image, c).shape == (5,)


def test_a_new_block_does_nothing_and_a_trained_one_adds_its_formula() -> None:
    block, x = ResidualBlock(4), torch.randn(2, 4, 5, 5)
    assert torch.equal(block(x), x)
    awake(block)
    first, second, third = (layer.weight for layer in (block.first, block.second, block.third))
    y = F.leaky_relu(F.conv2d(x, first, block.first.bias), 0.2)
    y = F.leaky_relu(F.conv2d(y, second, block.second.bias, padding=1), 0.2)
    torch.testing.assert_close(block(x), x + F.conv2d(y, third))


def test_a_deeper_network_starts_with_smaller_branches() -> None:
    """By L to the power of -1/4 for each of the two layers before the zero one, as in Fixup."""

    def drawn(**options: int) -> ResidualBlock:
        torch.manual_seed(2)
        return ResidualBlock(32, **options)

    plain, deep = drawn(), drawn(of=16)
    for layer in ("first", "second"):
        torch.testing.assert_close(getattr(deep, layer).weight, getattr(plain, layer).weight / 2)
    assert plain.first.weight.std().item() == pytest.approx((2 / 1.04 / 32) ** 0.5, rel=0.1)
    for network in (ResidualGenerator(size=16, width=16, blocks=2), ResidualDiscriminator(size=16, width=16, blocks=2)):
        spreads = [stage[0].first.weight.std() * stage[0].first.in_channels ** 0.5 for stage in network.stages]
        assert sum(spreads).item() / 3 == pytest.approx((2 / 1.04) ** 0.5 * 6**-0.25, rel=0.1)  # 3 stages of 2 blocks


def test_the_wide_convolution_looks_at_groups_of_sixteen_channels() -> None:
    block, x = awake(ResidualBlock(48)), torch.randn(1, 48, 3, 3, requires_grad=True)
    block.second(x)[:, 16:32].sum().backward()
    seen = x.grad.abs().sum(dim=(0, 2, 3)) > 0
    assert seen.nonzero().flatten().tolist() == list(range(16, 32))
    assert [ResidualBlock(channels).second.groups for channels in (3, 16, 24, 64)] == [1, 1, 1, 4]


def test_halving_the_side_first_judges_as_widening_first_does() -> None:
    discriminator = awake(ResidualDiscriminator(size=16, width=4)).double()
    image = torch.randn(3, 1, 16, 16, dtype=torch.float64)
    x = discriminator.stages[0](discriminator.from_image(image))
    for widen, stage in zip(discriminator.widen, discriminator.stages[1:], strict=True):
        x = stage(F.avg_pool2d(widen(x), 2))
    torch.testing.assert_close(discriminator(image), discriminator.head(x.flatten(1)).squeeze(1))


@pytest.mark.parametrize("blocks", [1, 3])
def test_depth_does_not_change_a_new_network(blocks: int) -> None:
    """Without normalisation the signal keeps its scale, because new blocks pass it on."""
    z = torch.randn(64, 64)
    torch.manual_seed(1)
    spread = ResidualGenerator(size=16, width=4, blocks=blocks)(z).std()
    torch.manual_seed(1)
    generator = ResidualGenerator(size=16, width=4, blocks=blocks)
    generator.stages = nn.ModuleList(nn.Identity() for _ in generator.stages)
    torch.testing.assert_close(spread, generator(z).std())


@CONDITIONS
def test_a_gradient_reaches_every_weight(condition_dim: int) -> None:
    shape = {"condition_dim": condition_dim, "size": 16, "width": 2, "blocks": 2}
    generator, discriminator = awake(ResidualGenerator(5, **shape)), awake(ResidualDiscriminator(**shape))
    c = some_condition(16, condition_dim)
    image = generator(torch.randn(16, 5), c)
    (discriminator(image, c) * torch.randn(16)).sum().backward()
    for network in (generator, discriminator):
        still = [name for name, w in network.named_parameters() if w.grad is None or (w.grad == 0).all()]
        assert still == []


def test_at_first_only_the_last_convolution_of_a_block_learns() -> None:
    discriminator = ResidualDiscriminator(size=8, width=2)
    discriminator(torch.randn(4, 1, 8, 8)).sum().backward()
    block = discriminator.stages[0][0]
    assert block.third.weight.grad.abs().max() > 0
    assert block.second.weight.grad.abs().max() == 0


def test_every_picture_is_judged_by_itself_and_twice_differentiable() -> None:
    discriminator = awake(ResidualDiscriminator(size=16, width=2)).double()
    image = torch.randn(6, 1, 16, 16, dtype=torch.float64)
    alone = torch.cat([discriminator(picture[None]) for picture in image])
    torch.testing.assert_close(discriminator(image), alone)
    r1(discriminator, real=image).backward()
    assert all(w.grad is not None for name, w in discriminator.named_parameters() if name != "head.bias")


def test_the_generator_keeps_no_statistics_and_is_not_squashed() -> None:
    generator = ResidualGenerator(size=8, width=2)
    assert list(generator.buffers()) == []
    z = torch.randn(4, 64)
    torch.testing.assert_close(generator(z), generator.eval()(z))
    nn.init.constant_(generator.to_image.bias, 3.0)
    assert generator(z).mean() > 1


def test_the_logit_is_linear_in_the_condition() -> None:
    discriminator, x, c = ResidualDiscriminator(condition_dim=4, size=8), torch.randn(3, 1, 8, 8), torch.randn(3, 4)
    at_zero = discriminator(x, torch.zeros_like(c))
    torch.testing.assert_close(discriminator(x, 3 * c) - at_zero, 3 * (discriminator(x, c) - at_zero))


def test_a_shift_of_the_noise_moves_the_whole_picture_smoothly() -> None:
    """Bilinear steps and zero blocks: at first the picture has no edge finer than its 4×4 map."""
    image = ResidualGenerator(size=32, width=2)(torch.randn(8, 64))
    fine = (image[..., 1:] - image[..., :-1]).abs().mean()
    coarse = (image[..., 8:] - image[..., :-8]).abs().mean()
    assert fine < coarse / 3


@pytest.mark.parametrize("network", [ResidualGenerator, ResidualDiscriminator])
def test_bad_sizes_and_conditions_are_refused(network: type) -> None:
    with pytest.raises(ValueError, match=r"^size is 12; expected 8, 16, 32, 64"):
        network(size=12)
    first = torch.zeros(3, 64) if network is ResidualGenerator else torch.zeros(3, 1, 8, 8)
    with pytest.raises(ValueError, match=r"^condition: found none; expected \(3, 4\)"):
        network(size=8, condition_dim=4)(first)
    with pytest.raises(ValueError, match="condition was given"):
        network(size=8)(first, torch.zeros(3, 4))
