"""The training loop of a model that learns from examples."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mmgan_lib.checks import check_counts, check_not_negative
from mmgan_lib.datasets import Batch, Loader
from mmgan_lib.encoders import evaluating
from mmgan_lib.runtime import preserve_rng_state
from mmgan_lib.training.config import OptimizerOf
from mmgan_lib.training.state import Run, ScheduleOf, is_finite
from mmgan_lib.training.step import optimizer_step

Loss = Callable[[Batch | Tensor], Tensor]


@dataclass
class History:
    """The result of a run of :func:`fit`.

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
        """The number of steps after which the validation loss was lowest, the first if there are several.

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
    optimizer: OptimizerOf | None = None,
    schedule: ScheduleOf | None = None,
    l1: float = 0.0,
    l2: float = 0.0,
    validation: Iterable[Batch | Tensor] | None = None,
    validate_every: int | None = None,
    patience: int | None = None,
    folder: str | Path | None = None,
    checkpoint_every: int = 500,
    resume: bool = False,
) -> History:
    r"""Trains a model with Adam (Kingma & Ba, 2015) to lower a loss on batches of examples.

    What is minimised is the loss of the batch and two penalties on the weights w of the model,

    .. math:: L + \lambda_1 \sum_w |w| + \lambda_2 \sum_w w^2

    Weights are the parameters with two or more axes: biases, and scales and shifts of a normalisation, go free.
    The penalties are part of the loss whose gradient Adam rescales, not the decoupled decay of AdamW.

    Args:
        model: what learns; it is put in train mode. Parameters that need no gradient stay as they are.
        loader: ``loader.batch(i)`` gives the batch of step i.
        loss: maps a batch to a scalar, as in ``lambda batch: F.cross_entropy(model(batch), batch.label)``.
        steps: number of steps at most.
        lr: learning rate of Adam.
        optimizer: makes an optimiser of the model's parameters, in place of that Adam, such as ``torch.optim.AdamW``.
        schedule: makes the optimiser's learning-rate schedule, which goes on with every step, such as
            ``partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=3e-3, total_steps=steps)``.
        l1: :math:`\lambda_1`.
        l2: :math:`\lambda_2`.
        validation: batches held back, such as ``Loader(data, 256, shuffle=False)``; their mean loss, without
            penalties, with the model in eval mode, is taken every ``validate_every`` steps.
        validate_every: steps between validations; None for an epoch, or for once at the end where that is longer.
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
    every = validate_every or (min(len(loader), steps) if validation is not None else None)
    check_counts(steps=steps, validate_every=validate_every, patience=patience, checkpoint_every=checkpoint_every)
    check_not_negative(l1=l1, l2=l2)
    if isinstance(validation, Batch | Tensor):
        raise ValueError(f"validation is a {type(validation).__name__}; expected batches, as a Loader or a list gives.")
    if validation is None and (patience or validate_every):
        raise ValueError("patience and validate_every say how to validate; expected validation data with them.")
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    if not learning:
        raise ValueError("model: found no parameter that needs a gradient; expected at least one.")
    adam = optimizer(learning) if optimizer else torch.optim.Adam(learning, lr=lr, fused=True)
    settings = {"lr": lr, "optimizer": optimizer, "schedule": schedule, "l1": l1, "l2": l2}
    settings |= {"validate_every": every, "patience": patience}
    settings |= {"batch_size": loader.batch_size, "loader_seed": loader.seed}
    run = Run(
        models={"model": model},
        optimizers={"optimizer": adam},
        schedule=schedule,
        losses=["loss"],
        steps=steps,
        settings=settings,
        advice="Lower the learning rate, or look for samples that are out of bounds.",
        notes={"validation": {}, "best": None},
        folder=folder,
        resume=resume,
        checkpoint_every=checkpoint_every,
    )
    weights = [weight for weight in learning if weight.ndim >= 2]
    model.train()
    run.stopped = _exhausted(run.notes["validation"], patience)
    for step in run.loop("fit"):
        batch_loss = _checked(loss(loader.batch(step).to(run.device)))
        optimizer_step(adam, batch_loss + _penalty(weights, l1, l2))
        run.note(batch_loss)
        if validation is not None and run.done % every == 0:
            run.check()
            _validate(run, model, loss, validation, keep_best=patience is not None)
            run.stopped = _exhausted(run.notes["validation"], patience)
        run.finish()
    if run.notes["best"] is not None:
        model.load_state_dict(run.notes["best"])
    return History(run.losses[: run.done, 0].cpu(), run.notes["validation"], run.seconds)


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
    *,
    keep_best: bool,
) -> None:
    """Notes the loss on the validation data, and the weights if they are the best so far."""
    with evaluating(model), preserve_rng_state(run.device):
        parts = [(len(batch) * loss(batch.to(run.device)), len(batch)) for batch in validation]
    if not parts:
        raise ValueError("validation: found no batches; expected some, the same at each validation.")
    totals, sizes = zip(*parts, strict=True)
    mean = sum(totals) / sum(sizes)
    if not is_finite(mean):
        raise run.diverged("validation loss", mean.item(), run.done)
    seen = run.notes["validation"]
    if keep_best and mean.item() < min(seen.values(), default=torch.inf):
        run.notes["best"] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    seen[run.done] = mean.item()


def _exhausted(validation: dict[int, float], patience: int | None) -> bool:
    """Tests whether the lowest of the losses lies ``patience`` validations back."""
    losses = list(validation.values())
    return patience is not None and bool(losses) and len(losses) - 1 - losses.index(min(losses)) >= patience
