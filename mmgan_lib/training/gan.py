"""Two networks that play against each other."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from mmgan_lib import checkpoint
from mmgan_lib.datasets import Batch, Loader
from mmgan_lib.losses import GAN_LOSSES, clip_weights, gradient_penalty, r1, r2
from mmgan_lib.training.config import GANConfig
from mmgan_lib.training.processes import Processes
from mmgan_lib.training.run import CHECK_EVERY, Run, aside, descend

if TYPE_CHECKING:
    from accelerate import Accelerator

COMPILE_FROM = 10_000  # steps from which torch.compile earns back its minute on a GPU


@dataclass
class GANHistory:
    """What a run of :func:`fit_gan` leaves behind.

    Attributes:
        discriminator_loss: (steps,) its loss at each step, penalties included.
        generator_loss: (steps,) its loss at each step.
        seconds: time spent in the loop, over all resumed parts.
        images_per_second: real samples that the discriminator saw in a second.
        watched: step → what ``watch`` returned there.
        ema: a copy of the generator with averaged weights, in eval mode: the one to sample from.
    """

    discriminator_loss: Tensor
    generator_loss: Tensor
    seconds: float
    images_per_second: float
    watched: dict[int, Any] = field(repr=False)
    ema: nn.Module = field(repr=False)


def fit_gan(
    generator: nn.Module,
    discriminator: nn.Module,
    loader: Loader,
    config: GANConfig,
    *,
    condition: Callable[[Batch], Tensor] | None = None,
    augment: Callable[[Tensor], Tensor] | None = None,
    watch: Callable[[int, nn.Module, nn.Module], Any] | None = None,
    watch_at: Collection[int] = (),
    folder: str | Path | None = None,
    resume: bool = False,
    accelerator: Accelerator | None = None,
) -> GANHistory:
    """Train a generator and a discriminator against each other (Goodfellow et al., 2014).

    The noise comes from PyTorch's global random numbers: seed them with
    :func:`mmgan_lib.runtime.seed_everything`.

    With an ``accelerator`` (``pip install accelerate``) several processes train as one would on their joint batch,
    which ``loader`` gives. A script that passes ``accelerator=Accelerator(cpu=True)`` runs on two processes with
    ``torchrun --nproc-per-node 2 SCRIPT``; for GPUs leave ``cpu`` out and move the networks to ``accelerator.device``.
    Each process has a slice of the batch and of the noise. Whatever else is random for each sample (``augment``,
    dropout, the points of the gradient penalty) it draws for its slice alone, and BatchNorm sees that slice alone: make
    it ``torch.nn.SyncBatchNorm`` on GPUs, else keep the main process's networks.

    Args:
        generator: maps noise (B, generator.latent_dim), and a condition where there is one, to samples; it is put in
            train mode.
        discriminator: maps samples, and a condition where there is one, to logits (B,); it is put in train mode.
        loader: ``loader.batch(i)`` gives the i-th :class:`Batch` of images, or tensor of samples, of the noise's type.
        condition: maps a batch to its conditions (B, D), without gradients.
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
    _check(generator, discriminator, config, watch_at)
    run, processes = _GANRun(generator, discriminator, loader, config), Processes(accelerator)
    first = run.restore(Path(folder), resume) if folder else 0
    processes.begin(run)
    generator.train()
    discriminator.train()
    fast_generator, fast_discriminator, autocast = _for_device(generator, discriminator, config, run.device)
    weights = [weight for weight in discriminator.parameters() if weight.requires_grad]
    loss, as_seen = GAN_LOSSES[config.loss], augment or nn.Identity()
    began = time.perf_counter() - run.seconds

    def show(step: int) -> None:
        if processes.is_main and watch is not None and step in watch_at:
            with torch.no_grad(), aside(run.device):
                seen = run.notes["watched"][step] = _kept(watch(step, run.models["ema"], discriminator))
            if folder:  # told now, and not at the next checkpoint
                checkpoint.check_state(f"What watch returned at step {step}", seen)

    steps, quiet = range(first, config.steps), not processes.is_main
    bar = tqdm(steps, "GAN", config.steps, initial=first, leave=False, mininterval=0.5, disable=quiet)
    for step in bar:
        show(step)
        for turn in range(config.n_critic):
            batch = loader.batch(step * config.n_critic + turn)
            real, given = _inputs(processes.share(batch), condition, run.device)
            z = processes.share(torch.randn(len(batch), generator.latent_dim, device=run.device))
            needs_graph = turn == config.n_critic - 1  # only the last fakes train the generator
            with autocast:
                with torch.set_grad_enabled(needs_graph):
                    real, fake = as_seen(real), as_seen(fast_generator(z, *given))
                real_logits = fast_discriminator(real, *given).to(z.dtype)
                fake_logits = fast_discriminator(fake.detach(), *given).to(z.dtype)
            d_loss = loss.discriminator(real=real_logits, fake=fake_logits)
            if step % config.penalty_every == 0:
                d_loss = d_loss + config.penalty_every * _penalties(config, discriminator, real, fake, given)
            descend(run.optimizers["discriminator"], d_loss)
            if config.clip is not None:
                clip_weights(discriminator, config.clip)

        with _frozen(weights):  # the generator's step needs no gradient of the discriminator's weights
            with autocast:
                fake_logits = fast_discriminator(fake, *given).to(z.dtype)
                real_logits = fast_discriminator(real, *given).to(z.dtype) if loss.generator_sees_real else None
            g_loss = loss.generator(real=real_logits, fake=fake_logits)
            descend(run.optimizers["generator"], g_loss)

        _average(run.models["ema"], generator, decay=min(config.ema, (1 + step) / (10 + step)))
        run.losses[step] = processes.mean(torch.stack([d_loss.detach(), g_loss.detach()]))
        done, run.seconds = step + 1, time.perf_counter() - began
        if done % CHECK_EVERY == 0 or done % config.checkpoint_every == 0 or done == config.steps:
            d, g = run.check(done)
            bar.set_postfix_str(f"D {d:.2f}, G {g:.2f}, {run.images_per_second(done):.0f} images/s")
        if folder and (done % config.checkpoint_every == 0 or done == config.steps):
            if processes.is_main:
                run.save(Path(folder), done)
            processes.wait()
    show(config.steps)
    _lay_out(run.models, torch.contiguous_format)
    d_losses, g_losses = run.losses.cpu().unbind(1)
    speed = run.images_per_second(config.steps)
    return GANHistory(d_losses, g_losses, run.seconds, speed, run.notes["watched"], run.models["ema"])


