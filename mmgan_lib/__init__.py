"""mmgan_lib: the library behind the book on multimodal learning and GAN image generation.

Modules import only upwards in this list: checks, statistics, runtime, datasets, checkpoint, encoders, fusion, models,
gan, losses, training, metrics, explain, plots, claims. Import what you need from the module that holds it,
for example ``from mmgan_lib.gan import Generator``.
"""

__version__ = "0.1.0"
