"""The state of a run: losses, averages, what is watched, and checkpoints from which it resumes to the same bits."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from mmgan_lib import checkpoint
from mmgan_lib.training.acceleration import lay_out, lay_out_as_weights
from mmgan_lib.training.processes import Processes

if TYPE_CHECKING:
    from mmgan_lib.datasets import Loader
    from mmgan_lib.training.config import GANConfig

CHECK_EVERY = 25  # steps between looks at the losses: each look makes the CPU wait for the GPU
DIVERGED = 1e6  # no loss of a healthy run comes near it

ScheduleOf = Callable[[Optimizer], LRScheduler]


class DivergedError(FloatingPointError):
    """A loss became NaN, infinite or absurdly large; the message names the step and the loss."""


class Run:
    """Everything that changes while models train, and so everything that a checkpoint holds.

    Args:
        models: name → module.
        optimizers: name → optimiser.
        schedule: makes the learning-rate schedule of an optimiser, which goes on at every step.
        losses: what the losses of a step are called in a sentence.
        steps: how many steps there will be.
        settings: what a run that is resumed must have been begun with.
        advice: what to do about losses that diverge.
        notes: whatever else the loop has to remember: numbers, tensors, and containers of them.
        folder, resume, checkpoint_every: as in :func:`mmgan_lib.training.fit`.
        processes: that share the run.

    Attributes:
        losses: (steps, number of losses), on the device of the models.
        seconds: time spent in the loop, over all resumed parts.
        done: steps taken.
        stopped: set by a loop that ends early.
    """

    def __init__(
        self,
        *,
        models: Mapping[str, nn.Module],
        optimizers: Mapping[str, Optimizer],
        losses: Sequence[str],
        steps: int,
        settings: Mapping[str, Any],
        advice: str,
        notes: dict[str, Any],
        schedule: ScheduleOf | None = None,
        folder: str | Path | None = None,
        resume: bool = False,
        checkpoint_every: int = 500,
        processes: Processes | None = None,
    ) -> None:
        self.models, self.optimizers, self.settings = dict(models), dict(optimizers), described(settings)
        self.schedules = [schedule(optimizer) for optimizer in optimizers.values()] if schedule else []
        self.device = next(next(iter(self.models.values())).parameters()).device
        self.names, self.steps, self.advice, self.notes = losses, steps, advice, notes
        self.losses = torch.zeros(steps, len(losses), device=self.device)
        self.folder, self.checkpoint_every = folder and Path(folder), checkpoint_every
        self.seconds, self.done, self.checked, self.stopped = 0.0, 0, 0, False
        self.processes = processes or Processes(None)
        if folder:
            self.restore(resume)
        self.processes.begin(self.models.values(), self.optimizers.values())

    def loop(self, name: str) -> Iterator[int]:
        """The steps that are left, shown as a progress bar of this name."""
        self.began, first = time.perf_counter() - self.seconds, self.done
        quiet = not self.processes.is_main
        with tqdm(None, name, self.steps, initial=first, leave=False, mininterval=0.5, disable=quiet) as self.bar:
            while self.done < self.steps and not self.stopped:
                yield self.done

    def note(self, *losses: Tensor) -> None:
        """Takes note of the losses of a step that is done; the learning rates go on."""
        self.losses[self.done] = self.processes.mean(torch.stack([loss.detach() for loss in losses]))
        self.done += 1
        for schedule in self.schedules:
            schedule.step()

    def finish(self) -> None:
        """Ends a step: at times a look at the losses, and a checkpoint."""
        self.seconds = time.perf_counter() - self.began
        ends, saves = self.done == self.steps or self.stopped, self.done % self.checkpoint_every == 0
        if ends or saves or self.done % CHECK_EVERY == 0:
            self.bar.set_postfix_str(self.shown(self.check()))
        self.bar.update()
        if self.folder and (saves or ends):
            if self.processes.is_main:
                self.save()
            self.processes.wait()

    def shown(self, losses: list[float]) -> str:
        """How the progress bar tells the newest losses."""
        return ", ".join(f"{name} {loss:.3f}" for name, loss in zip(self.names, losses, strict=True))

    def check(self) -> list[float]:
        """The newest losses.

        Raises:
            DivergedError: one since the last look is not finite, or absurdly large.
        """
        first = min(self.checked, self.done - 1)
        recent = self.losses[first : self.done].cpu()
        bad = ~is_finite(recent)
        if bad.any():
            row, column = bad.nonzero()[0].tolist()
            raise self.diverged(self.names[column], recent[row, column].item(), first + row)
        self.checked = self.done
        return recent[-1].tolist()

    def diverged(self, name: str, value: float, step: int) -> DivergedError:
        """The error to raise about a loss."""
        return DivergedError(
            f"The {name} is {value:.3g} at step {step}; expected a number within ±{DIVERGED:.0e}. {self.advice}"
        )

    def save(self) -> None:
        """Writes a checkpoint."""
        state = {
            "settings": self.settings,
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "schedules": [schedule.state_dict() for schedule in self.schedules],
            "random": [torch.get_rng_state(), *torch.cuda.get_rng_state_all()],
            "losses": self.losses[: self.done].cpu(),
            "notes": self.notes,
            "seconds": self.seconds,
        }
        checkpoint.save(self.folder, step=self.done, models=self.models, state=state)

    def restore(self, resume: bool) -> None:
        """Goes back to the newest checkpoint in the folder, where there is one.

        Raises:
            ValueError: the folder holds another run, or one that is not to be resumed.
        """
        newest = checkpoint.latest(self.folder)
        if newest is None:
            return
        if not resume:
            found = f"folder {self.folder} holds {newest.name}"
            raise ValueError(f"{found}; pass resume=True to go on, or name an empty folder.")
        state = checkpoint.load(newest, {})
        for name, value in self.settings.items():
            if (begun := state["settings"].get(name)) != value:
                raise ValueError(f"{name} is {value}, but the run in {self.folder} was begun with {begun}.")
        self.done = self.checked = len(state["losses"])
        if self.done > self.steps:
            raise ValueError(f"steps is {self.steps}, but the run in {self.folder} has taken {self.done} already.")
        checkpoint.load(newest, self.models)
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
            lay_out_as_weights(optimizer)
        for schedule, saved in zip(self.schedules, state["schedules"], strict=True):
            schedule.load_state_dict(saved)
        torch.set_rng_state(state["random"][0])
        torch.cuda.set_rng_state_all(state["random"][1 : 1 + torch.cuda.device_count()])
        self.losses[: self.done] = state["losses"]
        self.notes, self.seconds = state["notes"], state["seconds"]


@dataclass
class GANHistory:
    """What a run of :func:`mmgan_lib.training.fit_gan` leaves behind.

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


