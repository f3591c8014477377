"""Train again the weights that the library ships: ``python -m tools.weights [NAME …]``, all of them without a name.

Each recipe writes ``mmgan_lib/weights/NAME.safetensors`` and an entry in the manifest beside it.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from mmgan_lib import checkpoint, plots, runtime
from mmgan_lib.datasets import Batch, Loader, SpokenDigits
from mmgan_lib.gan import Discriminator, Generator
from mmgan_lib.training import GANConfig, fit_gan

ROOT = Path(__file__).parent.parent


def one_hot(batch: Batch) -> torch.Tensor:
    """The digits of a batch as conditions (B, 10)."""
    return F.one_hot(batch.label, 10).float()


def digit_judge(device: torch.device) -> nn.Module:
    """A classifier of MNIST digits, trained on real pictures for two epochs."""
    loader = Loader(SpokenDigits(train=True).pictures(), batch_size=128, device=device)
    judge = nn.Sequential(Discriminator(width=32).features, nn.Linear(128 * 4 * 4, 10)).to(device)
    optimizer = torch.optim.Adam(judge.parameters(), lr=1e-3)
    for step in range(2 * len(loader)):
        batch = loader.batch(step)
        optimizer.zero_grad()
        F.cross_entropy(judge(batch.image), batch.label).backward()
        optimizer.step()
    return judge.eval()


@torch.no_grad()
def digits_generator(seed: int = 0) -> None:
    """The conditional generator of the chapter on GANs, twice as wide and trained for longer, on MNIST."""
    device = runtime.device()
    runtime.seed_everything(seed)
    generator = Generator(condition_dim=10, width=32).to(device, memory_format=torch.channels_last)
    discriminator = Discriminator(condition_dim=10, width=32, norm=nn.BatchNorm2d)
    discriminator.to(device, memory_format=torch.channels_last)
    loader = Loader(SpokenDigits(train=True).pictures(), batch_size=64, seed=seed, device=device)
    config = GANConfig(steps=10_000, lr=5e-4)
    with torch.enable_grad():
        history = fit_gan(generator, discriminator, loader, config, condition=one_hot)
        judge = digit_judge(device)

    test = SpokenDigits(train=False).pictures().to(device)
    asked = torch.arange(10_000, device=device) % 10
    noise = torch.randn(len(asked), generator.latent_dim, device=device)
    conditions = F.one_hot(asked, 10).float()
    drawn = torch.cat([history.ema(z, c) for z, c in zip(noise.split(500), conditions.split(500), strict=True)])

    def accuracy(images: torch.Tensor, labels: torch.Tensor) -> float:
        return round((judge(images).argmax(dim=1) == labels).float().mean().item(), 4)

    metrics = {"drawn as asked": accuracy(drawn, asked), "judge on real test digits": accuracy(test.image, test.label)}
    entry = checkpoint.save_pretrained(
        "digits_generator",
        history.ema,
        command="make weights",
        seed=seed,
        seconds=history.seconds,
        metrics=metrics,
    )
    print("digits_generator", entry)


@torch.no_grad()
def cover() -> None:
    """The README's picture: sixty digits by the shipped generator."""
    generator = Generator(condition_dim=10, width=32).eval()
    checkpoint.load_pretrained("digits_generator", generator)
    noise = torch.randn(60, generator.latent_dim, generator=torch.Generator().manual_seed(0))
    digits = F.one_hot(torch.arange(60) % 10, 10).float()
    figure, axes = plots.panels(size=(8, 2.5))
    plots.images(axes[0, 0], generator(noise, digits), columns=20)
    (ROOT / "book" / "_static" / "cover.png").write_bytes(plots.png(figure))


RECIPES = {"digits_generator": digits_generator, "cover": cover}


if __name__ == "__main__":
    for name in sys.argv[1:] or RECIPES:
        if name not in RECIPES:
            sys.exit(f"There is no recipe {name!r}; expected one of {', '.join(RECIPES)}.")
        RECIPES[name]()
