"""Train again the weights that the library ships: ``python -m tools.weights [NAME …]``, all of them without a name.

Each recipe writes ``mmgan_lib/weights/NAME.safetensors`` and an entry in the manifest beside it.
"""

import sys
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from mmgan_lib import checkpoint, plots, runtime
from mmgan_lib.datasets import Batch, Loader, Shapes, SpokenDigits
from mmgan_lib.datasets.shapes import TELLS
from mmgan_lib.encoders import ImageEncoder, evaluating
from mmgan_lib.gan import Discriminator, Generator
from mmgan_lib.metrics.captions import AttributeClassifier
from mmgan_lib.training import GANConfig, fit, fit_gan
from tools import painters

ROOT = Path(__file__).parent.parent


def one_hot(batch: Batch) -> torch.Tensor:
    """The digits of a batch as conditions (B, 10)."""
    return F.one_hot(batch.label, 10).float()


def digit_judge(device: torch.device) -> nn.Module:
    """A classifier of MNIST digits, trained on real pictures for two epochs."""
    loader = Loader(SpokenDigits(train=True).pictures(), batch_size=128, device=device)
    judge = nn.Sequential(Discriminator(width=32).features, nn.Linear(128 * 4 * 4, 10)).to(device)
    fit(judge, loader, loss=lambda batch: F.cross_entropy(judge(batch.image), batch.label), steps=2 * len(loader))
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


def learn_attributes(classifier: nn.Module, *, seed: int, n: int, steps: int) -> tuple[float, dict[str, float]]:
    """Train a classifier that gives the logits of all attributes of ``Shapes``; its seconds, and its test accuracy."""
    device = runtime.device()
    tells = {"image": TELLS["image"]}
    shapes, test = Shapes(n, seed=seed, tells=tells), Shapes(5000, split="test", seed=seed, tells=tells)
    sizes = [len(shapes.vocabularies[name]) for name in shapes.attribute_names]
    loader = Loader(shapes, batch_size=64, seed=seed, device=device)

    def loss(batch: Batch) -> torch.Tensor:
        logits = classifier(batch.image).split(sizes, dim=1)
        return sum(F.cross_entropy(part, truth) for part, truth in zip(logits, batch.attributes.T, strict=True))

    one_cycle = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=3e-3, total_steps=steps)
    history = fit(classifier, loader, loss=loss, steps=steps, optimizer=torch.optim.AdamW, schedule=one_cycle)
    with evaluating(classifier):
        logits = torch.cat([classifier(part.to(device)).cpu() for part in test[:].image.split(500)]).split(sizes, dim=1)
    read = torch.stack([part.argmax(dim=1) for part in logits], dim=1)
    accuracy = (read == test.attributes).float().mean(dim=0).tolist()
    named = zip(test.attribute_names, accuracy, strict=True)
    return history.seconds, {f"{name} of test pictures": round(value, 4) for name, value in named}


def shapes_resnet(seed: int = 0) -> None:
    """The image encoder of ``pretrained_resnet("Shapes")``, trained with a throw-away linear head on all attributes."""
    runtime.seed_everything(seed)
    encoder = ImageEncoder()
    classifier = nn.Sequential(encoder, nn.Linear(encoder.out_dim, 25)).to(runtime.device())
    seconds, metrics = learn_attributes(classifier, seed=seed, n=20_000, steps=500)
    entry = checkpoint.save_pretrained(
        "shapes_resnet", encoder, command="make weights", seed=seed, seconds=seconds, metrics=metrics
    )
    print("shapes_resnet", entry)


def attribute_classifier(seed: int = 1) -> None:
    """What :func:`mmgan_lib.metrics.caption_accuracy` reads pictures with."""
    runtime.seed_everything(seed)
    classifier = AttributeClassifier().to(runtime.device())
    seconds, metrics = learn_attributes(classifier, seed=seed, n=30_000, steps=1500)
    entry = checkpoint.save_pretrained(
        "attribute_classifier", classifier, command="make weights", seed=seed, seconds=seconds, metrics=metrics
    )
    print("attribute_classifier", entry)


@torch.no_grad()
def cover() -> None:
    """The README's picture: sixty digits by the shipped generator."""
    generator = Generator(condition_dim=10, width=32).eval()
    checkpoint.load_pretrained("digits_generator", generator)
    noise = torch.randn(60, generator.latent_dim, generator=torch.Generator().manual_seed(0))
    digits = F.one_hot(torch.arange(60) % 10, 10).float()
    figure, axes = plots.panels(size=(8, 1.25))
    plots.images(axes[0, 0], generator(noise, digits), columns=20)
    (ROOT / "book" / "_static" / "cover.png").write_bytes(plots.png(figure))


RECIPES = {
    "digits_generator": digits_generator,
    "shapes_resnet": shapes_resnet,
    "attribute_classifier": attribute_classifier,
    **painters.RECIPES,
    "cover": cover,
}


if __name__ == "__main__":
    for name in sys.argv[1:] or RECIPES:
        if name not in RECIPES:
            sys.exit(f"There is no recipe {name!r}; expected one of {', '.join(RECIPES)}.")
        RECIPES[name]()
