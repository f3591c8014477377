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
from mmgan_lib.gan import Fused, Generator, MatchingDiscriminator
from mmgan_lib.losses import MATCHING_AWARE
from mmgan_lib.metrics import caption_accuracy
from mmgan_lib.training import GANConfig, align, fit_gan

EVERYTHING, ALL_BUT_COLOUR = ("shape", "colour", "size", "place"), ("shape", "size", "place")
DIM = 64  # of every condition
Condition = Callable[[Batch], tuple[Tensor, ...]]


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
def spectrograms(waveforms: Tensor) -> Tensor:
    """Waves (N, S) as log-mel spectrograms (N, 1, mels, frames)."""
    return torch.cat([LogMel()(part) for part in waveforms.split(1000)])


def shapes_encoders(seed: int = 0) -> None:
    """Encoders of captions and sounds, each brought near to what the frozen ResNet makes of the picture."""
    runtime.seed_everything(seed)
    train, start = scenes(seed), time.perf_counter()
    captions = train["full"].text + train["silent"].text
    encoders = architecture(captions)
    with torch.no_grad():
        pictures = pretrained_resnet("Shapes")(train["full"][:].image)
    tokens = encoders["text"].encode_text(captions)
    align(encoders["text"], tokens, pictures.repeat(2, 1), steps=1500, seed=seed)
    align(encoders["sound"], [spectrograms(train["sound"][:].waveform)], pictures, steps=400, seed=seed)
    seconds = time.perf_counter() - start
    known, new = (told(encoders, split, seed, caption="full") for split in ("train", "test"))
    metrics = {}
    for column, name in enumerate(EVERYTHING):
        classes = known.attributes[:, column], new.attributes[:, column]
        metrics[f"{name} by nearest mean, test captions"] = nearest_mean(known.caption, new.caption, *classes)
        if name == "colour":
            metrics["colour by nearest mean, test sounds"] = nearest_mean(known.sound, new.sound, *classes)
    save("shapes_encoders", encoders, seed=seed, seconds=seconds, metrics=metrics)


def nearest_mean(known: Tensor, new: Tensor, classes: Tensor, true: Tensor) -> float:
    """The share of new vectors whose class is that of the nearest mean of known ones."""
    means = torch.stack([known[classes == k].mean(dim=0) for k in range(int(classes.max()) + 1)])
    return round((torch.cdist(new, means).argmin(dim=1) == true).float().mean().item(), 4)


def read(encoder: Encoder, inputs: Sequence[Tensor]) -> Tensor:
    """Vectors (N, DIM) of length 2."""
    parts = zip(*(x.split(500) for x in inputs), strict=True)
    with evaluating(encoder):
        return 2 * F.normalize(torch.cat([encoder(*part) for part in parts]), dim=1)


def shipped(split: str, seed: int, *, caption: str) -> Batch:
    """The same as :func:`told`, by the encoders that ship."""
    train = scenes(seed)
    encoders = architecture(train["full"].text + train["silent"].text)
    checkpoint.load_pretrained("shapes_encoders", encoders)
    return told(encoders, split, seed, caption=caption)


def told(encoders: nn.ModuleDict, split: str, seed: int, *, caption: str) -> Batch:
    """Pictures of a split, and for each the vectors of its caption and of its sound (N, DIM)."""
    data = scenes(seed, split)
    text = read(encoders["text"], encoders["text"].encode_text(data[caption].text))
    sound = read(encoders["sound"], [spectrograms(data["sound"][:].waveform)])
    batch = data["full"][:]
    return Batch(image=batch.image, attributes=batch.attributes, caption=text, sound=sound)


def paint(
    name: str,
    players: Callable[[], Sequence[nn.Module]],
    *,
    caption: str,
    condition: Condition,
    shown: Mapping[str, tuple[str, Condition]],
    steps: int,
    seed: int,
) -> None:
    """Train a generator, and measure it on splits: ``shown`` maps the name of a measurement to split and condition."""
    device = runtime.device()
    loader = Loader(shipped("train", seed, caption=caption), batch_size=32, seed=seed, device=device)
    runtime.seed_everything(seed)
    generator, discriminator = (player.to(device) for player in players())
    config = GANConfig(steps=steps, loss=MATCHING_AWARE, lr=1e-3, betas=(0.0, 0.99))
    history = fit_gan(generator, discriminator, loader, config, condition=condition)

    metrics = {}
    for measured, (split, condition_of) in shown.items():
        asked = shipped(split, seed, caption=caption)
        given = [x.to(device) for x in condition_of(asked)]
        noise = torch.randn(len(asked), generator.latent_dim, device=device)
        with torch.no_grad():
            parts = zip(*(x.split(500) for x in (noise, *given)), strict=True)
            drawn = torch.cat([history.ema(*part) for part in parts])
        right = caption_accuracy(drawn=drawn, asked=asked.attributes)
        metrics |= {f"{attribute}, {measured}": round(score.value, 4) for attribute, score in right.items()}
    save(name, history.ema, seed=seed, seconds=history.seconds, metrics=metrics)


def players() -> tuple[nn.Module, nn.Module]:
    """A generator and a discriminator of pictures, told by a vector (B, DIM)."""
    options = {"condition_dim": DIM, "channels": 3, "width": 24}
    return Generator(32, **options), MatchingDiscriminator(**options)


def text_to_image(seed: int = 0) -> None:
    """Full captions to pictures."""

    def caption(batch: Batch) -> tuple[Tensor]:
        return (batch.caption,)

    shown = {"test captions": ("test", caption), "held-out pairs": ("held_out", caption)}
    paint("text_to_image", players, caption="full", condition=caption, shown=shown, steps=8000, seed=seed)


def text_sound_to_image(seed: int = 0) -> None:
    """Captions silent about the colour, and sounds that tell it, to pictures; either may be missing."""

    def fused() -> list[nn.Module]:
        return [Fused(FUSIONS["gated"]([DIM, DIM], DIM), player) for player in players()]

    def known(*there: bool) -> Condition:
        return lambda batch: (batch.caption, batch.sound, torch.tensor([there]).expand(len(batch), 2))

    def dropped(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        there = torch.ones(len(batch), 2, dtype=torch.bool, device=batch.device)
        return batch.caption, batch.sound, modality_dropout(there, 0.2)

    shown = {
        "caption and sound": ("test", known(True, True)),
        "held-out pairs": ("held_out", known(True, True)),
        "caption alone": ("test", known(True, False)),
        "sound alone": ("test", known(False, True)),
    }
    paint("text_sound_to_image", fused, caption="silent", condition=dropped, shown=shown, steps=8000, seed=seed)


def save(name: str, module: nn.Module, *, seed: int, seconds: float, metrics: Mapping[str, float]) -> None:
    """Ship what a recipe made, and say how good it is."""
    command = f"python -m tools.weights {name}"
    print(name, checkpoint.save_pretrained(name, module, command=command, seed=seed, seconds=seconds, metrics=metrics))


RECIPES = {
    "shapes_encoders": shapes_encoders,
    "text_to_image": text_to_image,
    "text_sound_to_image": text_sound_to_image,
}
