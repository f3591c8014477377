"""Checkpoints that survive a kill at any moment and are refused when damaged, and the weights that ship with us.

A checkpoint is one file, ``step-00000500``: the weights of all models and everything else that training needs
(optimisers, random numbers, history) as ``torch.save`` writes them, and after it the sha256 of that, 32 bytes.

A checksum beside its data detects accidents: an interrupted copy, a full disk, a flipped bit. It does not detect
malice, because whoever changes the data can change the checksum. So no file is ever unpickled into arbitrary Python:
checkpoints are read with ``weights_only=True``, and shipped weights are safetensors, which hold nothing but numbers.
A forged file cannot run code, then, but its numbers may be others.
"""

import hashlib
import io
import json
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from mmgan_lib import runtime
from mmgan_lib.checks import check_counts

WEIGHTS = Path(__file__).parent / "weights"


class CheckpointError(RuntimeError):
    """A checkpoint or a file of weights is missing, damaged, or of other models."""


def save(
    folder: str | Path,
    *,
    step: int,
    models: Mapping[str, nn.Module],
    state: Mapping[str, Any] | None = None,
    keep: int = 2,
) -> Path:
    """Writes ``folder/step-00000500`` and removes all but the newest ``keep`` checkpoints up to this step.

    Kill the process or cut the power at any moment: what :func:`latest` finds is complete, because a file is renamed to
    that name only once it is on the disk. A checkpoint of the same step is replaced. Only one process may save into a
    folder.

    Args:
        folder: Holds the checkpoints of one training; made where it does not exist.
        step: How many steps have been taken.
        models: By name, without a dot; parameters and buffers are saved.
        state: What else has to be restored: tensors, numbers, strings, and containers of them.
        keep: How many checkpoints stay.

    Raises:
        ValueError: A bad argument, or ``state`` holds what ``torch.load(weights_only=True)`` would not read;
            nothing has been written or removed then.
        KeyError: The name of a model has a dot.
    """
    check_counts(keep=keep)
    state = dict(state or {})
    for key, value in state.items():
        check_state(f"state[{key!r}]", value)
    content = _to_bytes({"weights": nn.ModuleDict(models).state_dict(), "state": state})
    folder = Path(folder).expanduser()
    path = folder / f"step-{step:08d}"
    _write(path, content + hashlib.sha256(content).digest())
    for old in [path for done, path in _checkpoints(folder).items() if done <= step][:-keep]:
        old.unlink()
    return path


def check_state(name: str, value: Any) -> None:
    """Raises ValueError, which begins with ``name``, unless :func:`save` can keep this value in a ``state``."""
    try:
        torch.load(io.BytesIO(_to_bytes(value)), map_location="cpu", weights_only=True)
    except Exception as error:  # what cannot be pickled fails in many ways
        raise ValueError(
            f"{name} is or holds something that torch.load(weights_only=True) cannot read "
            f"({type(value).__name__}); expected tensors, numbers, strings, and containers of them."
        ) from error


def latest(folder: str | Path) -> Path | None:
    """Finds the checkpoint with the most steps in ``folder``; None where there is none.

    >>> latest("/no/such/folder") is None
    True
    """
    return next(reversed(_checkpoints(Path(folder).expanduser()).values()), None)