def _check(generator: nn.Module, discriminator: nn.Module, config: GANConfig, watch_at: Collection[int]) -> None:
    for name, network in (("generator", generator), ("discriminator", discriminator)):
        if not any(weight.requires_grad for weight in network.parameters()):
            raise ValueError(f"{name}: found no parameter that needs a gradient; expected at least one.")
    if not hasattr(generator, "latent_dim"):
        raise ValueError("generator: found no latent_dim; expected the length of its noise under that name.")
    if outside := [step for step in watch_at if not 0 <= step <= config.steps]:
        raise ValueError(f"watch_at holds {outside[0]}; expected steps from 0 to {config.steps}.")


def _copied(model: nn.Module) -> nn.Module:
    """A copy; what the last forward pass computed, such as a weight under ``nn.utils.spectral_norm``, is detached."""
    kept = (value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor))
    return copy.deepcopy(model, {id(value): value.detach().clone() for value in kept if not value.is_leaf})


class _GANRun(Run):
    """What changes while a GAN trains: three networks, two optimisers, and what was watched."""

    def __init__(self, generator: nn.Module, discriminator: nn.Module, loader: Loader, config: GANConfig) -> None:
        average = _copied(generator).eval().requires_grad_(False)
        models = {"generator": generator, "discriminator": discriminator, "ema": average}
        if not _compiles(config, next(generator.parameters()).device):  # what is compiled lays itself out
            _lay_out(models, torch.channels_last)  # in which convolutions run faster
        rate = config.lr if config.lr_discriminator is None else config.lr_discriminator
        rates = {"generator": config.lr, "discriminator": rate}
        betas = tuple(map(float, config.betas))  # Adam takes no whole number beside a fraction
        settings = dataclasses.asdict(config) | {"betas": betas}
        settings |= {"batch_size": loader.batch_size, "loader_seed": loader.seed}
        super().__init__(
            models=models,
            optimizers={
                name: torch.optim.Adam(models[name].parameters(), lr=rate, betas=betas, fused=True)
                for name, rate in rates.items()
            },
            losses=("discriminator's loss", "generator's loss"),
            steps=config.steps,
            settings={name: value for name, value in settings.items() if name not in ("steps", "checkpoint_every")},
            advice="Lower the learning rate, or constrain the discriminator.",
        )
        self.notes["watched"] = {}
        self.samples_per_step = loader.batch_size * config.n_critic

    def images_per_second(self, done: int) -> float:
        return done * self.samples_per_step / self.seconds


