"""The recipes of the chapter on multimodal generation: encoders of captions and sounds, and two generators.

Run them with ``python -m tools.weights NAME``.
"""

import time
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgan_lib import checkpoint, runtime
from mmgan_lib.datasets import HELD_OUT_PAIRS, Batch, Loader, Shapes
from mmgan_lib.encoders import AudioEncoder, Encoder, LogMel, TextEncoder, Vocabulary, evaluating, pretrained_resnet
from mmgan_lib.fusion import FUSIONS, modality_dropout
from mmgan_lib.gan import Discriminator, Generator
from mmgan_lib.losses import GAN_LOSSES, GANLoss, contrastive
from mmgan_lib.metrics import caption_accuracy
from mmgan_lib.training import GANConfig, fit_gan

EVERYTHING, ALL_BUT_COLOUR = ("shape", "colour", "size", "place"), ("shape", "size", "place")
DIM = 64  # of every condition


class MatchingDiscriminator(Discriminator):
    """Judges each picture with its own condition, (0, B), and with its neighbour's, (1, B)."""

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        """Maps pictures (B, C, H, W) and conditions (B, D) to logits (2, B)."""
        features = self.features(image)
        logit = self.head(features).squeeze(1)
        asked = self.projection(condition)
        return torch.stack([logit + (c * features).sum(dim=1) for c in (asked, asked.roll(1, dims=0))])


def matching_discriminator(*, real: Tensor, fake: Tensor) -> Tensor:
    """The hinge loss, with half of the fakes real pictures under a wrong caption (after Reed et al., 2016)."""
    return F.relu(1 - real[0]).mean() + 0.5 * F.relu(1 + fake[0]).mean() + 0.5 * F.relu(1 + real[1]).mean()


def matching_generator(*, real: Tensor | None = None, fake: Tensor) -> Tensor:
    """Raises the score under the right caption."""
    return -fake[0].mean()


