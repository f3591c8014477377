"""What the two loops share: losses that are looked at seldom, and stopping and going on without a trace."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmgan_lib import checkpoint

CHECK_EVERY = 25  # steps between looks at the losses: each look makes the CPU wait for the GPU
DIVERGED = 1e6  # no loss of a healthy run comes near it


class DivergedError(FloatingPointError):
    """A loss became NaN, infinite or absurdly large; the message names the step and the loss."""


class Run:
    """Everything that changes while models train, and so everything that a checkpoint holds.

    Args:
        models: name → module.
        optimizers: name → optimiser.
        losses: what the losses of a step are called in a sentence.
        steps: how many steps there will be.
        settings: what a run that is resumed must have been begun with.
        advice: what to do about losses that diverge.

    Attributes:
        losses: (steps, number of losses), on the device of the models.
        seconds: time spent in the loop, over all resumed parts.
        notes: whatever else the loop has to remember: numbers, tensors, and containers of them.
    """

    def __init__(
        self,
        *,
        models: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
        losses: Sequence[str],
        steps: int,
        settings: Mapping[str, Any],
        advice: str,
    ) -> None:
        self.models, self.optimizers, self.settings = dict(models), dict(optimizers), dict(settings)
        self.device = next(next(iter(self.models.values())).parameters()).device
        self.names, self.advice = losses, advice
        self.losses = torch.zeros(steps, len(losses), device=self.device)
        self.notes: dict[str, Any] = {}
        self.seconds, self.checked = 0.0, 0

    def check(self, done: int) -> list[float]:
        """Stop at the first loss that is not a sane number; else give the newest."""
        first = min(self.checked, done - 1)
        recent = self.losses[first:done].cpu()
        bad = ~sane(recent)
        if bad.any():
            row, column = bad.nonzero()[0].tolist()
            raise self.diverged(self.names[column], recent[row, column].item(), first + row)
        self.checked = done
        return recent[-1].tolist()

    def diverged(self, name: str, value: float, step: int) -> DivergedError:
        """The error to raise about a loss."""
        return DivergedError(
            f"The {name} is {value:.3g} at step {step}; expected a number within ±{DIVERGED:.0e}. {self.advice}"
        )

    def save(self, folder: Path, done: int) -> None:
        """Write a checkpoint."""
        state = {
            "settings": self.settings,
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "random": [torch.get_rng_state(), *torch.cuda.get_rng_state_all()],
            "losses": self.losses[:done].cpu(),
            "notes": self.notes,
            "seconds": self.seconds,
        }
        checkpoint.save(folder, step=done, models=self.models, state=state)

    def restore(self, folder: Path, resume: bool) -> int:
        """Go back to the newest checkpoint in the folder, and give its step; 0 where there is none."""
        newest = checkpoint.latest(folder)
        if newest is None:
            return 0
        if not resume:
            raise ValueError(
                f"folder {folder} holds {newest.name}; pass resume=True to go on, or name an empty folder."
            )
        state = checkpoint.load(newest, {})
        for name, value in self.settings.items():
            if state["settings"].get(name) != value:
                begun = state["settings"].get(name)
                raise ValueError(f"{name} is {value}, but the run in {folder} was begun with {begun}.")
        done = len(state["losses"])
        if done > len(self.losses):
            raise ValueError(f"steps is {len(self.losses)}, but the run in {folder} has taken {done} already.")
        checkpoint.load(newest, self.models)
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
            _lay_out_as_weights(optimizer)
        torch.set_rng_state(state["random"][0])
        torch.cuda.set_rng_state_all(state["random"][1 : 1 + torch.cuda.device_count()])
        self.losses[:done] = state["losses"]
        self.notes, self.seconds, self.checked = state["notes"], state["seconds"], done
        return done


def _lay_out_as_weights(optimizer: torch.optim.Optimizer) -> None:
    """Fused Adam walks through memory: its moments have to lie there as their weights do, whatever a file held."""
    for weight, moments in optimizer.state.items():
        for name in moments.keys() - {"step"}:
            moments[name] = torch.empty_like(weight).copy_(moments[name])


@contextmanager
def aside(device: torch.device) -> Iterator[None]:
    """What happens inside leaves the random numbers of the training outside as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


def sane(loss: Tensor) -> Tensor:
    """Whether each loss is a number, and not absurdly large.

    >>> sane(torch.tensor([0.5, torch.nan, -torch.inf]))
    tensor([ True, False, False])
    """
    return loss.abs() < DIVERGED  # False for NaN


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step down the gradient of a loss."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
