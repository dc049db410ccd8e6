"""Encode every view once, so that training runs neither autoencoder nor image encoder: view shards to latent shards.

    python -m training.encode path=outputs/views model.pretrained=sd-image-variations output=outputs/latents
    python -m training.encode path=s3://bucket/views model.pretrained=… output=s3://bucket/latents +cluster=aws
    python -m training.finetune data.kind=latents data.path=outputs/latents model.pretrained=sd-image-variations

`model`, its options and `seed` are those of the training to come, which refuses latents of other encoders. Every view
shard becomes one latent shard, on GPUs where Ray finds some. An object that cannot be read is recorded with its
reason, and the run goes on. To resume, run the same command again.
"""

import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace

import torch
from tqdm import tqdm

from conf.command import run
from conf.options import UserError
from pipeline.cluster import SHIPPED, connected, gpu_share, run_tasks
from pipeline.output import FolderLayout, claimed, json_object
from pipeline.shards import ObjectRecord, ShardManifest, find_markers, read_manifests, require_same_plan
from pipeline.summary import summarise
from training.config import EncodeConfig
from training.data.latents import EncodeJob, encode_shard, identity
from training.model.architecture import build_encoders

LAYOUT = FolderLayout(
    record="plan.json",
    is_record=lambda contents: {"listing", "encoders"} <= json_object(contents).keys(),
    writes=r"latents-\d{6}\.(tar|json)|plan\.json",
)


def main(config: EncodeConfig) -> int:
    if not importlib.util.find_spec("ray"):
        raise UserError("this Python has no Ray, which spreads the work; install the `render` extra")
    if config.device == "cuda" and config.cluster.address is None and not torch.cuda.is_available():
        raise UserError("device=cuda: this machine has no CUDA device that torch can use")
    config = replace(config, model=config.model.pinned())  # every worker reads the encoders of one commit
    markers = read_manifests(config.path, "views")
    with claimed(config.output, LAYOUT):
        return encode_all(config, markers)


def encode_all(config: EncodeConfig, markers: list[ShardManifest]) -> int:
    """Encode the objects that the output does not hold yet; return the exit code."""
    jobs = jobs_of(config, markers)
    done = {marker.name: marker.records for marker in find_markers(config.output, "latents")}
    todo = [
        job for job in jobs if any(r.reason in config.retry for r in done.get(job.name, ())) or job.name not in done
    ]
    records = {record.uid: record for job in jobs if job not in todo for record in done[job.name]}
    if todo:
        print(f"{sum(len(job.marker.uids) for job in todo)} objects to encode in {len(todo)} shards; starting Ray")
        with connected(config.cluster, config.threads, (*SHIPPED, "training")):
            for record in _encode(config, todo):
                records[record.uid] = record
    hint = "the shards' .json files say more; to encode them again: retry={reasons}"
    return summarise(config.output, records.values(), config.max_failure_rate, hint, "latents")


def jobs_of(config: EncodeConfig, markers: list[ShardManifest]) -> list[EncodeJob]:
    """A job for each view shard, after the plan is found equal to the one at the output or written there.

    Raises:
        UserError: there are no objects, or the output was begun with other shards, encoders or pictures.
    """
    objects = sum(len(marker.uids) for marker in markers)
    if not objects:
        raise UserError(f"{config.path} holds no object that was rendered; see the reasons in its markers")
    encoders = identity(*build_encoders(config.model, config.seed))
    listing = "".join(f"{marker.name} {marker.sha256}\n" for marker in markers)
    plan = {
        "objects": objects,
        "shards": len(markers),
        "listing": hashlib.sha256(listing.encode()).hexdigest(),
        "resolution": config.model.resolution,
        "background": config.background.value,
        "precision": config.precision.value,
        "encoders": encoders,
    }
    require_same_plan(config.output, plan, "latents")
    return [EncodeJob(config, marker, encoders) for marker in markers]


def _encode(config: EncodeConfig, jobs: list[EncodeJob]) -> Iterator[ObjectRecord]:
    """The record of each object as it is known, with a progress bar beside."""
    share, failed = gpu_share(config, config.cluster), 0
    with tqdm(total=sum(len(job.marker.uids) for job in jobs), desc="encoding", unit=" objects", smoothing=0.1) as bar:
        for record in run_tasks(encode_shard, jobs, config.cluster, config.threads, share):
            if record.status == "failed":
                failed += 1
                bar.write(f"  {record.uid}: {record.reason}: {record.detail}", file=sys.stderr)
            bar.set_postfix(failed=failed, refresh=False)
            bar.update()
            yield record


def command() -> None:
    """Run the command line."""
    run(main, EncodeConfig, "encoding", "encode", help=__doc__)


if __name__ == "__main__":
    command()
