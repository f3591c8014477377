"""Encoders of images, texts and sounds: vectors, or sequences of them.

All encoders work alike: ``encoder(x)`` gives a vector for each sample, ``encoder.sequence(x)`` a vector for each place,
word or moment of it, with a mask that tells which of them count. The vector is the mean of the sequence.
"""

from mmgan_lib.encoders.audio import AudioEncoder, LogMel
from mmgan_lib.encoders.base import Encoder, evaluating, masked_mean
from mmgan_lib.encoders.cache import cached_features
from mmgan_lib.encoders.image import ImageEncoder
from mmgan_lib.encoders.pretrained import (
    FrozenBERT,
    FrozenImageNetwork,
    FrozenSpeakerEncoder,
    pretrained_bert,
    pretrained_efficientnet,
    pretrained_resnet,
    pretrained_speaker_encoder,
)
from mmgan_lib.encoders.text import TextEncoder, Vocabulary

__all__ = [
    "AudioEncoder",
    "Encoder",
    "FrozenBERT",
    "FrozenImageNetwork",
    "FrozenSpeakerEncoder",
    "ImageEncoder",
    "LogMel",
    "TextEncoder",
    "Vocabulary",
    "cached_features",
    "evaluating",
    "masked_mean",
    "pretrained_bert",
    "pretrained_efficientnet",
    "pretrained_resnet",
    "pretrained_speaker_encoder",
]
