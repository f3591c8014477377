"""The networks of pix2pix: what comes through the bridges, what a patch sees, and what the condition changes."""

import pytest
import torch
from torch import Tensor, nn

from mmgan_lib.gan import ImageToImageGenerator, PatchDiscriminator


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def a_picture(batch: int = 4, channels: int = 3, height: int = 32, width: int = 32) -> Tensor:
    return torch.rand(batch, channels, height, width) * 2 - 1


def assert_every_parameter_learns(network: nn.Module, output: Tensor) -> None:
    (output * torch.randn_like(output)).sum().backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()] == []


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize(("in_channels", "channels", "condition_dim"), [(1, 3, 0), (3, 1, 5), (2, 3, 5)])
def test_a_picture_of_the_size_of_the_source_comes_out(
    depth: int, in_channels: int, channels: int, condition_dim: int
) -> None:
    network = ImageToImageGenerator(in_channels, condition_dim=condition_dim, channels=channels, width=4, depth=depth)
    nn.init.normal_(network.to_image.weight, std=10)
    condition = torch.randn(2, condition_dim) if condition_dim else None
    image = network(a_picture(2, in_channels, 48, 32), condition)
    assert image.shape == (2, channels, 48, 32)
    assert 0.9 < image.abs().max() <= 1


@pytest.mark.parametrize("condition_dim", [0, 5])
def test_every_weight_of_both_players_learns(condition_dim: int) -> None:
    condition = torch.randn(8, condition_dim) if condition_dim else None
    source = a_picture(8, 1)
    generator = ImageToImageGenerator(condition_dim=condition_dim, width=4)
    discriminator = PatchDiscriminator(condition_dim=condition_dim, width=4)
    assert_every_parameter_learns(generator, generator(source, condition))
    assert_every_parameter_learns(discriminator, discriminator(a_picture(8), source, condition))


def reached(network: ImageToImageGenerator) -> Tensor:
    """The pixels of the source (H, W) that move the pixel in the middle of the picture."""
    source = a_picture(1, 1, 64, 64).requires_grad_()
    network.eval()(source)[0, :, 32, 32].sum().backward()
    return source.grad[0, 0] != 0


def test_each_halving_lets_a_pixel_see_further() -> None:
    seen = [int(reached(ImageToImageGenerator(width=4, depth=depth)).sum()) for depth in (1, 2, 3, 4)]
    assert seen == sorted(seen)
    assert seen[0] < seen[1] < seen[2] < seen[3]


def test_the_bridges_carry_what_the_small_map_does_not() -> None:
    network = ImageToImageGenerator(width=4).eval()
    source = a_picture(1, 1).requires_grad_()
    for weight in network.down[-1].parameters():
        nn.init.zeros_(weight)
    network(source).sum().backward()
    assert (source.grad != 0).all()


def test_a_single_pixel_of_the_source_comes_through_sharp() -> None:
    """Through the bridge of full size alone: nothing but the last convolution is in the way."""
    network = ImageToImageGenerator(width=4).eval()
    for block in network.up:
        nn.init.zeros_(block.conv.weight)
    source = torch.zeros(1, 1, 32, 32, requires_grad=True)
    network(source)[0, 0, 10, 20].backward()
    rows, columns = source.grad[0, 0].nonzero().T
    assert (rows.unique().tolist(), columns.unique().tolist()) == ([9, 10, 11], [19, 20, 21])


def test_the_condition_decides_what_the_source_leaves_open() -> None:
    network = ImageToImageGenerator(condition_dim=3, width=4)
    source = a_picture(2, 1)
    assert torch.equal(network(source, torch.zeros(2, 3)), network(source, torch.ones(2, 3)))  # it starts neutral
    nn.init.normal_(network.up[0].norm.scale_shift.weight)
    assert not torch.equal(network(source, torch.zeros(2, 3)), network(source, torch.ones(2, 3)))


def test_there_is_no_noise() -> None:
    network = ImageToImageGenerator(width=4)
    source = a_picture(2, 1)
    assert torch.equal(network(source), network(source))


