"""A model that learns from examples."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from mmgan_lib.datasets import Batch, Loader
from mmgan_lib.encoders import evaluating
from mmgan_lib.training.run import CHECK_EVERY, Run, aside, descend, sane

Loss = Callable[[Batch | Tensor], Tensor]


@dataclass
class History:
    """What a run of :func:`fit` leaves behind.

    Attributes:
        loss: (steps,) the loss of each step's batch, penalties left out; shorter if the run was stopped early.
        validation_loss: number of steps done → loss on the validation data.
        seconds: time spent in the loop, over all resumed parts.
    """

    loss: Tensor
    validation_loss: dict[int, float]
    seconds: float

    @property
    def best_step(self) -> int:
        """After how many steps the validation loss was lowest, the first if there are several.

        Raises:
            ValueError: there was no validation.
        """
        if not self.validation_loss:
            raise ValueError("history holds no validation loss; expected a run of fit with validation.")
        return min(self.validation_loss, key=self.validation_loss.__getitem__)


def fit(
    model: nn.Module,
    loader: Loader,
    *,
    loss: Loss,
    steps: int,
    lr: float = 1e-3,
    l1: float = 0.0,
    l2: float = 0.0,
    validation: Iterable[Batch | Tensor] | None = None,
    validate_every: int | None = None,
    patience: int | None = None,
    folder: str | Path | None = None,
    checkpoint_every: int = 500,
    resume: bool = False,
) -> History:
    r"""Train a model with Adam (Kingma & Ba, 2015) to lower a loss on batches of examples.

    What is minimised is the loss of the batch and two penalties on the weights w of the model,

    .. math:: L + \lambda_1 \sum_w |w| + \lambda_2 \sum_w w^2

    Weights are the parameters with two or more axes: biases, and scales and shifts of a normalisation, go free.
    The penalties are part of the loss whose gradient Adam rescales, not the decoupled decay of AdamW.

    Args:
        model: what learns; it is put in train mode. Parameters that need no gradient stay as they are.
        loader: ``loader.batch(i)`` gives the batch of step i.
        loss: maps a batch to a scalar, as in ``lambda batch: F.cross_entropy(model(batch), batch.label)``.
        steps: number of steps at most.
        lr: learning rate.
        l1: :math:`\lambda_1`.
        l2: :math:`\lambda_2`.
        validation: batches held back, such as ``Loader(data, 256, shuffle=False)``; their mean loss, without
            penalties, with the model in eval mode, is taken every ``validate_every`` steps.
        validate_every: steps between validations; None for an epoch.
        patience: stop after so many validations in a row without a new lowest loss; in the end the model has the
            weights that reached the lowest. None: train to the end, and keep the last weights.
        folder: where to keep checkpoints.
        checkpoint_every: steps between checkpoints.
        resume: go on from the newest checkpoint in ``folder``; on the CPU the result is the same, bit for bit, as
            that of a run that never stopped.

    Raises:
        DivergedError: a loss is not finite, or larger than a million.
        ValueError: a bad argument, a loss that is no scalar or has no gradient, or ``folder`` holds another run.
        mmgan_lib.checkpoint.CheckpointError: the newest checkpoint is damaged.
    """
    every = len(loader) if validation is not None and validate_every is None else validate_every
    _check(steps, l1, l2, validation, every, patience, checkpoint_every)
    optimizer = _adam(model, lr)
    settings = {"lr": lr, "l1": l1, "l2": l2, "validate_every": every, "patience": patience}
    settings |= {"batch_size": loader.batch_size, "loader_seed": loader.seed}
    run = Run(
        models={"model": model},
        optimizers={"adam": optimizer},
        losses=["loss"],
        steps=steps,
        settings=settings,
        advice="Lower the learning rate, or look for samples that are out of bounds.",
    )
    run.notes = {"validation": {}, "best": None}
    first = run.restore(Path(folder), resume) if folder else 0
    weights = [weight for weight in model.parameters() if weight.requires_grad and weight.ndim >= 2]
    model.train()
    done, began = first, time.perf_counter() - run.seconds
    with tqdm(total=steps, desc="fit", initial=first, leave=False, mininterval=0.5) as bar:
        while done < steps and not _exhausted(run.notes["validation"], patience):
            batch_loss = _checked(loss(loader.batch(done).to(run.device)))
            descend(optimizer, batch_loss + _penalty(weights, l1, l2))
            run.losses[done, 0] = batch_loss.detach()
            done += 1
            bar.update()
            if validation is not None and done % every == 0:
                run.check(done)
                _validate(run, model, loss, validation, done, keep_best=patience is not None)
            ends = done == steps or _exhausted(run.notes["validation"], patience)
            run.seconds = time.perf_counter() - began
            if done % CHECK_EVERY == 0 or done % checkpoint_every == 0 or ends:
                bar.set_postfix_str(_shown(run.check(done)[0], run.notes["validation"]))
            if folder and (done % checkpoint_every == 0 or ends):
                run.save(Path(folder), done)
    if run.notes["best"] is not None:
        model.load_state_dict(run.notes["best"])
    return History(run.losses[:done, 0].cpu(), run.notes["validation"], run.seconds)


def _adam(model: nn.Module, lr: float) -> torch.optim.Adam:
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not learning:
        raise ValueError("model: found no parameter that needs a gradient; expected at least one.")
    return torch.optim.Adam(learning, lr=lr, fused=True)


def _checked(loss: Tensor) -> Tensor:
    if not isinstance(loss, Tensor) or loss.ndim or not loss.requires_grad:
        found = f"a {type(loss).__name__}"
        if isinstance(loss, Tensor):
            found = f"shape {tuple(loss.shape)}" + ("" if loss.requires_grad else " without a gradient")
        raise ValueError(f"loss: found {found}; expected a scalar tensor with a gradient, as a mean over the batch is.")
    return loss


def _penalty(weights: Sequence[Tensor], l1: float, l2: float) -> Tensor | float:
    total = 0.0
    if l1:
        total = total + l1 * sum(weight.abs().sum() for weight in weights)
    if l2:
        total = total + l2 * sum(weight.square().sum() for weight in weights)
    return total


def _validate(
    run: Run,
    model: nn.Module,
    loss: Loss,
    validation: Iterable[Batch | Tensor],
    done: int,
    *,
    keep_best: bool,
) -> None:
    """Note the loss on the validation data, and the weights if they are the best so far."""
    with evaluating(model), aside(run.device):
        parts = [(len(batch) * loss(batch.to(run.device)), len(batch)) for batch in validation]
    if not parts:
        raise ValueError("validation: found no batches; expected some, the same at each validation.")
    totals, sizes = zip(*parts, strict=True)
    mean = sum(totals) / sum(sizes)
    if not sane(mean):
        raise run.diverged("validation loss", mean.item(), done)
    seen = run.notes["validation"]
    if keep_best and mean.item() < min(seen.values(), default=torch.inf):
        run.notes["best"] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    seen[done] = mean.item()


def _exhausted(validation: dict[int, float], patience: int | None) -> bool:
    """Whether the lowest of the losses lies ``patience`` validations back."""
    losses = list(validation.values())
    return patience is not None and bool(losses) and len(losses) - 1 - losses.index(min(losses)) >= patience


def _shown(loss: float, validation: dict[int, float]) -> str:
    return f"loss {loss:.3f}" + "".join(f", validation {value:.3f}" for value in list(validation.values())[-1:])


def _check(
    steps: int,
    l1: float,
    l2: float,
    validation: Iterable[Batch | Tensor] | None,
    validate_every: int | None,
    patience: int | None,
    checkpoint_every: int,
) -> None:
    counts = {"steps": steps, "validate_every": validate_every, "patience": patience}
    for name, value in (counts | {"checkpoint_every": checkpoint_every}).items():
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; expected at least 1.")
    for name, value in (("l1", l1), ("l2", l2)):
        if not value >= 0:
            raise ValueError(f"{name} is {value}; expected 0 or more.")
    if isinstance(validation, Batch | Tensor):
        raise ValueError(f"validation is a {type(validation).__name__}; expected batches, as a Loader or a list gives.")
    if validation is None and (patience or validate_every):
        raise ValueError("patience and validate_every say how to validate; expected validation data with them.")
    if validation is not None and validate_every > steps:
        raise ValueError(f"validate_every is {validate_every} (None: an epoch); expected at most steps, {steps}.")