def load(path: str | Path, models: Mapping[str, nn.Module]) -> dict[str, Any]:
    """Loads a checkpoint into ``models``, on whatever device they are, and returns its ``state``, on the CPU.

    The sha256 is checked first, then the name, shape and type of every tensor. All models are loaded, or none is
    touched. Models that were saved but are not asked for are left out: the generator alone is enough to draw samples.

    Raises:
        CheckpointError: The file is missing or damaged, or the models are not those that were saved.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise CheckpointError(f"{path}: found no such file, expected a checkpoint.")
    whole = path.read_bytes()
    content = whole[:-32]
    if hashlib.sha256(content).digest() != whole[-32:]:
        found = f"found {len(whole)} bytes, expected the last 32 to be the sha256 of those before them"
        raise CheckpointError(f"{path} is damaged: {found}; delete it to go on from the checkpoint before it.")
    try:
        saved = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        wanted = {key: tensor for key, tensor in saved["weights"].items() if key.split(".")[0] in models}
        state = saved["state"]
    except Exception as error:  # whatever comes of bytes that somebody forged along with their checksum
        raise CheckpointError(f"{path} is not a checkpoint: found {type(error).__name__} when reading it.") from error
    _copy(saved=wanted, to=nn.ModuleDict(models).state_dict(), source=path)
    return state


def save_pretrained(
    name: str, module: nn.Module, *, command: str, seed: int, seconds: float, metrics: Mapping[str, float]
) -> dict[str, Any]:
    """Writes ``mmgan_lib/weights/{name}.safetensors`` and its entry in the manifest, and returns the entry.

    The entry says how to make the file again and how good it is: ``command``, ``seed``, ``seconds`` of training,
    ``metrics``; and, noted here, tier, device, versions and sha256. The same weights give the same file, byte for byte.
    """
    as_numbers = {"copy": True, "memory_format": torch.contiguous_format}  # safetensors takes no shared memory
    content = safetensors.torch.save({key: t.to("cpu", **as_numbers) for key, t in module.state_dict().items()})
    entry = {
        "command": command,
        "seed": seed,
        "tier": runtime.tier(),
        "device": runtime.machine(next(module.parameters()).device),
        "seconds": round(seconds, 1),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "metrics": dict(metrics),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    manifest = json.dumps(_manifest() | {name: entry}, indent=2, sort_keys=True) + "\n"
    _write(WEIGHTS / f"{name}.safetensors", content)
    _write(WEIGHTS / "manifest.json", manifest.encode())
    return entry


def load_pretrained(name: str, module: nn.Module) -> dict[str, Any]:
    """Loads weights that ship with the library into ``module`` and returns what the manifest says of them.

    Raises:
        ValueError: There are no weights of that name.
        CheckpointError: The file is missing, is not the one that the manifest describes, or does not fit ``module``.
    """
    manifest = _manifest()
    if name not in manifest:
        raise ValueError(f"There are no weights {name!r}; expected one of {sorted(manifest)}.")
    file, entry = WEIGHTS / f"{name}.safetensors", manifest[name]
    content = file.read_bytes() if file.exists() else None
    found = "no such file" if content is None else f"sha256 {hashlib.sha256(content).hexdigest()}"
    if found != f"sha256 {entry['sha256']}":
        again = f"`{entry['command']}` makes it again"
        raise CheckpointError(f"{file}: found {found}, expected sha256 {entry['sha256']}; {again}.")
    _copy(saved=safetensors.torch.load(content), to=module.state_dict(), source=file)
    return entry


@torch.no_grad()
def _copy(*, saved: Mapping[str, Tensor], to: Mapping[str, Tensor], source: Path) -> None:
    """Copies all tensors, or none unless name, shape and type of each fit."""
    for key in sorted(saved.keys() | to.keys()):
        found, expected = (_describe(tensors.get(key)) for tensors in (saved, to))
        if found != expected:
            raise CheckpointError(f"{source} holds {found} for {key}, but the model has {expected}.")
    for key, tensor in to.items():
        tensor.copy_(saved[key])


def _describe(tensor: Tensor | None) -> str:
    return "nothing" if tensor is None else f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _checkpoints(folder: Path) -> dict[int, Path]:
    """Finds the checkpoints in a folder: steps → file, the newest last."""
    names = [re.fullmatch(r"step-(\d{8,})", path.name) for path in folder.glob("step-*")]
    return dict(sorted((int(name[1]), folder / name[0]) for name in names if name))


def _to_bytes(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _manifest() -> dict[str, Any]:
    file = WEIGHTS / "manifest.json"
    return json.loads(file.read_bytes()) if file.exists() else {}


def _write(path: Path, content: bytes) -> None:
    """Writes a file that appears whole or not at all: under a hidden name, synced to the disk, and then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(".unfinished")
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    if os.name == "posix":  # the new name, too, has to be on the disk; Windows has no such call for folders
        descriptor = os.open(path.parent, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