def test_a_logit_for_each_patch() -> None:
    logits = PatchDiscriminator(in_channels=2, channels=1, width=4)(a_picture(3, 1, 40, 32), a_picture(3, 2, 40, 32))
    assert logits.shape == (3, 10, 8)


@pytest.mark.parametrize("which", ["image", "source"])
def test_a_patch_is_18_pixels_wide(which: str) -> None:
    inputs = {"image": a_picture(1, 3, 64, 64), "source": a_picture(1, 1, 64, 64)}
    inputs[which].requires_grad_()
    PatchDiscriminator(width=8)(**inputs)[0, 8, 8].backward()
    rows, columns = inputs[which].grad[0].abs().sum(dim=0).nonzero().T
    assert rows.max() - rows.min() + 1 == columns.max() - columns.min() + 1 == 18


def test_patches_are_judged_alike_wherever_they_are() -> None:
    image, source = a_picture(1, 3, 64, 64), a_picture(1, 1, 64, 64)
    network = PatchDiscriminator(width=4)
    logits = network(image, source)
    shifted = network(image.roll(8, dims=3), source.roll(8, dims=3))
    torch.testing.assert_close(shifted[:, 3:13, 5:13], logits[:, 3:13, 3:11])


def test_the_projection_is_the_inner_product_with_each_place() -> None:
    network = PatchDiscriminator(condition_dim=5, width=4)
    image, source, condition = a_picture(2), a_picture(2, 1), torch.randn(2, 5)
    features = network.features(torch.cat([image, source], dim=1))
    asked = condition @ network.head.projection.weight.T
    match = (features * asked[:, :, None, None]).sum(dim=1)
    neutral = network(image, source, torch.zeros(2, 5))
    torch.testing.assert_close(network(image, source, condition) - neutral, match)


@pytest.mark.parametrize(
    ("source", "condition", "message"),
    [
        (torch.zeros(2, 3, 32, 32), None, r"source: found shape \(2, 3, 32, 32\); expected \(B, 1, H, W\)"),
        (torch.zeros(2, 1, 36, 32), None, r"source is \(36, 32\) pixels; expected multiples of 8"),
        (torch.zeros(2, 1, 32, 32), torch.zeros(2, 4), "condition was given"),
        (
            torch.zeros(2, 1, 32, 32).byte(),
            None,
            r"source: found numbers of type torch\.uint8; expected floating point",
        ),
    ],
)
def test_the_generator_refuses(source: Tensor, condition: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageToImageGenerator(width=4)(source, condition)


@pytest.mark.parametrize(
    ("image", "source", "condition", "message"),
    [
        (torch.zeros(2, 3, 32, 32), torch.zeros(2, 1, 32, 16), torch.zeros(2, 4), r"image: found shape"),
        (
            torch.zeros(1, 3, 32, 32),
            torch.zeros(2, 1, 32, 32),
            torch.zeros(2, 4),
            r"image: found shape \(1, 3, 32, 32\)",
        ),
        (
            torch.zeros(2, 3, 32, 32).byte(),
            torch.zeros(2, 1, 32, 32),
            torch.zeros(2, 4),
            "image: found numbers of type",
        ),
        (torch.zeros(2, 3, 30, 32), torch.zeros(2, 1, 30, 32), torch.zeros(2, 4), "expected multiples of 4"),
        (torch.zeros(2, 3, 32, 32), torch.zeros(2, 1, 32, 32), None, "condition: found none"),
        (torch.zeros(2, 3, 32, 32), torch.zeros(2, 1, 32, 32), torch.zeros(2, 5), r"condition: found shape \(2, 5\)"),
    ],
)
def test_the_discriminator_refuses(image: Tensor, source: Tensor, condition: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PatchDiscriminator(condition_dim=4, width=4)(image, source, condition)


@pytest.mark.parametrize("count", [0, -1])
def test_networks_of_no_size_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=rf"^depth is {count}; expected at least 1\.$"):
        ImageToImageGenerator(depth=count)
    for network in (ImageToImageGenerator, PatchDiscriminator):
        with pytest.raises(ValueError, match=rf"^width is {count}; expected at least 1\.$"):
            network(width=count)