class Fused(nn.Module):
    """A player that fuses its condition first: the vectors of caption and sound, and which of them are there."""

    def __init__(self, fusion: nn.Module, player: nn.Module) -> None:
        super().__init__()
        self.fusion, self.player = fusion, player
        self.latent_dim = getattr(player, "latent_dim", None)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Whatever the player makes of x (B, ...) and of the condition (B, 2 · DIM + 2) once it is fused."""
        caption, sound, there = condition.split([DIM, DIM, 2], dim=1)
        return self.player(x, self.fusion([caption, sound], there.bool()))


def scenes(seed: int, split: str = "train") -> dict[str, Shapes]:
    """The same scenes three times: fully captioned, captioned without the colour, and with the colour as a pitch."""
    tells = {
        "full": {"image": EVERYTHING, "text": EVERYTHING},
        "silent": {"text": ALL_BUT_COLOUR},
        "sound": {"audio": {"colour": "pitch"}},
    }
    n = 20_000 if split == "train" else 2000
    return {name: Shapes(n, split=split, seed=seed, tells=t, held_out=HELD_OUT_PAIRS) for name, t in tells.items()}


def architecture(captions: Sequence[str]) -> nn.ModuleDict:
    """The two encoders, untrained; the captions hold every word that there is."""
    text = TextEncoder(Vocabulary.of(captions), DIM, width=96)
    return nn.ModuleDict({"text": text, "sound": AudioEncoder(DIM, width=8)})


@torch.no_grad()
def spectrograms(waves: Tensor) -> Tensor:
    """Waves (N, S) as log-mel spectrograms (N, 1, mels, frames)."""
    return torch.cat([LogMel()(part) for part in waves.split(1000)])


def align(encoder: Encoder, inputs: Sequence[Tensor], pictures: Tensor, *, steps: int, seed: int) -> None:
    """Teach an encoder to bring what it reads near to the features (N, 128) of the picture, by contrast."""
    project = nn.Linear(pictures.shape[1], encoder.out_dim)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *project.parameters()])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    loader = Loader(torch.arange(len(pictures)), batch_size=128, seed=seed)
    for step in range(steps):
        rows = loader.batch(step)
        loss = contrastive(project(pictures[rows]), encoder(*(x[rows] for x in inputs)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def shapes_encoders(seed: int = 0) -> None:
    """Encoders of captions and sounds, each brought near to what the frozen ResNet makes of the picture."""
    runtime.seed_everything(seed)
    train, start = scenes(seed), time.perf_counter()
    captions = train["full"].text + train["silent"].text
    encoders = architecture(captions)
    with torch.no_grad():
        pictures = pretrained_resnet("Shapes")(train["full"][:].image)
    align(encoders["text"], encoders["text"].encode_text(captions), pictures.repeat(2, 1), steps=1500, seed=seed)
    align(encoders["sound"], [spectrograms(train["sound"][:].wave)], pictures, steps=400, seed=seed)
    seconds = time.perf_counter() - start
    (scene, known), (new_scene, new) = (
        conditions_of(encoders, split, seed, caption="full") for split in ("train", "test")
    )
    metrics = {}
    for column, name in enumerate(EVERYTHING):
        classes = scene.attributes[:, column], new_scene.attributes[:, column]
        metrics[f"{name} by nearest mean, test captions"] = nearest_mean(known[:, :DIM], new[:, :DIM], *classes)
        if name == "colour":
            metrics["colour by nearest mean, test sounds"] = nearest_mean(known[:, DIM:], new[:, DIM:], *classes)
    save("shapes_encoders", encoders, seed=seed, seconds=seconds, metrics=metrics)


def nearest_mean(known: Tensor, new: Tensor, classes: Tensor, true: Tensor) -> float:
    """How often the class whose known vectors have the nearest mean is the true one of a new vector."""
    means = torch.stack([known[classes == k].mean(dim=0) for k in range(int(classes.max()) + 1)])
    return round((torch.cdist(new, means).argmin(dim=1) == true).float().mean().item(), 4)


def read(encoder: Encoder, inputs: Sequence[Tensor]) -> Tensor:
    """Vectors (N, DIM) of length 2."""
    parts = zip(*(x.split(500) for x in inputs), strict=True)
    with evaluating(encoder):
        return 2 * F.normalize(torch.cat([encoder(*part) for part in parts]), dim=1)


def conditions(split: str, seed: int, *, caption: str) -> tuple[Batch, Tensor]:
    """What :func:`conditions_of` gives for the encoders that ship."""
    train = scenes(seed)
    encoders = architecture(train["full"].text + train["silent"].text)
    checkpoint.load_pretrained("shapes_encoders", encoders)
    return conditions_of(encoders, split, seed, caption=caption)


def conditions_of(encoders: nn.ModuleDict, split: str, seed: int, *, caption: str) -> tuple[Batch, Tensor]:
    """Pictures of a split, numbered by ``label``, and for each the vectors of its caption and of its sound."""
    data = scenes(seed, split)
    text = read(encoders["text"], encoders["text"].encode_text(data[caption].text))
    sound = read(encoders["sound"], [spectrograms(data["sound"][:].wave)])
    batch = data["full"][:]
    pictures = Batch(image=batch.image, attributes=batch.attributes, label=torch.arange(len(text)))
    return pictures, torch.cat([text, sound], dim=1)


def paint(
    name: str,
    players: Callable[[], tuple[nn.Module, nn.Module]],
    *,
    caption: str,
    condition: Callable[[Tensor], Tensor],
    shown: Mapping[str, tuple[str, Callable[[Tensor], Tensor]]],
    steps: int,
    seed: int,
) -> None:
    """Train a generator, and measure it on splits: ``shown`` maps the name of a measurement to split and condition."""
    GAN_LOSSES["matching"] = GANLoss(matching_discriminator, matching_generator)
    device = runtime.device()
    train, vectors = conditions("train", seed, caption=caption)
    vectors = vectors.to(device)
    runtime.seed_everything(seed)
    generator, discriminator = (player.to(device) for player in players())
    loader = Loader(train, batch_size=32, seed=seed, device=device)
    config = GANConfig(steps=steps, loss="matching", lr=1e-3, betas=(0.0, 0.99))
    history = fit_gan(generator, discriminator, loader, config, condition=lambda batch: condition(vectors[batch.label]))

    metrics = {}
    for measured, (split, condition_of) in shown.items():
        asked, told = conditions(split, seed, caption=caption)
        given = condition_of(told).to(device)
        noise = torch.randn(len(given), generator.latent_dim, device=device)
        with torch.no_grad():
            parts = zip(noise.split(500), given.split(500), strict=True)
            drawn = torch.cat([history.ema(z, c) for z, c in parts])
        right = caption_accuracy(drawn=drawn, asked=asked.attributes)
        metrics |= {f"{attribute}, {measured}": round(score.value, 4) for attribute, score in right.items()}
    save(name, history.ema, seed=seed, seconds=history.seconds, metrics=metrics)


def text_to_image(seed: int = 0) -> None:
    """Full captions to pictures."""

    def players() -> tuple[nn.Module, nn.Module]:
        generator = Generator(32, condition_dim=DIM, channels=3, width=24)
        return generator, MatchingDiscriminator(condition_dim=DIM, channels=3, width=24)

    def caption(vectors: Tensor) -> Tensor:
        return vectors[:, :DIM]

    shown = {"test captions": ("test", caption), "held-out pairs": ("held_out", caption)}
    paint("text_to_image", players, caption="full", condition=caption, shown=shown, steps=8000, seed=seed)


def text_sound_to_image(seed: int = 0) -> None:
    """Captions silent about the colour, and sounds that tell it, to pictures; either may be missing."""

    def players() -> tuple[nn.Module, nn.Module]:
        generator = Generator(32, condition_dim=DIM, channels=3, width=24)
        discriminator = MatchingDiscriminator(condition_dim=DIM, channels=3, width=24)
        return tuple(Fused(FUSIONS["gated"]([DIM, DIM], DIM), player) for player in (generator, discriminator))

    def known(*there: bool) -> Callable[[Tensor], Tensor]:
        return lambda vectors: torch.cat([vectors, torch.tensor([there]).expand(len(vectors), 2)], dim=1)

    def dropped(vectors: Tensor) -> Tensor:
        there = torch.ones(len(vectors), 2, dtype=torch.bool, device=vectors.device)
        return torch.cat([vectors, modality_dropout(there, 0.2)], dim=1)

    shown = {
        "caption and sound": ("test", known(True, True)),
        "held-out pairs": ("held_out", known(True, True)),
        "caption alone": ("test", known(True, False)),
        "sound alone": ("test", known(False, True)),
    }
    paint("text_sound_to_image", players, caption="silent", condition=dropped, shown=shown, steps=8000, seed=seed)


def save(name: str, module: nn.Module, *, seed: int, seconds: float, metrics: Mapping[str, float]) -> None:
    """Ship what a recipe made, and say how good it is."""
    command = f"python -m tools.weights {name}"
    print(name, checkpoint.save_pretrained(name, module, command=command, seed=seed, seconds=seconds, metrics=metrics))


RECIPES = {
    "shapes_encoders": shapes_encoders,
    "text_to_image": text_to_image,
    "text_sound_to_image": text_sound_to_image,
}
