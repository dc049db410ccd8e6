"""View shards to latent shards: what the frozen encoders make of every view, once instead of at every step."""

import hashlib
import json
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from conf.options import UserError
from pipeline.shards import (
    ObjectRecord,
    Sample,
    ShardManifest,
    ShardWriter,
    npy_array,
    npy_bytes,
    read_plan,
    read_samples,
    view_names,
)
from training.config import EncodeConfig, EncodePrecision
from training.data.pair_stream import UNREADABLE
from training.model.architecture import build_encoders
from training.model.autoencoder import Autoencoder
from training.model.conditioning import embed
from training.model.fingerprint import raw_bytes
from training.model.picture import Background, as_floats, decode
from training.model.zero123 import Zero123

NOT_IN_SHAPES = ("hidden_act", "image_size", "layer_norm_eps", "num_attention_heads")  # of an image encoder's config


@dataclass(frozen=True)
class EncodeJob:
    """What one Ray task needs to make one latent shard: the view shard, and the encoders it is to find."""

    config: EncodeConfig
    marker: ShardManifest
    identity: str

    @property
    def name(self) -> str:
        return latent_name(self.marker)


@dataclass(frozen=True)
class Encoders:
    """The frozen parts of a model on a device."""

    vae: Autoencoder
    image_encoder: CLIPVisionModelWithProjection
    half: bool = False

    @torch.no_grad()
    def __call__(self, pictures_VHW3: NDArray[np.uint8], batch_size: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Moments `[V, 2C, h, w]` and embeddings `[V, D]` of pictures, in half precision."""
        device = self.vae.device
        parts: list[tuple[Tensor, Tensor]] = []
        for batch in torch.from_numpy(pictures_VHW3).permute(0, 3, 1, 2).split(batch_size):
            images = as_floats(batch.to(device))
            with torch.autocast(device.type, torch.float16, enabled=self.half):
                moments = self.vae.encode(images).latent_dist.parameters
                parts.append((moments, embed(self.image_encoder, images)))
        moments, embedding = (torch.cat(part).half().cpu().numpy() for part in zip(*parts, strict=True))
        return moments, embedding


def identity(vae: Autoencoder, image_encoder: CLIPVisionModelWithProjection) -> str:
    """A hash of the encoders' weights and of what the weights alone do not tell."""
    settings = {name: value for name, value in vae.config.items() if not name.startswith("_")}
    settings |= {name: getattr(image_encoder.config, name) for name in NOT_IN_SHAPES}
    digest = hashlib.sha256(json.dumps([type(vae).__name__, settings], sort_keys=True).encode())
    for part in (vae, image_encoder):
        for name, weight in sorted(part.state_dict().items()):
            digest.update(f"{name} {weight.dtype} {list(weight.shape)}".encode())
            digest.update(raw_bytes(weight))
    return digest.hexdigest()[:16]


def encode_shard(job: EncodeJob) -> Iterator[ObjectRecord]:
    """Make and commit one latent shard; yields what became of each object of the view shard."""
    encoders = _encoders(job)
    records: list[ObjectRecord] = []
    with ShardWriter(job.config.output, job.name) as shard:
        for before, sample, fault in _samples(job.config.path, job.marker):
            if records:
                yield records[-1]
            latents, record = _encode(before, sample, fault, encoders, job.config)
            records.append(record)
            if latents:
                shard.add(record.uid, latents)
        shard.commit(records)
    # The last object counts as done only once the shard is.
    if records:
        yield records[-1]


def latent_name(marker: ShardManifest) -> str:
    """The latent shard that a view shard becomes."""
    return marker.name.replace("views", "latents")


def require_fitting(path: str, model: Zero123, background: Background) -> None:
    """Refuse latents that other encoders made, or pictures of another kind.

    Raises:
        UserError: `path` holds latents that do not fit the model, or does not say what made them.
    """
    plan = read_plan(path)
    plan = plan if isinstance(plan, dict) else {}
    if plan.get("resolution") != model.resolution:
        raise UserError(f"{path} was encoded at resolution={plan.get('resolution')}, the model's is {model.resolution}")
    if plan.get("background") != background:
        raise UserError(f"{path} was encoded with background={plan.get('background')}; set data.background to it")
    if plan.get("encoders") != identity(model.vae, model.image_encoder):
        raise UserError(
            f"{path} was encoded by another autoencoder or image encoder; give the model=…, model.…=… and seed=… that "
            "training.encode was given, or encode the views again"
        )


def _encode(
    before: ObjectRecord, sample: Sample, fault: str, encoders: Encoders, config: EncodeConfig
) -> tuple[Sample, ObjectRecord]:
    """The latent sample of one object, empty if it has none, and its record, which keeps the views' verdicts."""
    start = time.monotonic()

    def record(status: Any, reason: str = "", detail: str = "", size: int = 0) -> ObjectRecord:
        seconds = round(time.monotonic() - start, 3)
        known = {"node": platform.node(), "verdicts": before.verdicts, "mesh": before.mesh}
        return ObjectRecord(before.uid, status, reason, detail, seconds, bytes=size, **known)  # type: ignore[arg-type]

    if fault:
        return {}, record("failed", "missing", fault)
    try:
        names, cameras = view_names(sample), npy_array(sample["cameras.npy"])
        if not names or cameras.shape != (len(names), 3, 4):
            raise ValueError(f"{len(names)} views with cameras of shape {cameras.shape}")
        pictures = np.stack([decode(sample[name], config.model.resolution, config.background) for name in names])
        meta = sample["meta.json"]
    except UNREADABLE as error:
        return {}, record("failed", "unreadable", f"{error!r:.300}")
    moments, embedding = encoders(pictures, config.batch_size)
    if not (np.isfinite(moments).all() and np.isfinite(embedding).all()):
        return {}, record("failed", "overflow", "what the encoders made of it has no place in half precision")
    arrays = {"moments.npy": moments, "embedding.npy": embedding, "cameras.npy": cameras}
    latents = {**{name: npy_bytes(array) for name, array in arrays.items()}, "meta.json": meta}
    return latents, record("ok", size=sum(map(len, latents.values())))


def _samples(root: str, marker: ShardManifest) -> Iterator[tuple[ObjectRecord, Sample, str]]:
    """Every object with views, its sample, and why that is missing where it is."""
    left = {record.uid: record for record in marker.records if record.status == "ok"}
    fault = "it is not in its shard"
    try:
        for uid, sample in read_samples(root, marker.name):
            if record := left.pop(uid, None):
                yield record, sample, ""
    except UNREADABLE as error:
        fault = f"{marker.name}.tar is damaged: {error!r:.300}"
    for record in left.values():
        yield record, {}, fault


_loaded: list[tuple[EncodeConfig, Encoders]] = []  # one model for all the shards that this process makes


def _encoders(job: EncodeJob) -> Encoders:
    config = job.config
    if not _loaded or _loaded[0][0] != config:
        torch.set_num_threads(config.threads)
        gpu = torch.cuda.is_available()
        if config.device == "cuda" and not gpu:
            raise UserError("device=cuda: this machine has no CUDA device that torch can use")
        vae, image_encoder = build_encoders(config.model, config.seed)
        if identity(vae, image_encoder) != job.identity:
            raise UserError("a worker found other encoders than this machine has; name folders that all machines see")
        device = "cuda" if gpu and config.device != "cpu" else "cpu"
        half = config.precision is EncodePrecision.half or (config.precision is EncodePrecision.auto and gpu)
        _loaded[:] = [(config, Encoders(vae.to(device), image_encoder.to(device), half and device == "cuda"))]  # type: ignore[arg-type]
    return _loaded[0][1]
