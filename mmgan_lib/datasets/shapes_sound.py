"""The sounds of ``Shapes``: a short tone with a pitch, a timbre, a loudness and a rhythm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor

SAMPLE_RATE = 8000  # Hz
SAMPLES = 4000  # half a second
STEPS = 9  # each aspect is a scale of so many steps
NEUTRAL = STEPS // 2  # where on its scale an aspect is that tells nothing
DRAWS = 6  # random numbers that a sound takes, besides its noise

PITCHES = tuple(round(247 * 2 ** (step / 6), 2) for step in range(STEPS))  # Hz: the whole-tone scale above B3
PARTIALS = (  # how strong the fundamental and its overtones are, for each timbre; all stay below 4 kHz
    (1.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    (1.0, 0.8, 0.0, 0.0, 0.0, 0.0),
    (1.0, 0.0, 0.8, 0.0, 0.0, 0.0),
    (1.0, 0.0, 0.0, 0.8, 0.0, 0.0),
    (1.0, 0.0, 0.6, 0.0, 0.6, 0.0),
    (1.0, 0.0, 0.0, 0.0, 0.0, 0.8),
    (1.0, 0.8, 0.6, 0.0, 0.0, 0.0),
    (1.0, 0.6, 0.0, 0.6, 0.0, 0.6),
    (1.0, 0.8, 0.7, 0.6, 0.5, 0.4),
)
LEVELS = tuple(round(0.25 * 10 ** (2.5 * (step + 1 - STEPS) / 20), 4) for step in range(STEPS))  # RMS, 2.5 dB apart
ASPECTS = ("pitch", "timbre", "loudness", "rhythm")

TURN_BITS = 20  # a whole turn of the phase is the integer 2**20
TABLE_BITS = 12  # the table of one period has 2**12 entries


def synthesise(draws: Tensor, noise: Tensor, steps: Mapping[str, Tensor]) -> Tensor:
    """Synthesises sounds (B, 4000) int16, half a second at 8 kHz.

    An integer counts the phase, and a table of one period turns it into a value: the direct digital synthesis of
    Tierney, Rader & Gold (1971). Sample t of a tone of f Hz reads the table at turn φ + f·t/8000. Integers, and the
    operations that IEEE 754 rounds alike everywhere, make the same sound on every machine.

    Args:
        draws: (B, DRAWS) float32 in [0, 1): how far from the exact pitch, timbre and loudness (±1%, up to 30% towards
            a pure tone, ±6%), the phase, when the beats fall, how much noise.
        noise: (B, 4000) float32 in [-1, 1].
        steps: (B,) int64 in 0…8 for those of pitch, timbre, loudness and rhythm (one more beat than its step) that
            tell something. An aspect that is missing here is neutral: step 4.
    """
    detune, phase, purity, swell, offset, hiss = draws.T[..., None]
    pitch, timbre, loudness, rhythm = (steps.get(name, torch.full((len(draws),), NEUTRAL))[:, None] for name in ASPECTS)
    t = torch.arange(SAMPLES, dtype=torch.int32)

    hertz = torch.tensor(PITCHES)[pitch] * (0.99 + 0.02 * detune)
    turns = (phase * 2**TURN_BITS).int() + (hertz * (2**TURN_BITS / SAMPLE_RATE)).int() * t
    entry = (turns >> (TURN_BITS - TABLE_BITS)) & (2**TABLE_BITS - 1)
    rich, pure = _read(timbre, entry), _read(torch.zeros_like(timbre), entry)
    tone = rich + 0.3 * purity * (pure - rich)

    beat = t / SAMPLES * (rhythm + 1) + offset
    beat = beat - beat.floor()  # 0 where a beat begins, 1 where it ends
    envelope = (20 * beat).clamp(max=1) * (1 - beat).square()

    level = torch.tensor(LEVELS)[loudness] * (0.94 + 0.12 * swell)
    waveform = level * envelope * tone + 0.005 * hiss * noise
    return (waveform * 32767).round().short()


def _read(timbre: Tensor, entry: Tensor) -> Tensor:
    """Reads the tables of ``timbre`` (B, 1) at ``entry`` (B, S)."""
    return _tables().index_select(0, ((timbre << TABLE_BITS).int() + entry).flatten()).view(entry.shape)


@cache
def _tables() -> Tensor:
    """Computes one period of each timbre at an RMS of 1, one after another: (STEPS · 2**TABLE_BITS,) float32.

    A sine and its overtones: Σ a_k sin 2πkt / √(½ Σ a_k²). The sine is rounded to 16 bits, so that the last bit of a
    machine's own sine does not matter.
    """
    entries = 2**TABLE_BITS
    t = torch.arange(entries)
    sine = torch.tensor([round(32767 * math.sin(2 * math.pi * i / entries)) for i in range(entries)]) / 32767
    tables = [
        sum(a * sine[k * t % entries] for k, a in enumerate(strengths, start=1))
        / math.sqrt(sum(a * a for a in strengths) / 2)
        for strengths in PARTIALS
    ]
    return torch.cat(tables)
