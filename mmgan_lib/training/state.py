"""The state of a run: its losses, and checkpoints from which it resumes to the same bits."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from mmgan_lib import checkpoint
from mmgan_lib.training.acceleration import lay_out_as_weights
from mmgan_lib.training.processes import Processes

if TYPE_CHECKING:
    from accelerate import Accelerator

CHECK_EVERY = 25  # steps between looks at the losses: each look makes the CPU wait for the GPU
DIVERGED = 1e6  # no loss of a healthy run comes near it

ScheduleOf = Callable[[Optimizer], LRScheduler]


class DivergedError(FloatingPointError):
    """A loss became NaN, infinite or absurdly large; the message names the step and the loss."""


class Run:
    """The state of models in training, and so everything that a checkpoint holds.

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
        accelerator: as in :func:`mmgan_lib.training.fit_gan`.

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
        accelerator: Accelerator | None = None,
    ) -> None:
        self.models, self.optimizers, self.settings = dict(models), dict(optimizers), described(settings)
        self.schedules = [schedule(optimizer) for optimizer in optimizers.values()] if schedule else []
        self.device = next(next(iter(self.models.values())).parameters()).device
        self.names, self.steps, self.advice, self.notes = losses, steps, advice, notes
        self.losses = torch.zeros(steps, len(losses), device=self.device)
        self.folder, self.checkpoint_every = folder and Path(folder), checkpoint_every
        self.seconds, self.done, self.checked, self.stopped = 0.0, 0, 0, False
        self.processes = Processes(accelerator)
        if folder:
            self.restore(resume)
        self.processes.begin(self.models.values(), self.optimizers.values())

    def loop(self, name: str) -> Iterator[int]:
        """Yields the steps that are left, shown as a progress bar of this name."""
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
        """Returns the newest losses as the progress bar shows them."""
        return ", ".join(f"{name} {loss:.3f}" for name, loss in zip(self.names, losses, strict=True))

    def check(self) -> list[float]:
        """Returns the newest losses.

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
        """Returns the error to raise about a loss."""
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


def described(value: Any) -> Any:
    """Describes a setting as a checkpoint keeps it: numbers as they are, functions and classes by their names.

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


def is_finite(loss: Tensor) -> Tensor:
    """Tests whether each loss is a number, and not absurdly large.

    >>> is_finite(torch.tensor([0.5, torch.nan, -torch.inf]))
    tensor([ True, False, False])
    """
    return loss.abs() < DIVERGED  # False for NaN