def _for_device(
    generator: nn.Module, discriminator: nn.Module, config: GANConfig, device: torch.device
) -> tuple[Callable[..., Tensor], Callable[..., Tensor], torch.autocast]:
    """The two networks as they run fastest, and the precision they run in.

    On CUDA: bfloat16 where the hardware has it, and compiled where the run is long. The penalties keep the plain
    discriminator: compiled code has no second derivative, and bfloat16 is too coarse for it.
    """
    if device.type != "cuda":
        return generator, discriminator, torch.autocast(device.type, enabled=False)
    bfloat16 = torch.autocast("cuda", torch.bfloat16, enabled=torch.cuda.get_device_capability(device) >= (8, 0))
    if not _compiles(config, device):
        return generator, discriminator, bfloat16
    torch.compiler.reset()  # the networks of earlier runs would fill its cache
    return torch.compile(generator), torch.compile(discriminator), bfloat16


def _compiles(config: GANConfig, device: torch.device) -> bool:
    """Whether the run is long enough, on a GPU that torch.compile can write code for."""
    if device.type != "cuda" or config.steps < COMPILE_FROM:
        return False
    return find_spec("triton") is not None and torch.cuda.get_device_capability(device) >= (7, 0)


def _inputs(
    batch: Batch | Tensor, condition: Callable[[Batch], Tensor] | None, device: torch.device
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The real samples, and the condition as a tuple of one or none."""
    batch = batch.to(device)
    real, noise = batch if isinstance(batch, Tensor) else batch.image, torch.get_default_dtype()
    if real is None or real.dtype != noise:
        found = "a batch without image" if real is None else f"samples of {real.dtype}"
        raise ValueError(f"loader: found {found}; expected samples of {noise}, as the noise is.")
    with torch.no_grad():  # what makes the condition is not trained here
        return real, () if condition is None else (condition(batch),)


def _penalties(
    config: GANConfig, discriminator: nn.Module, real: Tensor, fake: Tensor, given: tuple[Tensor, ...]
) -> Tensor | float:
    def judge(samples: Tensor) -> Tensor:
        return discriminator(samples, *given)

    total = 0.0
    if config.gp:
        total = total + config.gp * gradient_penalty(judge, real=real, fake=fake)
    if config.r1:
        total = total + config.r1 * r1(judge, real=real)
    if config.r2:
        total = total + config.r2 * r2(judge, fake=fake)
    return total


def _lay_out(models: Mapping[str, nn.Module], memory_format: torch.memory_format) -> None:
    for weight in (weight for model in models.values() for weight in model.parameters() if weight.ndim == 4):
        weight.data = weight.data.contiguous(memory_format=memory_format)


@contextmanager
def _frozen(weights: list[nn.Parameter]) -> Iterator[None]:
    try:
        for weight in weights:
            weight.requires_grad_(False)
        yield
    finally:  # also where somebody stops the cell
        for weight in weights:
            weight.requires_grad_(True)


def _kept(value: Any) -> Any:
    """What was watched, its tensors copied to the CPU, where later steps leave them alone."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {name: _kept(part) for name, part in value.items()}
    if hasattr(value, "_fields"):  # a NamedTuple
        return type(value)(*map(_kept, value))
    if isinstance(value, list | tuple):
        return (list if isinstance(value, list) else tuple)(_kept(part) for part in value)
    return value


@torch.no_grad()
def _average(average: nn.Module, model: nn.Module, *, decay: float) -> None:
    """average ← decay · average + (1 − decay) · model for the weights; the buffers are copied."""
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
    for kept, current in zip(average.buffers(), model.buffers(), strict=True):
        kept.copy_(current)
