"""Networks that others trained on far more data than a chapter can: for texts, for images and for voices.

All are frozen: always in eval mode, without gradients, and fed batch by batch, so that any number of samples fits.
"""

from mmgan_lib.encoders.pretrained.image import FrozenImageNetwork, pretrained_efficientnet, pretrained_resnet
from mmgan_lib.encoders.pretrained.sound import FrozenSpeakerEncoder, pretrained_speaker_encoder
from mmgan_lib.encoders.pretrained.text import FrozenBERT, pretrained_bert

__all__ = [
    "FrozenBERT",
    "FrozenImageNetwork",
    "FrozenSpeakerEncoder",
    "pretrained_bert",
    "pretrained_efficientnet",
    "pretrained_resnet",
    "pretrained_speaker_encoder",
]
