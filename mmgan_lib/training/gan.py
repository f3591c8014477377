"""The training loop of a GAN: two networks that play against each other."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmgan_lib.checks import check_players
from mmgan_lib.losses import clip_weights
from mmgan_lib.training.acceleration import accelerated
from mmgan_lib.training.config import GANConfig
from mmgan_lib.training.gan_state import GANHistory, GANRun
from mmgan_lib.training.step import Condition, discriminator_loss, generator_loss, optimizer_step, players_inputs

if TYPE_CHECKING:
    from accelerate import Accelerator

    from mmgan_lib.datasets import Loader


def fit_gan(
    generator: nn.Module,
    discriminator: nn.Module,
    loader: Loader,
    config: GANConfig,
    *,
    condition: Condition | None = None,
    augment: Callable[[Tensor], Tensor] | None = None,
    watch: Callable[[int, nn.Module, nn.Module], Any] | None = None,
    watch_at: Collection[int] = (),
    folder: str | Path | None = None,
    resume: bool = False,
    accelerator: Accelerator | None = None,
) -> GANHistory:
    r"""Trains a generator and a discriminator against each other (Goodfellow et al., 2014).

    The noise comes from PyTorch's global random numbers: seed them with
    :func:`mmgan_lib.runtime.seed_everything`.

    With an ``accelerator`` (``pip install accelerate``) several processes train as one would on their joint batch,
    which ``loader`` gives. A script that passes ``accelerator=Accelerator(cpu=True)`` runs on two processes with
    ``torchrun --nproc-per-node 2 SCRIPT``; for GPUs leave ``cpu`` out and move the networks to ``accelerator.device``.
    Each process has a slice of the batch and of the noise. Whatever else is random for each sample (``augment``,
    dropout, the points of the gradient penalty) it draws for its slice alone, and BatchNorm sees that slice alone: make
    it ``torch.nn.SyncBatchNorm`` on GPUs, else keep the main process's networks.

    Args:
        generator: maps noise (B, generator.latent_dim) and the condition to samples; it is put in train mode. Without
            a ``latent_dim`` it maps the condition alone.
        discriminator: maps samples and the condition to logits (B,); it is put in train mode.
        loader: ``loader.batch(i)`` gives the i-th :class:`Batch` of images, or tensor of samples, of the noise's type.
        condition: maps a batch to what the players are told: a tensor, or a tuple of them. It follows the noise in the
            generator's arguments and the samples in the discriminator's: G(z, \*condition), D(x, \*condition).
        augment: what every sample, real or fake, goes through before the discriminator sees it, such as
            :func:`mmgan_lib.gan.diff_augment`; the generator learns through it, so it has to be differentiable.
        watch: called as ``watch(step, averaged_generator, discriminator)``, without gradients, once ``step`` steps
            are done; what it returns is kept in ``history.watched``, the frames of a film, with its tensors copied to
            the CPU. With a ``folder`` that has to be tensors, numbers, strings, and containers of them.
        watch_at: the steps, 0 to ``config.steps``, at which to watch.
        folder: where to keep checkpoints.
        resume: go on from the newest checkpoint in ``folder``; on the CPU the result is the same, bit for bit, as
            that of a run that never stopped.
        accelerator: whose processes share the work; only the main one watches, shows progress and saves, and all of
            them have to see ``folder``.

    Raises:
        DivergedError: a loss is not finite, or larger than a million.
        ValueError: a bad argument, ``folder`` holds another run, or a batch cannot be shared equally.
        mmgan_lib.checkpoint.CheckpointError: the newest checkpoint is damaged.
    """
    check_players(generator, discriminator, condition)
    see, loss = augment or nn.Identity(), config.game
    fast_generator, fast_discriminator = accelerated(generator, discriminator, steps=config.steps)
    options = {"watch": watch, "watch_at": watch_at, "folder": folder, "resume": resume, "accelerator": accelerator}
    run = GANRun(generator.train(), discriminator.train(), loader, config, **options)
    for step in run.loop("GAN"):
        # The discriminator learns to tell real from fake.
        for turn in range(config.n_critic):
            batch = loader.batch(step * config.n_critic + turn).to(run.device)
            real, inputs, told = players_inputs(batch, generator, condition, share=run.processes.share)
            with torch.set_grad_enabled(turn == config.n_critic - 1):  # only the last fakes train the generator
                real_seen, fake = see(real), fast_generator(*inputs)
                fake_seen = see(fake)
            samples = {"real": real_seen, "fake": fake_seen, "condition": told}
            d_loss = discriminator_loss(fast_discriminator, loss, **samples, penalties=config.penalties, step=step)
            optimizer_step(run.optimizers["discriminator"], d_loss)
            if config.weight_clip is not None:
                clip_weights(discriminator, config.weight_clip)

        # The generator learns to make fakes that pass for real.
        g_loss = generator_loss(fast_discriminator, loss, **samples)
        for penalty in config.generator_penalties:
            g_loss = g_loss + penalty(real=real, fake=fake)
        optimizer_step(run.optimizers["generator"], g_loss)

        # The bookkeeping: the running average, the losses, checkpoints.
        run.record(d_loss, g_loss)
    return run.history()