class GANRun(Run):
    """The run of a GAN: three networks, two optimisers, and what was watched."""

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        loader: Loader,
        config: GANConfig,
        *,
        watch: Callable[[int, nn.Module, nn.Module], Any] | None,
        watch_at: Collection[int],
        **options: Any,
    ) -> None:
        if outside := [step for step in watch_at if not 0 <= step <= config.steps]:
            raise ValueError(f"watch_at holds {outside[0]}; expected steps from 0 to {config.steps}.")
        self.config, self.watch, self.watch_at = config, watch, watch_at
        self.images_per_step = loader.batch_size * config.n_critic
        self.ema = copied(generator)
        settings = vars(config) | {"batch_size": loader.batch_size, "loader_seed": loader.seed}
        super().__init__(
            models={"generator": generator, "discriminator": discriminator, "ema": self.ema},
            optimizers={
                "generator": config.optimizer_of(generator, config.optimizer, config.lr),
                "discriminator": config.optimizer_of(
                    discriminator,
                    config.optimizer_discriminator or config.optimizer,
                    config.lr if config.lr_discriminator is None else config.lr_discriminator,
                ),
            },
            schedule=config.schedule,
            losses=("discriminator's loss", "generator's loss"),
            steps=config.steps,
            settings={name: value for name, value in settings.items() if name not in ("steps", "checkpoint_every")},
            advice="Lower the learning rate, or constrain the discriminator.",
            notes={"watched": {}},
            checkpoint_every=config.checkpoint_every,
            **options,
        )

    def loop(self, name: str) -> Iterator[int]:
        """The steps that are left, with a look at each that is watched, and at the end."""
        for step in super().loop(name):
            self.look(step)
            yield step
        self.look(self.steps)

    def look(self, step: int) -> None:
        """Watches the run, if this step is one to watch."""
        if self.watch is None or step not in self.watch_at or not self.processes.is_main:
            return
        with torch.no_grad(), preserve_rng_state(self.device):
            seen = on_cpu(self.watch(step, self.ema, self.models["discriminator"]))
        if self.folder:  # told now, and not at the next checkpoint
            checkpoint.check_state(f"What watch returned at step {step}", seen)
        self.notes["watched"][step] = seen

    def record(self, *losses: Tensor) -> None:
        """Ends a step: the average takes in the generator's weights, and the losses are noted."""
        update_ema(self.ema, self.models["generator"], decay=self.config.ema_at(self.done))
        self.note(*losses)
        self.finish()

    def shown(self, losses: list[float]) -> str:
        """How the progress bar tells the newest losses."""
        return "D {:.2f}, G {:.2f}, {:.0f} images/s".format(*losses, self.images_per_second)

    @property
    def images_per_second(self) -> float:
        """Real samples that the discriminator saw in a second."""
        return self.done * self.images_per_step / self.seconds

    def history(self) -> GANHistory:
        """What is left behind; the networks lie in memory as they came."""
        lay_out(*self.models.values(), memory_format=torch.contiguous_format)
        losses = self.losses.cpu().unbind(1)
        return GANHistory(*losses, self.seconds, self.images_per_second, self.notes["watched"], self.ema)


