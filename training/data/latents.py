"""Encode view shards into latent shards, so that training does not run the frozen encoders at every step."""

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
from pipeline.samples import UNDECODABLE, DamagedShard, Sample, npy_array, npy_bytes, read_samples, view_names
from pipeline.shards import ObjectRecord, ShardManifest, ShardWriter, read_plan
from training.config import EncodeConfig
from training.model.architecture import build_encoders
from training.model.autoencoder import Autoencoder
from training.model.checkpoints.fingerprint import raw_bytes
from training.model.conditioning import embed
from training.model.hardware.device import resolve_device
from training.model.hardware.precision import Precision
from training.model.picture import Background, as_floats, decode
from training.model.zero123 import Zero123

# Settings of an image encoder that change its output and do not follow from the shapes of its weights.
ENCODER_SETTINGS = ("hidden_act", "image_size", "layer_norm_eps", "num_attention_heads")


@dataclass(frozen=True)
class EncodeJob:
    """Input of a Ray task that writes one latent shard.

    Attributes:
        config: Options of the command.
        manifest: Manifest of the view shard.
        identity: Identity of the encoders, which the task checks.
    """

    config: EncodeConfig
    manifest: ShardManifest
    identity: str

    @property
    def name(self) -> str:
        """Name of the latent shard."""
        return latent_name(self.manifest)


