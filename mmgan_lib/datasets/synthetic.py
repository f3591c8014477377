"""Spoken digits from a speech synthesiser, for where the Free Spoken Digit Dataset cannot be had."""

from __future__ import annotations

import io
import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

from mmgan_lib.datasets.digit_sources import SAMPLE_RATE, Recordings

VOICES = Path(__file__).parent.parent / "data" / "voices.flac"  # with its index, voices.json, beside it


def synthetic_speech(train: bool) -> Recordings:
    """Loads speech that no person spoke: eight voices of the synthesiser espeak-ng say each digit forty times.

    The voices differ in sex, age, accent, microphone, room and loudness, the takes of a voice in rate, pitch,
    intonation, emphasis, loudness and noise. Each sound is followed by silence up to one second. Takes 0–4 of each
    voice and digit are the test split, as in the Free Spoken Digit Dataset: 2,800 sounds to train with and 400 to test
    with. ``tools/voices.py`` made them, and the index beside the sounds says from which voices, with which version of
    espeak-ng and from which seed.

    Raises ValueError unless the sha256 of the sounds is the one that the index names.

    >>> speech = synthetic_speech(train=False)
    >>> speech.waveforms.shape, sorted(set(speech.speakers))[:3]
    (torch.Size([400, 8000]), ['American child', 'American man', 'American woman'])
    """
    import soundfile

    index = json.loads(VOICES.with_suffix(".json").read_bytes())
    content = VOICES.read_bytes()
    if (found := sha256(content).hexdigest()) != index["sha256"]:
        raise ValueError(
            f"{VOICES} is damaged: found {len(content):,} bytes with sha256 {found}, expected {index['sha256']}."
        )
    sound, _ = soundfile.read(io.BytesIO(content), dtype="int16")
    takes = [row for row in index["takes"] if (row[2] >= 5) == train]
    waveforms = np.zeros((len(takes), SAMPLE_RATE), dtype=np.int16)
    for waveform, (_, _, _, start, length) in zip(waveforms, takes, strict=True):
        waveform[:length] = sound[start : start + length]
    digits = torch.tensor([digit for _, digit, *_ in takes])
    speakers = tuple(index["voices"][voice]["name"] for voice, *_ in takes)
    return Recordings(torch.from_numpy(waveforms), digits, speakers)
