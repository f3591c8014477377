"""Checkpoints that survive a kill at any moment, refuse damage, and resume exactly; and the weights that ship with us.

A checkpoint is a folder, ``step-00000500``, with the weights of all models (safetensors), everything else that training
needs (``state.pt``: optimisers, random numbers, history) and the checksums of both. No file is ever unpickled into
arbitrary Python: weights are plain numbers, and ``state.pt`` is read with ``weights_only=True``.
"""

import hashlib
import io
import json
import os
import platform
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from mmgan_lib import runtime

WEIGHTS = Path(__file__).parent / "weights"
NAME = re.compile(r"step-(\d{8,})(~?)")  # ends in ~ while a checkpoint of the same step takes its place
UNFINISHED, DISCARDED = ".unfinished", ".discarded"


class CheckpointError(RuntimeError):
    """A checkpoint or a file of weights that cannot be used; ``previous`` is the checkpoint to fall back on, if any."""

    def __init__(self, message: str, previous: Path | None = None) -> None:
        super().__init__(message)
        self.previous = previous


def save(
    folder: str | Path,
    *,
    step: int,
    models: Mapping[str, nn.Module],
    state: Mapping[str, Any] | None = None,
    keep: int = 2,
) -> Path:
    """Writes ``folder/step-00000500`` and removes all but the newest ``keep`` checkpoints up to this step.

    Kill the process or cut the power at any moment: what :func:`latest` finds is complete. The new checkpoint is
    written beside the others under a hidden name, synced to the disk, and only then renamed; older ones go last.
    A checkpoint of the same step is replaced. Only one process may save into a folder.

    Args:
        folder: Holds the checkpoints of one training; made where it does not exist.
        step: How many steps have been taken.
        models: By name, whatever the modules are called in the training; parameters and buffers are saved.
        state: What else has to be restored: tensors, numbers, strings, and containers of them.
        keep: How many checkpoints stay.

    Raises:
        ValueError: A bad argument, or ``state`` holds what ``torch.load(weights_only=True)`` would not read;
            nothing has been written or removed then.
    """
    if step < 0 or keep < 1:
        raise ValueError(f"step is {step} and keep is {keep}; expected step >= 0 and keep >= 1.")
    if dotted := [name for name in models if "." in name]:
        raise ValueError(f"models has the name {dotted[0]!r}; expected names without a dot.")
    files = {"weights.safetensors": _to_bytes(_tensors(models)), "state.pt": _pickled(dict(state or {}))}
    files["checksums.json"] = json.dumps({name: _checksum(content) for name, content in files.items()}).encode()

    folder = Path(folder).expanduser()
    path, unfinished = folder / f"step-{step:08d}", folder / UNFINISHED
    for leftover in (UNFINISHED, DISCARDED):  # of a save that was killed
        shutil.rmtree(folder / leftover, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for name, content in files.items():
        _write(unfinished / name, content)
    _sync_folder(unfinished)
    _publish(unfinished, path)
    for old in [c for c in _checkpoints(folder) if _age(c) <= _age(path)][:-keep]:
        _discard(old)
    return path


def check_state(name: str, value: Any) -> None:
    """Raises ValueError, which begins with ``name``, unless :func:`save` can keep this value in a ``state``."""
    try:
        torch.load(io.BytesIO(_torch_bytes(value)), map_location="cpu", weights_only=True)
    except Exception as error:  # what cannot be pickled fails in many ways
        raise ValueError(
            f"{name} is or holds something that torch.load(weights_only=True) cannot read "
            f"({type(value).__name__}); expected tensors, numbers, strings, and containers of them."
        ) from error


def latest(folder: str | Path) -> Path | None:
    """The checkpoint with the most steps in ``folder``; None where there is none.

    >>> latest("/no/such/folder") is None
    True
    """
    return next(reversed(_checkpoints(Path(folder).expanduser())), None)


def load(path: str | Path, models: Mapping[str, nn.Module]) -> dict[str, Any]:
    """Loads a checkpoint into ``models``, on whatever device they are, and returns its ``state``, on the CPU.

    Size and sha256 of every file are checked first, then the name, shape and type of every tensor. All models are
    loaded, or none is touched. Models that were saved but are not asked for are left out: the generator alone is
    enough to draw samples.

    Raises:
        CheckpointError: A file is missing, truncated or tampered with (its ``previous`` is the checkpoint before
            this one), or the models are not those that were saved.
    """
    path = Path(path).expanduser()
    files = _verified(path)
    try:
        saved = safetensors.torch.load(files["weights.safetensors"])
        state = torch.load(io.BytesIO(files["state.pt"]), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a reader makes of bytes that somebody forged along with their checksums
        raise _refusal(path, f"{path} holds files that are not a checkpoint's ({type(error).__name__})") from error
    _copy(saved={k: v for k, v in saved.items() if k.split(".")[0] in models}, to=_tensors(models), source=path)
    return state


def save_pretrained(
    name: str, module: nn.Module, *, command: str, seed: int, seconds: float, metrics: Mapping[str, float]
) -> dict[str, Any]:
    """Writes ``mmgan_lib/weights/{name}.safetensors`` and its entry in the manifest, and returns the entry.

    The entry says how to make the file again and how good it is: ``command``, ``seed``, ``seconds`` of training,
    ``metrics``; and, noted here, tier, device, versions and sha256. The same weights give the same file, byte for byte.
    """
    WEIGHTS.mkdir(exist_ok=True)
    content = _to_bytes(module.state_dict())
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
    for file, what in ((f"{name}.safetensors", content), ("manifest.json", manifest.encode())):
        _write(WEIGHTS / f".{file}", what)
        (WEIGHTS / f".{file}").replace(WEIGHTS / file)
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


# Tensors in, tensors out


def _tensors(models: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    return {f"{name}.{key}": tensor for name, model in models.items() for key, tensor in model.state_dict().items()}


def _to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Copies, because safetensors takes neither tensors that share memory nor other memory formats."""
    copies = {key: t.to("cpu", copy=True, memory_format=torch.contiguous_format) for key, t in tensors.items()}
    return safetensors.torch.save(copies)


@torch.no_grad()
def _copy(*, saved: Mapping[str, Tensor], to: Mapping[str, Tensor], source: Path) -> None:
    for key in sorted(saved.keys() | to.keys()):
        found, expected = (_describe(tensors.get(key)) for tensors in (saved, to))
        if found != expected:
            raise CheckpointError(f"{source} holds {found} for {key}, but the model has {expected}.")
    for key, tensor in to.items():
        tensor.copy_(saved[key])


def _describe(tensor: Tensor | None) -> str:
    return "nothing" if tensor is None else f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _pickled(state: dict[str, Any]) -> bytes:
    for key, value in state.items():
        check_state(f"state[{key!r}]", value)
    return _torch_bytes(state)


def _torch_bytes(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _manifest() -> dict[str, Any]:
    file = WEIGHTS / "manifest.json"
    return json.loads(file.read_bytes()) if file.exists() else {}


# Files


def _checksum(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _verified(path: Path) -> dict[str, bytes]:
    """The contents of a checkpoint's files, which are what was saved."""
    try:
        expected = json.loads((path / "checksums.json").read_bytes())
        expected = {name: expected[name] for name in ("weights.safetensors", "state.pt")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"{path / 'checksums.json'}: found no readable checksums ({type(error).__name__}), expected those of save"
        raise _refusal(path, why) from error
    files = {}
    for name, checksum in expected.items():
        files[name] = (path / name).read_bytes() if (path / name).exists() else None
        found = "no such file" if files[name] is None else _checksum(files[name])
        if found != checksum:
            raise _refusal(path, f"{path / name} is damaged: found {found}, expected {checksum}")
    return files


def _refusal(path: Path, why: str) -> CheckpointError:
    earlier = [c for c in _checkpoints(path.parent) if NAME.fullmatch(path.name) and _age(c) < _age(path)]
    previous = earlier[-1] if earlier else None
    offer = f"the checkpoint before it is {previous}" if previous else "there is no checkpoint before it"
    return CheckpointError(f"{why}; {offer}.", previous)


def _checkpoints(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("step-*") if NAME.fullmatch(path.name)), key=_age)


def _age(path: Path) -> tuple[int, bool]:
    """By step; of two with the same step, the one that is being replaced comes first."""
    step, replaced = NAME.fullmatch(path.name).groups()
    return int(step), not replaced


def _publish(unfinished: Path, path: Path) -> None:
    """Renames, so that the checkpoint appears whole; one of the same step makes way, findable until the new one is."""
    replaced = path.with_name(path.name + "~")
    if path.exists():
        _discard(replaced)
        path.rename(replaced)
    unfinished.rename(path)
    _sync_folder(path.parent)
    _discard(replaced)


def _discard(path: Path) -> None:
    """Removes a checkpoint, renamed first: a kill half-way must not leave half of it under a good name."""
    if path.exists():
        path.rename(path.with_name(DISCARDED))
        shutil.rmtree(path.with_name(DISCARDED))


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    if os.name == "posix":  # Windows has no such call for folders
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
