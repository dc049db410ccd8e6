"""Hash of all weights and settings of a model."""

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from training.model.zero123 import Zero123


def fingerprint(model: Zero123) -> str:
    """Return a hash of every weight of the model and of the settings of its parts.

    It is computed from the loaded tensors, not from files: a copied or touched checkpoint keeps its fingerprint, and a
    change of a single number changes it. Threads hash some gigabytes per second.
    """
    parts = {name: getattr(model, name) for name in ("unet", "vae", "image_encoder", "cc_projection", "scheduler")}
    settings = {name: _settings(part.config) for name, part in parts.items()}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    weights = sorted(model.state_dict().items())
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for (name, weight), hashed in zip(weights, threads.map(_hash, (weight for _, weight in weights)), strict=True):
            digest.update(f"{name} {weight.dtype} {list(weight.shape)} ".encode() + hashed)
    return digest.hexdigest()[:16]


def raw_bytes(weight: Tensor) -> memoryview:
    """Return the bytes of a tensor, in the order of its elements, independent of device and memory layout."""
    return weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def _hash(weight: Tensor) -> bytes:
    return hashlib.sha256(raw_bytes(weight)).digest()


def _settings(config: Any) -> dict[str, Any]:
    """Return the settings of a configuration without its origin: path and versions of libraries."""
    values = config if isinstance(config, Mapping) else config.to_dict()
    return {name: value for name, value in values.items() if not name.startswith("_") and "version" not in name}
