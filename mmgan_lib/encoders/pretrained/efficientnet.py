"""EfficientNet-Lite0, as its authors built it in TensorFlow."""

from torch import Tensor, nn

# Of each stage: blocks, expansion, kernel size, stride of the first block, channels
STAGES = ((1, 1, 3, 1, 16), (2, 6, 3, 2, 24), (2, 6, 5, 2, 40), (3, 6, 3, 2, 80))
STAGES += ((3, 6, 5, 1, 112), (4, 6, 5, 2, 192), (1, 6, 3, 1, 320))


def efficientnet_lite0() -> nn.Sequential:
    """Builds the network up to its last feature map: (B, 3, H, W) to (B, 1280, H/32, W/32); H, W multiples of 32.

    EfficientNet-B0 (Tan & Le, 2019), found by a search for what is accurate and cheap, without the two parts that
    slow it down on phones: no squeeze-and-excitation, and ReLU6 in place of swish.
    """
    layers, before = [*convolution(3, 32, 3, stride=2), nn.ReLU6()], 32
    for blocks, expansion, kernel, stride, channels in STAGES:
        for i in range(blocks):
            layers.append(MBConv(before, channels, expansion, kernel, stride if i == 0 else 1))
            before = channels
    return nn.Sequential(*layers, *convolution(before, 1280, 1), nn.ReLU6())


class MBConv(nn.Module):
    """An inverted residual (Sandler et al., 2018): widens the channels, filters each alone, narrows them again.

    Where input and output have the same shape, the input is added, as in a ResNet.
    """

    def __init__(self, before: int, after: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = expansion * before
        widen = [*convolution(before, wide, 1), nn.ReLU6()] if expansion > 1 else []
        look = [*convolution(wide, wide, kernel, stride=stride, groups=wide), nn.ReLU6()]
        self.layers = nn.Sequential(*widen, *look, *convolution(wide, after, 1))
        self.residual = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, before, H, W) to (B, after, H / stride, W / stride)."""
        return x + self.layers(x) if self.residual else self.layers(x)


def convolution(before: int, after: int, kernel: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Builds convolution and batch normalisation; TensorFlow pads less at top and left if a stride leaves a choice."""
    padding = kernel - stride  # in all, of a side that the stride divides
    less, rest = padding // 2, padding % 2
    pad = [nn.ZeroPad2d((0, rest, 0, rest))] if rest else []
    convolve = nn.Conv2d(before, after, kernel, stride, less, groups=groups, bias=False)
    return [*pad, convolve, nn.BatchNorm2d(after, eps=1e-3)]
