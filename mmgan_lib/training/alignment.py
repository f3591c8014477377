"""An encoder that learns to agree with features of another modality."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from mmgan_lib.datasets import Loader
from mmgan_lib.losses import contrastive
from mmgan_lib.training.supervised import History, fit


def align(
    encoder: nn.Module,
    inputs: Sequence[Tensor],
    features: Tensor,
    *,
    steps: int,
    lr: float = 3e-3,
    batch_size: int = 128,
    seed: int = 0,
) -> History:
    """Brings what an encoder reads near to given features of the same samples, by contrast.

    The features stay as they are, those of a frozen image encoder for example; a linear map of them, which is thrown
    away, learns along. It is the *locked-image tuning* of Zhai et al. (2022).

    Args:
        encoder: maps inputs to vectors (B, encoder.out_dim).
        inputs: its arguments for all N samples, each (N, ...), such as tokens and their mask.
        features: (N, F), where the encoder is.
        steps: number of steps.
        lr: the highest learning rate of AdamW, which goes up and down in one cycle.
        batch_size: samples that are told apart in a step.
        seed: of the order of the samples.
    """
    project = nn.Linear(features.shape[1], encoder.out_dim).to(features.device)

    def loss(rows: Tensor) -> Tensor:
        return contrastive(project(features[rows]), encoder(*(x[rows] for x in inputs)))

    return fit(
        nn.ModuleList([encoder, project]),
        Loader(torch.arange(len(features)), batch_size, seed=seed, device=features.device),
        loss=loss,
        steps=steps,
        optimizer=torch.optim.AdamW,
        schedule=partial(OneCycleLR, max_lr=lr, total_steps=steps),
    )
