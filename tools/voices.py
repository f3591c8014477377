"""Make again the synthetic speech that the library ships: ``python -m tools.voices``, about a minute on one quiet core.

Eight voices of the synthesiser espeak-ng (on PATH; Debian's package has that name; GPL-3.0, none of it is shipped)
say each digit forty times. No take is like another: espeak-ng varies the rate, the pitch, the intonation and the
emphasis, and the functions here the size of the speaker, the pace within the word, the microphone, the room, the
loudness and the noise. Writes ``mmgan_lib/data/voices.flac``, all takes one after another, and the index
``voices.json`` beside it. The seed and the version of espeak-ng in the index decide every take.
"""

import json
import subprocess
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from numpy.random import Generator, default_rng
from scipy.interpolate import CubicSpline
from scipy.signal import butter, fftconvolve, lfilter, sosfilt, sosfiltfilt

from mmgan_lib.datasets.digit_sources import SAMPLE_RATE
from mmgan_lib.datasets.digits import WORDS

FOLDER = Path(__file__).parent.parent / "mmgan_lib" / "data"
SEED, TAKES = 0, 40
SPOKEN_RATE = 22_050  # Hz, what espeak-ng gives
LONGEST = 0.95  # seconds
STEP = 128  # amplitudes are multiples of it, for FLAC's sake: rounding adds noise of 128 / √12 = 37 to the microphone's


class Voice(NamedTuple):
    """Who speaks, in espeak-ng's terms, and with which equipment."""

    name: str
    language: str  # the accent
    variant: str  # sex, age and timbre
    rate: int  # words a minute
    pitch: int  # 0 to 99
    size: float  # of the speaker: a child's formants lie higher than an adult's
    tilt: float  # of the microphone, -1 to 1: dull to sharp
    room: float  # seconds until its echoes have lost 60 dB
    level: float  # of the loudest moment, in dB of full scale
    noise: float  # of the microphone, standard deviation in units of 16 bits


VOICES = (
    Voice("American man", "en-us", "m3", 165, 50, 1.00, tilt=-0.3, room=0.10, level=-6, noise=100),
    Voice("American woman", "en-us", "f2", 205, 45, 1.00, tilt=0.1, room=0.15, level=-10, noise=120),
    Voice("American child", "en-us", "f5", 170, 75, 0.86, tilt=0.0, room=0.08, level=-14, noise=70),
    Voice("English man", "en-gb-x-rp", "m7", 160, 45, 0.97, tilt=0.3, room=0.20, level=-18, noise=60),
    Voice("English woman", "en-gb-x-rp", "f4", 230, 40, 1.02, tilt=-0.2, room=0.06, level=-8, noise=180),
    Voice("Scottish man", "en-gb-scotland", "m1", 155, 35, 1.05, tilt=0.0, room=0.25, level=-12, noise=90),
    Voice("Lancashire woman", "en-gb-x-gbclan", "f1", 175, 55, 0.96, tilt=0.4, room=0.10, level=-16, noise=70),
    Voice("Caribbean man", "en-029", "m8", 165, 55, 1.08, tilt=0.2, room=0.14, level=-5, noise=150),
)


def version() -> str:
    """The version of espeak-ng, such as 1.51."""
    says = subprocess.run(["espeak-ng", "--version"], capture_output=True, text=True, check=True).stdout
    return says.split("Data at")[0].split(":")[1].strip()


def say(word: str, voice: Voice, rng: Generator) -> np.ndarray:
    """One word as espeak-ng speaks it, without the silence around it: (S,) at 22,050 Hz."""
    rate = voice.rate * np.exp(np.clip(rng.normal(0, 0.16), -0.3, 0.5))
    pitch = np.clip(voice.pitch + rng.normal(0, 12), 0, 99)
    lively = rng.integers(40, 180)  # how far the voice moves up and down, percent
    word += rng.choice([".", ",", "!", "?"], p=[0.45, 0.2, 0.2, 0.15])  # each has its own intonation
    if rng.random() < 0.2:
        word = f'<emphasis level="strong">{word}</emphasis>'
    spoken = f'<prosody range="{lively}%">{word}</prosody>'
    command = ["espeak-ng", "-v", f"{voice.language}+{voice.variant}", "-s", f"{rate:.0f}", "-p", f"{pitch:.0f}"]
    wav = subprocess.run([*command, "-z", "-m", "--stdout", spoken], capture_output=True, check=True).stdout
    return trim(np.frombuffer(wav[44:], "<i2") / 2**15)