@dataclass(frozen=True)
class Encoders:
    """The frozen encoders of a model on a device; `half` computes in float16."""

    vae: Autoencoder
    image_encoder: CLIPVisionModelWithProjection
    half: bool = False

    @torch.no_grad()
    def __call__(self, images_VHW3: NDArray[np.uint8], batch_size: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return float16 moments `[V, 2C, h, w]` and embeddings `[V, D]` of images."""
        device = self.vae.device
        parts: list[tuple[Tensor, Tensor]] = []
        for batch in torch.from_numpy(images_VHW3).permute(0, 3, 1, 2).split(batch_size):
            images = as_floats(batch.to(device))
            with torch.autocast(device.type, torch.float16, enabled=self.half):
                moments = self.vae.encode(images).latent_dist.parameters
                parts.append((moments, embed(self.image_encoder, images)))
        moments, embedding = (torch.cat(part).half().cpu().numpy() for part in zip(*parts, strict=True))
        return moments, embedding


def identity(vae: Autoencoder, image_encoder: CLIPVisionModelWithProjection) -> str:
    """Return a hash of the encoders' weights and settings, 16 hexadecimal digits."""
    settings = {name: value for name, value in vae.config.items() if not name.startswith("_")}
    settings |= {name: getattr(image_encoder.config, name) for name in ENCODER_SETTINGS}
    digest = hashlib.sha256(json.dumps([type(vae).__name__, settings], sort_keys=True).encode())
    for part in (vae, image_encoder):
        for name, weight in sorted(part.state_dict().items()):
            digest.update(f"{name} {weight.dtype} {list(weight.shape)}".encode())
            digest.update(raw_bytes(weight))
    return digest.hexdigest()[:16]


def encode_shard(job: EncodeJob) -> Iterator[ObjectRecord]:
    """Write and commit one latent shard; yield the record of each object of the view shard."""
    encoders = _encoders(job)
    records: list[ObjectRecord] = []
    with ShardWriter(job.config.output, job.name) as shard:
        for view_record, sample, fault in _samples(job.config.path, job.manifest):
            if records:
                yield records[-1]
            latents, record = _encode(view_record, sample, fault, encoders, job.config)
            records.append(record)
            if latents:
                shard.add(record.uid, latents)
        shard.commit(records)
    # The last record is yielded after the commit, so that no shard seems done before it is.
    if records:
        yield records[-1]


def latent_name(manifest: ShardManifest) -> str:
    """Return the name of the latent shard of a view shard."""
    return manifest.name.replace("views", "latents")


def require_fitting(path: str, model: Zero123, background: Background) -> None:
    """Check that latent shards suit a model.

    Raises:
        UserError: The latents at `path` are of other encoders, or of images of another resolution or background.
    """
    plan = read_plan(path)
    plan = plan if isinstance(plan, dict) else {}
    if (resolution := plan.get("resolution")) != model.resolution:
        raise UserError(f"data.path={path}: encoded at resolution={resolution}, the model's is {model.resolution}")
    if plan.get("background") != background:
        raise UserError(
            f"data.background={background}: {path} was encoded with {plan.get('background')}; use that or encode again"
        )
    if plan.get("encoders") != identity(model.vae, model.image_encoder):
        raise UserError(
            f"data.path={path}: encoded by another autoencoder or image encoder; use the model=…, model.…=… and seed=… "
            "of training.encode, or encode the views again"
        )


def _encode(
    view_record: ObjectRecord, sample: Sample, fault: str, encoders: Encoders, config: EncodeConfig
) -> tuple[Sample, ObjectRecord]:
    """Return the latent sample of an object, empty on failure, and its record with the verdicts of the views."""
    start = time.monotonic()

    def record(status: Any, reason: str = "", detail: str = "", size: int = 0) -> ObjectRecord:
        seconds = round(time.monotonic() - start, 3)
        kept = {"node": platform.node(), "verdicts": view_record.verdicts, "mesh": view_record.mesh}
        return ObjectRecord(view_record.uid, status, reason, detail, seconds, bytes=size, **kept)  # type: ignore[arg-type]

    if fault:
        return {}, record("failed", "missing", fault)
    try:
        names, cameras = view_names(sample), npy_array(sample["cameras.npy"])
        if not names or cameras.shape != (len(names), 3, 4):
            raise ValueError(f"{len(names)} views with cameras of shape {cameras.shape}")
        images = np.stack([decode(sample[name], config.model.resolution, config.background) for name in names])
        meta = sample["meta.json"]
    except UNDECODABLE as error:
        return {}, record("failed", "unreadable", f"{error!r:.300}")
    moments, embedding = encoders(images, config.batch_size)
    if not (np.isfinite(moments).all() and np.isfinite(embedding).all()):
        return {}, record("failed", "overflow", "the latents exceed the range of float16")
    arrays = {"moments.npy": moments, "embedding.npy": embedding, "cameras.npy": cameras}
    latents = {**{name: npy_bytes(array) for name, array in arrays.items()}, "meta.json": meta}
    return latents, record("ok", size=sum(map(len, latents.values())))


def _samples(root: str, manifest: ShardManifest) -> Iterator[tuple[ObjectRecord, Sample, str]]:
    """Yield each rendered object's record and sample, or an empty sample and the reason why it is missing."""
    remaining = {record.uid: record for record in manifest.records if record.status == "ok"}
    fault = "not in its shard"
    try:
        for uid, sample in read_samples(root, manifest.name):
            if record := remaining.pop(uid, None):
                yield record, sample, ""
    except DamagedShard as error:
        fault = f"{manifest.name}.tar is damaged: {error.reason}"
    for record in remaining.values():
        yield record, {}, fault


_loaded: list[tuple[EncodeConfig, Encoders]] = []  # of this process, for all its shards


def _encoders(job: EncodeJob) -> Encoders:
    config = job.config
    if not _loaded or _loaded[0][0] != config:
        torch.set_num_threads(config.threads)
        device = resolve_device(config.device)
        vae, image_encoder = build_encoders(config.model, config.seed)
        if identity(vae, image_encoder) != job.identity:
            raise UserError("model: a worker has other encoders than the driver; use folders that all machines share")
        half = device.type == "cuda" and config.precision in (Precision.auto, Precision.float16)
        _loaded[:] = [(config, Encoders(vae.to(device), image_encoder.to(device), half))]  # type: ignore[arg-type]
    return _loaded[0][1]