def copied(generator: nn.Module) -> nn.Module:
    """A copy for the running average, in eval mode.

    Raises:
        ValueError: the generator holds a weight that was computed from others, as under ``nn.utils.weight_norm``.
    """
    try:
        return copy.deepcopy(generator).eval().requires_grad_(False)
    except RuntimeError as error:
        expected = "expected torch.nn.utils.parametrizations for spectral_norm and weight_norm"
        raise ValueError(f"generator: cannot be copied for its running average ({error}); {expected}.") from error


@torch.no_grad()
def update_ema(average: nn.Module, model: nn.Module, *, decay: float) -> None:
    """average ← decay · average + (1 - decay) · model for the weights; the buffers are copied.

    >>> average, model = nn.Linear(1, 1), nn.Linear(1, 1)
    >>> update_ema(average, model, decay=0.0)
    >>> average.weight == model.weight
    tensor([[True]])
    """
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
    for kept, current in zip(average.buffers(), model.buffers(), strict=True):
        kept.copy_(current)


def on_cpu(value: Any) -> Any:
    """A value with its tensors copied to the CPU, where later steps leave them alone."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {name: on_cpu(part) for name, part in value.items()}
    if hasattr(value, "_fields"):  # a NamedTuple
        return type(value)(*map(on_cpu, value))
    if isinstance(value, list | tuple):
        return (list if isinstance(value, list) else tuple)(on_cpu(part) for part in value)
    return value


def described(value: Any) -> Any:
    """A setting as a checkpoint keeps it: numbers as they are, functions and classes by their names.

    >>> described({"steps": 3, "loss": max, "betas": (0, 0.9)})
    {'steps': 3, 'loss': 'max', 'betas': [0, 0.9]}
    """
    if isinstance(value, Mapping):
        return {name: described(part) for name, part in value.items()}
    if dataclasses.is_dataclass(value):
        return {"kind": type(value).__name__} | described(vars(value))
    if isinstance(value, list | tuple):
        return [described(part) for part in value]
    if isinstance(value, partial):
        return [described(part) for part in (value.func, value.args, value.keywords)]
    return getattr(value, "__qualname__", type(value).__qualname__) if callable(value) else value


@contextmanager
def preserve_rng_state(device: torch.device) -> Iterator[None]:
    """Leaves the random numbers of the training outside as they were, whatever is drawn inside."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


def is_finite(loss: Tensor) -> Tensor:
    """True for each loss that is a number, and not absurdly large.

    >>> is_finite(torch.tensor([0.5, torch.nan, -torch.inf]))
    tensor([ True, False, False])
    """
    return loss.abs() < DIVERGED  # False for NaN