def trim(sound: np.ndarray, below: float = 0.003) -> np.ndarray:
    """The sound from the first to the last moment that reaches a share of its peak."""
    loud = np.flatnonzero(np.abs(sound) > below * np.abs(sound).max())
    return sound[loud[0] : loud[-1] + 1]


def resize(sound: np.ndarray, voice: Voice, rng: Generator) -> np.ndarray:
    """The word at 8 kHz, by a speaker of another size, and with a pace that wanders a little: (S,)."""
    size = voice.size * np.exp(rng.normal(0, 0.02))
    low = sosfiltfilt(butter(8, 3600 / size, fs=SPOKEN_RATE, output="sos"), sound)
    seconds = size * len(sound) / SPOKEN_RATE
    t = np.linspace(0, 1, int(seconds * SAMPLE_RATE))
    bend = rng.normal(0, 0.03) * np.sin(np.pi * t) + rng.normal(0, 0.015) * np.sin(2 * np.pi * t)
    return CubicSpline(np.arange(len(low)), low)((t + bend).clip(0, 1) * (len(low) - 1))


def record(sound: np.ndarray, voice: Voice, rng: Generator) -> np.ndarray:
    """The word in a room, through a microphone: (S,) int16."""
    decay = voice.room * np.exp(rng.normal(0, 0.2))
    t = np.arange(int(decay * SAMPLE_RATE)) / SAMPLE_RATE
    echo = rng.normal(size=len(t)) * 10 ** (-3 * t / decay)
    echo[: SAMPLE_RATE // 500] = 0  # the nearest wall
    echo *= 10 ** (rng.uniform(-25, -3) / 20) / np.linalg.norm(echo)
    echo[0] = 1
    heard = fftconvolve(sound, echo)
    tilt = np.clip(voice.tilt + rng.normal(0, 0.1), -0.8, 0.8)
    heard = sosfilt(butter(2, 90, "high", fs=SAMPLE_RATE, output="sos"), lfilter([1, -tilt], [1], heard))
    heard = trim(heard, below=0.01)
    heard = np.pad(heard, rng.integers(0, SAMPLE_RATE // 25, size=2))  # quiet before and after the word
    peak = 2**15 * 10 ** (min(voice.level + rng.normal(0, 3), -1.5) / 20)
    hiss = rng.normal(size=len(heard)) * voice.noise * np.exp(rng.normal(0, 0.5))
    heard = heard * (peak / np.abs(heard).max()) + hiss
    return (STEP * np.round(heard / STEP)).astype(np.int16)


def take(voice: int, digit: int, number: int) -> np.ndarray:
    """One take of a digit, (S,) int16 at 8 kHz. Raises ValueError if the word is too long for a second."""
    rng = default_rng([SEED, voice, digit, number])
    sound = record(resize(say(WORDS[digit], VOICES[voice], rng), VOICES[voice], rng), VOICES[voice], rng)
    if len(sound) > LONGEST * SAMPLE_RATE:
        seconds = len(sound) / SAMPLE_RATE
        raise ValueError(f"{VOICES[voice].name} takes {seconds:.2f} s to say {WORDS[digit]} (take {number}).")
    return sound


def main() -> None:
    """Write the takes and their index."""
    FOLDER.mkdir(exist_ok=True)
    rows, sounds, start = [], [], 0
    for number in range(TAKES):
        for voice in range(len(VOICES)):
            for digit in range(len(WORDS)):
                sounds.append(take(voice, digit, number))
                rows.append([voice, digit, number, start, len(sounds[-1])])
                start += len(sounds[-1])
    flac = FOLDER / "voices.flac"
    soundfile.write(flac, np.concatenate(sounds), SAMPLE_RATE, subtype="PCM_16", compression_level=1.0)
    index = {
        "command": "python -m tools.voices",
        "made with": f"espeak-ng {version()}",
        "seed": SEED,
        "sha256": sha256(flac.read_bytes()).hexdigest(),
        "voices": [voice._asdict() for voice in VOICES],
        "columns": ["voice", "digit", "take", "start", "length"],
        "takes": rows,
    }
    (FOLDER / "voices.json").write_text(json.dumps(index, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
