"""Generators, which turn noise into images, and discriminators, which turn images into logits.

Both may be told what the image should show by a condition, a vector for each image: a class as a one-hot
vector, or the fused representation of a caption and a sound.
"""

from mmgan_lib.gan.augment import brightness, contrast, cutout, diff_augment, saturation, translate
from mmgan_lib.gan.dcgan import ConditionalBatchNorm2d, Discriminator, Generator
from mmgan_lib.gan.heads import Fused, MatchingDiscriminator
from mmgan_lib.gan.image_to_image import ImageToImageGenerator, PatchDiscriminator
from mmgan_lib.gan.projection import ProjectionHead
from mmgan_lib.gan.residual import ResidualBlock, ResidualDiscriminator, ResidualGenerator

__all__ = [
    "ConditionalBatchNorm2d",
    "Discriminator",
    "Fused",
    "Generator",
    "ImageToImageGenerator",
    "MatchingDiscriminator",
    "PatchDiscriminator",
    "ProjectionHead",
    "ResidualBlock",
    "ResidualDiscriminator",
    "ResidualGenerator",
    "brightness",
    "contrast",
    "cutout",
    "diff_augment",
    "saturation",
    "translate",
]
