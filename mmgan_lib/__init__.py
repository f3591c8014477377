"""mmgan_lib: the library behind the book on multimodal learning and GAN image generation.

Modules import only upwards in this list: checks, statistics, runtime, datasets, checkpoint, encoders, fusion, models,
gan, losses, training, metrics, explain, plots, claims. Import what you need from the module that holds it,
for example ``from mmgan_lib.gan import Generator``. Any such import lets PyTorch use one thread, unless the
environment says otherwise: :func:`mmgan_lib.runtime.use_threads` tells why.
"""

from mmgan_lib import runtime

__version__ = "0.2.0"

runtime.use_threads()
