"""Features of a frozen network, computed once and kept on disk."""

import hashlib
import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mmgan_lib import __version__
from mmgan_lib.encoders.base import evaluating


def cached_features(
    encoder: nn.Module, inputs: Tensor | Sequence[str], *, folder: str | Path | None = None, batch_size: int = 256
) -> Tensor:
    """Computes ``encoder(inputs)`` only once, in eval mode and without gradients: (N, D) on the CPU.

    The result is kept in a file whose name is a hash of the inputs, the encoder's settings (its ``repr``) and weights,
    and the version of this library: change one of them, and the features are computed anew. A damaged file is told of
    with a warning and computed anew. Files of features that are used no more are yours to delete.

    Args:
        encoder: maps some of the inputs to vectors (B, D).
        inputs: images (N, C, H, W), waveforms (N, S), or N texts.
        folder: holds the files; None for the user's cache.
        batch_size: inputs that the encoder is given at once.

    Raises:
        ValueError: No inputs.
    """
    if len(inputs) == 0:
        raise ValueError("inputs: found none; expected at least one.")
    file = _folder(folder) / f"{_fingerprint(encoder, inputs)}.safetensors"
    if file.exists():
        try:
            return _read(file)
        except (SafetensorError, ValueError) as error:
            warnings.warn(f"{file} is damaged ({error}); its features are computed anew.", stacklevel=2)
    features = _compute(encoder, inputs, batch_size)
    _write(file, features)
    return features


def _folder(folder: str | Path | None) -> Path:
    if folder is not None:
        return Path(folder).expanduser()
    import pooch

    return Path(pooch.os_cache("mmgan_lib")) / "features"


def _compute(encoder: nn.Module, inputs: Tensor | Sequence[str], batch_size: int) -> Tensor:
    device = next(encoder.parameters(), torch.empty(0)).device
    features = []
    with evaluating(encoder):
        for start in range(0, len(inputs), batch_size):
            part = inputs[start : start + batch_size]
            features.append(encoder(part.to(device) if isinstance(part, Tensor) else part).cpu())
    return torch.cat(features)


def _fingerprint(encoder: nn.Module, inputs: Tensor | Sequence[str]) -> str:
    weights = {name: _checksum(tensor) for name, tensor in encoder.state_dict().items()}
    content = _checksum(inputs) if isinstance(inputs, Tensor) else list(inputs)
    return hashlib.sha256(json.dumps([__version__, repr(encoder), weights, content]).encode()).hexdigest()


def _checksum(tensor: Tensor) -> str:
    """Hashes type, shape and numbers."""
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _write(file: Path, features: Tensor) -> None:
    """Writes a file whole or not at all: beside its place, and then renamed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part")
    save_file({"features": features.contiguous()}, part, metadata={"sha256": _checksum(features)})
    part.replace(file)


def _read(file: Path) -> Tensor:
    with safe_open(file, framework="pt") as content:
        features, expected = content.get_tensor("features"), (content.metadata() or {}).get("sha256")
    if _checksum(features) != expected:
        raise ValueError(f"found sha256 {_checksum(features)}, expected {expected}")
    return features
