"""Stacked MNIST: three digits as the colours of a picture make 1,000 kinds; how many does a GAN draw?

Counted as in the literature (Srivastava et al., 2017; Lin et al., 2018): 26,000 pictures, each colour read by a
classifier, the kinds that were drawn at least once, and the KL divergence of their shares from equal ones. The game and
the networks are those of the book's chapter at the full tier: residual networks, the relativistic loss, R1 and R2.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgan_lib import runtime
from mmgan_lib.datasets import Batch, Loader, SpokenDigits
from mmgan_lib.gan import Discriminator, ResidualDiscriminator, ResidualGenerator
from mmgan_lib.metrics import mode_coverage
from mmgan_lib.runtime import by_tier, seed_everything
from mmgan_lib.training import GANConfig, fit_gan

PAIRED = {"loss": "relativistic", "r1": 1.0, "r2": 1.0, "penalty_every": 4, "lr": 1e-3, "betas": (0.0, 0.99)}
SURE = 0.9  # probability of a digit from which the classifier counts as sure


def stack(digits: Tensor, n: int, *, digits_each: int = 3, seed: int = 0) -> Tensor:
    """Pictures (n, digits_each, H, W) whose channels are digits (N, 1, H, W) drawn at random.

    >>> stack(torch.zeros(10, 1, 8, 8), 5).shape
    torch.Size([5, 3, 8, 8])
    """
    chosen = torch.randint(len(digits), (n, digits_each), generator=torch.Generator().manual_seed(seed))
    return digits[chosen].squeeze(2)


def classifier(digits: Batch, *, steps: int, device: torch.device) -> nn.Module:
    """A small network that reads single digits, trained on the spot: pictures (B, 1, H, W) → logits (B, 10)."""
    body = Discriminator(size=digits.image.shape[-1], width=32)
    network = nn.Sequential(body.features, nn.Linear(body.head.in_features, 10)).to(device)
    optimizer, loader = torch.optim.Adam(network.parameters(), lr=1e-3), Loader(digits, 128, device=device)
    for step in range(steps):
        batch = loader.batch(step)
        loss = F.cross_entropy(network(batch.image), batch.label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


@torch.no_grad()
def score(pictures: Tensor, network: nn.Module, *, device: torch.device) -> dict[str, float]:
    """Kinds by any reading of pictures (N, D, H, W), kinds that are read surely, and the reverse KL divergence in nats.

    All three are of :func:`mmgan_lib.metrics.mode_coverage`.
    """
    digits_each = pictures.shape[1]
    read = [network(part.flatten(0, 1)[:, None].to(device)).softmax(dim=1).max(dim=1) for part in pictures.split(1000)]
    sure, digit = (torch.cat(x).cpu().unflatten(0, (-1, digits_each)) for x in zip(*read, strict=True))
    kind, kinds = (digit * 10 ** torch.arange(digits_each)).sum(dim=1), 10**digits_each
    found = mode_coverage(kind, modes=kinds)
    surely = mode_coverage(kind, modes=kinds, good=(sure > SURE).all(dim=1)).modes
    return {"kinds": found.modes, "of": kinds, "sure kinds": surely, "reverse KL": found.reverse_kl}


def stacked_mnist(*, tell: Callable[[dict[str, Any]], None]) -> None:
    """Train the classifier, then the GAN for as long as there is time, and tell its score at every so many steps.

    Short of the 10,000 steps from which ``fit_gan`` compiles its networks, which would take a minute of the few. The
    batch is larger than the chapter's: a GPU takes the same time for it.
    """
    device, digits_each = runtime.device(), by_tier(quick=2, full=3)
    size, width, batch = by_tier(quick=16, full=32), by_tier(quick=8, full=16), by_tier(quick=32, full=256)
    steps, every, n = by_tier(quick=40, full=9_500), by_tier(quick=20, full=500), 26 * 10**digits_each
    whole = (SpokenDigits(train=train).pictures() for train in (True, False))
    train, test = (Batch(image=F.adaptive_avg_pool2d(x.image, size), label=x.label) for x in whole)
    seed_everything(0)
    network = classifier(train, steps=by_tier(quick=200, full=2000), device=device)
    with torch.no_grad():
        read = torch.cat([network(part.to(device)).argmax(dim=1).cpu() for part in test.image.split(1000)])
    real = score(stack(test.image, n, digits_each=digits_each, seed=1), network, device=device)
    tell({"samples": n, "digits read right": (read == test.label).double().mean().item(), "real": real})

    networks = ResidualGenerator, ResidualDiscriminator
    players = [network(channels=digits_each, size=size, width=width).to(device) for network in networks]
    history = {}

    def watch(step: int, generator: nn.Module, _discriminator: nn.Module) -> None:
        noise = torch.randn(n, generator.latent_dim, device=device)
        pictures = torch.cat([generator(z) for z in noise.split(1000)])
        history[step] = score(pictures, network, device=device)
        tell({"drawn at step": history, "batch": batch})

    loader = Loader(stack(train.image, 30_000, digits_each=digits_each), batch, device=device)
    config = GANConfig(steps=steps, **PAIRED)
    done = fit_gan(*players, loader, config, watch=watch, watch_at=range(every, steps + 1, every))
    tell({"images per second": done.images_per_second, "seconds of training": done.seconds})
