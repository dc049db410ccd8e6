"""Encode view shards into latent shards as Ray tasks."""

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import replace

from tqdm import tqdm

from conf.options import UserError
from pipeline.cluster import SHIPPED, connected, gpu_share, run_tasks
from pipeline.output import require_shared
from pipeline.shards import ObjectRecord, ShardManifest, find_manifests, read_manifests, require_same_plan
from pipeline.storage import absolute
from pipeline.summary import summarise
from training.config import EncodeConfig
from training.data.latents import EncodeJob, encode_shard, identity
from training.data.sources import source_roots
from training.model.architecture import build_encoders
from training.model.hardware.device import resolve_device
from training.model.hardware.precision import Precision

# plan.json keeps the earlier names of precisions, so that folders of earlier versions can be continued.
PLAN_PRECISIONS = {Precision.auto: "auto", Precision.float32: "single", Precision.float16: "half"}


def resolved(config: EncodeConfig) -> tuple[EncodeConfig, list[ShardManifest]]:
    """Return the options with models on the hub resolved to commits, so that all workers read the same, and the shards.

    Raises:
        UserError: This machine has no such device, or a model or the shards cannot be read.
    """
    if config.cluster.address is None:
        resolve_device(config.device)  # another cluster may have devices that this machine has not
    if len(source_roots(config.path)) > 1:
        raise UserError(
            f"path={config.path}: the shards of one source become those of one output; encode each source on its own, "
            "then train with data.path=outputs/latents-a,outputs/latents-b"
        )
    return replace(config, model=config.model.pinned()), read_manifests(config.path, "views")


def encode_all(config: EncodeConfig, manifests: list[ShardManifest]) -> int:
    """Encode the shards that the output does not hold yet; return the exit code."""
    jobs = plan_jobs(config, manifests)
    done = {manifest.name: manifest.records for manifest in find_manifests(config.output, "latents")}
    todo = [
        job for job in jobs if any(r.reason in config.retry for r in done.get(job.name, ())) or job.name not in done
    ]
    records = {record.uid: record for job in jobs if job not in todo for record in done[job.name]}
    if todo:
        print(f"{sum(len(job.manifest.uids) for job in todo)} objects to encode in {len(todo)} shards; starting Ray")
        with connected(config.cluster, config.threads, (*SHIPPED, "training")):
            for record in _encode(config, todo):
                records[record.uid] = record
        require_shared(config.output, [f"{job.name}.json" for job in todo])
    hint = "see the .json files of the shards; to encode them again: retry={reasons}"
    return summarise(config.output, records.values(), config.max_failure_rate, hint, "latents")


def plan_jobs(config: EncodeConfig, manifests: list[ShardManifest]) -> list[EncodeJob]:
    """Write the plan of the output, or compare it to the one there; return a job for each view shard.

    Raises:
        UserError: There are no objects, or the output was begun with other shards, encoders or images.
    """
    objects = sum(len(manifest.uids) for manifest in manifests)
    if not objects:
        raise UserError(f"path={config.path}: no object was rendered; see the reasons in the shards' .json files")
    encoders = identity(*build_encoders(config.model, config.seed))
    listing = "".join(f"{manifest.name} {manifest.sha256}\n" for manifest in manifests)
    plan = {
        "objects": objects,
        "shards": len(manifests),
        "listing": hashlib.sha256(listing.encode()).hexdigest(),
        "resolution": config.model.resolution,
        "background": config.background.value,
        "precision": PLAN_PRECISIONS[config.precision],
        "encoders": encoders,
    }
    require_same_plan(config.output, plan, "latents")
    config = replace(config, path=absolute(config.path), output=absolute(config.output))
    return [EncodeJob(config, manifest, encoders) for manifest in manifests]


def _encode(config: EncodeConfig, jobs: list[EncodeJob]) -> Iterator[ObjectRecord]:
    """Run the jobs with a progress bar; yield the record of each object when it is done."""
    share, failed = gpu_share(config, config.cluster), 0
    with tqdm(
        total=sum(len(job.manifest.uids) for job in jobs), desc="encoding", unit=" objects", smoothing=0.1
    ) as bar:
        for record in run_tasks(encode_shard, jobs, config.cluster, config.threads, share):
            if record.status == "failed":
                failed += 1
                bar.write(f"  {record.uid}: {record.reason}: {record.detail}", file=sys.stderr)
            bar.set_postfix(failed=failed, refresh=False)
            bar.update()
            yield record
