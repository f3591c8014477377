"""Checks of arguments: a ValueError of one sentence names the argument, what was found and what was expected."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

SURROGATE = re.compile("[\ud800-\udfff]")  # half a pair: no letter, and nothing that UTF-8 can hold


def check_shape(name: str, x: Tensor | None, *shape: int | str) -> None:
    """Refuses an ``x`` that is missing or of another shape; a name such as ``"B"`` stands for any length but 0.

    >>> import torch
    >>> check_shape("z", torch.zeros(3, 2), "B", 4)
    Traceback (most recent call last):
    ValueError: z: found shape (3, 2); expected (B, 4).
    """
    fits = (
        x is not None
        and x.ndim == len(shape)
        and all(n == wanted if isinstance(wanted, int) else n > 0 for n, wanted in zip(x.shape, shape, strict=True))
    )
    if not fits:
        found = "none" if x is None else f"shape {tuple(x.shape)}"
        raise ValueError(f"{name}: found {found}; expected ({', '.join(map(str, shape))}).")


def check_same_shape(**tensors: Tensor) -> None:
    """Refuses two tensors of different shapes, which would broadcast."""
    (name, x), (other, y) = tensors.items()
    if x.shape != y.shape:
        raise ValueError(f"{name} has shape {tuple(x.shape)} and {other} {tuple(y.shape)}; expected the same shape.")


def check_floating(name: str, x: Tensor | None, *shape: int | str) -> None:
    """Refuses an ``x`` that is missing, of another shape, or of whole numbers."""
    check_shape(name, x, *shape)
    if not x.is_floating_point():
        raise ValueError(f"{name}: found numbers of type {x.dtype}; expected floating point, as by .float().")


def check_range(name: str, x: Tensor, limit: float, expected: str, *, training: bool = False) -> None:
    """Refuses an ``x`` with anything but floating-point numbers in [-limit, limit].

    In training on a GPU only the type is looked at: for a look at the numbers the CPU would wait at every step.
    """
    if training and x.is_cuda and x.is_floating_point():
        return
    low, high = x.aminmax()
    if not x.is_floating_point() or not (low >= -limit) & (high <= limit):  # also true for NaN
        dtype = str(x.dtype).removeprefix("torch.")
        raise ValueError(f"{name}: found {dtype} from {low.item():.4g} to {high.item():.4g}; expected {expected}.")


def check_condition(condition: Tensor | None, batch: int, condition_dim: int) -> None:
    """Refuses a condition that is missing, not wanted, or of another shape than (batch, condition_dim)."""
    if condition_dim:
        check_floating("condition", condition, batch, condition_dim)
    elif condition is not None:
        raise ValueError("condition was given, but the network was built with condition_dim=0; expected none.")


def check_counts(**counts: int | None) -> None:
    """Refuses a count below 1; None is none."""
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ValueError(f"{name} is {count}; expected at least 1.")


def check_not_negative(**numbers: object) -> None:
    """Refuses a number below 0, and NaN; what is no number, such as a schedule or None, is left alone."""
    for name, number in numbers.items():
        if isinstance(number, int | float) and not number >= 0:
            raise ValueError(f"{name} is {number}; expected 0 or more.")


def check_texts(texts: Sequence[str]) -> None:
    """Refuses texts that are none, not strings, or no Unicode that UTF-8 can hold."""
    if isinstance(texts, str) or len(texts) == 0:
        raise ValueError(f"texts: found {texts!r}; expected a list of at least one string.")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"texts[{i}]: found {text!r}; expected a string.")
        if half := SURROGATE.search(text):
            raise ValueError(f"texts[{i}]: found {half[0]!r}, half a surrogate pair; expected whole characters.")


def check_tokens(tokens: Tensor, token_mask: Tensor, words: int, *, training: bool = False) -> None:
    """Refuses what are not tokens of a vocabulary of so many ``words``, with their mask.

    In training on a GPU shape and type alone are looked at: for a look at the numbers the CPU would wait at every step.
    """
    if tokens.dtype != torch.int64 or token_mask.dtype != torch.bool or tokens.ndim != 2 or len(tokens) == 0:
        found = f"{tuple(tokens.shape)} {tokens.dtype} and {tuple(token_mask.shape)} {token_mask.dtype}"
        raise ValueError(f"tokens and token_mask: found {found}; expected (B, T) torch.int64 and (B, T) torch.bool.")
    if token_mask.shape != tokens.shape:
        raise ValueError(f"token_mask: found shape {tuple(token_mask.shape)}; expected {tuple(tokens.shape)}.")
    if training and tokens.is_cuda:
        return
    low, high = tokens.aminmax()
    if (low < 0) | (high >= words):
        raise ValueError(
            f"tokens: found numbers from {low} to {high}; expected 0 to {words - 1}, as in the vocabulary."
        )


def check_players(generator: nn.Module, discriminator: nn.Module, condition: object | None) -> None:
    """Refuses players that cannot learn, and a generator that nothing would be given."""
    for name, network in (("generator", generator), ("discriminator", discriminator)):
        if not any(weight.requires_grad for weight in network.parameters()):
            raise ValueError(f"{name}: found no parameter that needs a gradient; expected at least one.")
    if getattr(generator, "latent_dim", None) is None and condition is None:
        expected = "expected the length of its noise under that name, or a condition in place of noise"
        raise ValueError(f"generator: found no latent_dim; {expected}.")


def check_sha256(file: Path, expected: str) -> None:
    """Refuses a file whose content has a sha256 that does not begin as expected."""
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if not found.startswith(expected):
        raise ValueError(f"{file}: found sha256 {found}, expected {expected}.")
