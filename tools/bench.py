"""Images per second of ``fit_gan`` beside the plain tutorial loop, with the same networks, in the same run.

``python -m tools.bench`` also tells which share of the machine's own matrix-product peak either reaches.
"""

import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmgan_lib import runtime
from mmgan_lib.datasets import Loader
from mmgan_lib.gan import Discriminator, Generator
from mmgan_lib.training import GANConfig, fit_gan

BATCH = 64
STEPS = runtime.by_tier(quick=60, full=1000)
ROUNDS = 5
Networks = tuple[nn.Module, nn.Module]


def networks(device: torch.device) -> Networks:
    """A DCGAN of the chapter's kind, 32×32 RGB."""
    runtime.seed_everything(0)
    discriminator = Discriminator(channels=3, width=32, norm=nn.BatchNorm2d).to(device)
    return Generator(channels=3, width=32).to(device), discriminator


def tutorial_loop(generator: nn.Module, discriminator: nn.Module, loader: Loader, steps: int) -> None:
    """What most tutorials write: nothing frozen, the losses read at every step."""
    device = loader.device
    g_optimizer = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    d_optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    losses = []
    for step in range(steps):
        real = loader.batch(step)
        fake = generator(torch.randn(len(real), generator.latent_dim, device=device))
        d_optimizer.zero_grad()
        d_loss = F.softplus(-discriminator(real)).mean() + F.softplus(discriminator(fake.detach())).mean()
        d_loss.backward()
        d_optimizer.step()
        g_optimizer.zero_grad()
        g_loss = F.softplus(-discriminator(fake)).mean()
        g_loss.backward()
        g_optimizer.step()
        losses.append((d_loss.item(), g_loss.item()))


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall-clock seconds of some work, all of it done."""
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def peak(device: torch.device) -> float:
    """Floating-point operations per second of a large matrix product, in the precision that training uses."""
    side = runtime.by_tier(quick=2048, full=8192)
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16 if device.type == "cuda" else torch.float32)
    seconds(lambda: a @ a, device)
    return 2 * side**3 / min(seconds(lambda: a @ a, device) for _ in range(10))


def flops(device: torch.device, loader: Loader) -> int:
    """Operations of one step of the plain loop, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        tutorial_loop(*networks(device), loader, steps=1)
    return counter.get_total_flops()


def main() -> None:
    """Take turns, so that neither loop has the quieter machine, and print the medians."""
    device = runtime.device()
    pictures: Tensor = torch.rand(4096, 3, 32, 32) * 2 - 1
    loader = Loader(pictures, BATCH, device=device)
    loops: dict[str, Callable[[nn.Module, nn.Module, int], object]] = {
        "plain tutorial loop": lambda g, d, steps: tutorial_loop(g, d, loader, steps),
        "fit_gan": lambda g, d, steps: fit_gan(g, d, loader, GANConfig(steps=steps)),
    }
    for loop in loops.values():
        loop(*networks(device), 10)  # warm up
    times = {name: [] for name in loops}
    for _ in range(ROUNDS):
        for name, loop in loops.items():
            players = networks(device)
            times[name].append(seconds(lambda loop=loop, players=players: loop(*players, STEPS), device))
    best, work = peak(device), flops(device, loader) * STEPS
    print(runtime.report(), f"\nmatrix product: {best / 1e9:.0f} GFLOP/s\n")
    for name, taken in times.items():
        rate, share = BATCH * STEPS / median(taken), work / median(taken) / best
        print(f"{name:<20} {rate:8.0f} images/s   {share:.0%} of the peak")


if __name__ == "__main__":
    main()
