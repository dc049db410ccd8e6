"""Check shards against their manifests and the shard format; exit with code 1 if any are damaged or missing.

    python -m pipeline.verify path=outputs/views

Every tar is read in full. The checks cover its size and sha256, one sample per object that succeeded, and in each
sample images that can be decoded (or latents) and one camera per view. To repair a damaged shard, delete its .tar and
.json and run the command that made it again.
"""

import io
import sys

import numpy as np
from PIL import Image
from tqdm import tqdm

from conf.command import run
from pipeline.config import VerifyConfig
from pipeline.samples import UNDECODABLE, DamagedShard, Sample, npy_array, read_samples, view_names
from pipeline.shards import Kind, ShardManifest, find_manifests, find_tars, integrity_error, read_manifests, read_plan


def main(config: VerifyConfig) -> int:
    """Check all shards at `config.path` and print the result.

    Returns:
        Exit code: 1 if a shard is damaged or missing or the run is unfinished, else 0.

    Raises:
        UserError: The path holds no committed shard.
    """
    kind: Kind = "latents" if find_manifests(config.path, "latents") else "views"
    manifests = read_manifests(config.path, kind)
    damaged = 0
    for manifest in tqdm(manifests, desc="verifying", unit=" shards"):
        if fault := integrity_error(config.path, manifest) or _contents_fault(config.path, manifest):
            damaged += 1
            tqdm.write(f"{manifest.name}: {fault}", file=sys.stdout)
    if unfinished := sorted(set(find_tars(config.path, kind)) - {manifest.name for manifest in manifests}):
        print(f"{len(unfinished)} tars without a manifest, left by an interrupted run: {', '.join(unfinished)}")
    missing = _missing(config.path, manifests)
    if missing is None:
        print("the run that makes these shards is not finished; to resume it, run the same command again")
    elif missing:
        print(f"{missing} shards of the plan are missing; repeat the command that writes them")
    objects = sum(len(manifest.uids) for manifest in manifests)
    if damaged:
        print("to repair a shard, delete its .tar and .json and run the command that made it again")
    print(f"{damaged} of {len(manifests)} shards damaged; {objects} objects in {config.path}")
    return 1 if damaged or missing != 0 else 0


def _missing(root: str, manifests: list[ShardManifest]) -> int | None:
    """Return the number of planned shards that are not committed, or None where the plan has no number of shards."""
    plan = read_plan(root)
    if plan is None:
        return 0
    shards = plan.get("shards")
    return None if shards is None else shards - len(manifests)


def _contents_fault(root: str, manifest: ShardManifest) -> str:
    """Return a message that describes the first invalid sample of a tar with the correct sha256, or an empty string."""
    found = []
    try:
        for uid, sample in read_samples(root, manifest.name):
            found.append(uid)
            if fault := _fault(sample):
                return f"{uid}: {fault}"
    except DamagedShard as error:
        return error.reason
    return "" if found == manifest.uids else "its objects differ from those of its manifest"


def _fault(sample: Sample) -> str:
    try:
        return latents_fault(sample) if "moments.npy" in sample else sample_fault(sample)
    except UNDECODABLE as error:
        return f"cannot be decoded: {error!r:.300}"


def sample_fault(sample: Sample) -> str:
    """Return a message that describes the fault of a view sample, or an empty string if it is valid.

    A valid sample has `N` images in RGBA or RGB that can be decoded, finite cameras `[N, 3, 4]` and metadata.
    """
    views = view_names(sample)
    if missing := {"cameras.npy", "meta.json"} - set(sample):
        return f"no {' and no '.join(sorted(missing))}"
    cameras = npy_array(sample["cameras.npy"])
    if cameras.shape != (len(views), 3, 4) or not np.isfinite(cameras).all():
        return f"{len(views)} views but cameras of shape {cameras.shape}"
    for name in views:
        with Image.open(io.BytesIO(sample[name])) as image:
            image.load()
            if image.mode not in ("RGBA", "RGB"):  # WebP omits the alpha channel of an opaque image
                return f"{name} is {image.mode}, not RGBA"
    return ""


def latents_fault(sample: Sample) -> str:
    """Return a message that describes the fault of a latent sample, or an empty string if it is valid.

    A valid sample has finite cameras `[N, 3, 4]`, moments `[N, …]` and embeddings `[N, …]`, and metadata.
    """
    if missing := {"embedding.npy", "cameras.npy", "meta.json"} - set(sample):
        return f"no {' and no '.join(sorted(missing))}"
    moments, embedding, cameras = (npy_array(sample[f"{name}.npy"]) for name in ("moments", "embedding", "cameras"))
    views = len(cameras)
    if cameras.shape != (views, 3, 4) or moments.shape[:1] != (views,) or embedding.shape[:1] != (views,):
        return f"cameras of shape {cameras.shape} with moments of {moments.shape} and embeddings of {embedding.shape}"
    return "" if all(np.isfinite(array).all() for array in (moments, embedding, cameras)) else "not all is finite"


def command() -> None:
    """Run the command line."""
    run(main, VerifyConfig, "pipeline", "verify", help=__doc__)


if __name__ == "__main__":
    command()
