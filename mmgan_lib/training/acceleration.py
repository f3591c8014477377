"""Acceleration: memory layout, number format and compiled code, as a device trains fastest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import torch
from torch import Tensor, nn

COMPILE_FROM = 10_000  # steps from which torch.compile earns back its minute on a GPU


def accelerated(*networks: nn.Module, steps: int) -> list[Callable[..., Tensor]]:
    """Returns the networks as they run fastest where they are; their weights stay the same objects.

    Convolutions run faster with channels last, in which their weights are laid out. On CUDA: bfloat16 where the
    hardware has it, and compiled, which lays itself out, where the run is long.
    """
    device = next(networks[0].parameters()).device
    compiles = _compiles(steps, device)
    if not compiles:
        lay_out(*networks, memory_format=torch.channels_last)
    if device.type != "cuda":
        return list(networks)
    if compiles:
        torch.compiler.reset()  # the networks of earlier runs would fill its cache
    bfloat16 = torch.autocast("cuda", torch.bfloat16, enabled=torch.cuda.get_device_capability(device) >= (8, 0))
    return [Fast(network, torch.compile(network) if compiles else network, bfloat16) for network in networks]


class Fast:
    """A network that runs fast, and as it was written where a second derivative is asked for.

    An input that is a leaf and needs a gradient is there for a penalty on its slope: compiled code has no second
    derivative, and bfloat16 is too coarse for it. An input that another network made is there for that network's
    gradient, so that this one's weights need none.
    """

    def __init__(self, network: nn.Module, fast: Callable[..., Tensor], autocast: torch.autocast) -> None:
        self.network, self.fast, self.autocast = network, fast, autocast
        self.weights = [weight for weight in network.parameters() if weight.requires_grad]

    def __call__(self, x: Tensor, *condition: Tensor) -> Tensor:
        """Runs the network; its output has the type that it has without autocast."""
        if x.is_leaf and x.requires_grad:
            return self.network(x, *condition)
        with self.autocast, _frozen(self.weights if x.requires_grad else []):
            return self.fast(x, *condition).to(torch.get_default_dtype())


@contextmanager
def _frozen(weights: list[nn.Parameter]) -> Iterator[None]:
    try:
        for weight in weights:
            weight.requires_grad_(False)
        yield
    finally:  # also where somebody stops the cell
        for weight in weights:
            weight.requires_grad_(True)


def lay_out(*networks: nn.Module, memory_format: torch.memory_format) -> None:
    """Lays out the weights of convolutions in this memory format, in place."""
    for weight in (weight for network in networks for weight in network.parameters() if weight.ndim == 4):
        weight.data = weight.data.contiguous(memory_format=memory_format)


def lay_out_as_weights(optimizer: torch.optim.Optimizer) -> None:
    """Lays out an optimiser's moments as their weights: fused Adam walks through memory, whatever a file held."""
    for weight, moments in optimizer.state.items():
        for name, moment in moments.items():
            if isinstance(moment, Tensor) and moment.shape == weight.shape:
                moments[name] = torch.empty_like(weight).copy_(moment)


def _compiles(steps: int, device: torch.device) -> bool:
    """Tests whether the run is long enough, on a GPU that torch.compile can write code for."""
    if device.type != "cuda" or steps < COMPILE_FROM:
        return False
    return find_spec("triton") is not None and torch.cuda.get_device_capability(device) >= (7, 0)
