"""How fast pairs of views are read: the original's way beside view shards and latent shards of the same objects.

    python -m pipeline.render objects=folder objects.path=my_objects renderer.resolution=512 output=outputs/views512
    python -m pipeline.export path=outputs/views512 output=outputs/png512
    python -m pipeline.pack path=outputs/png512 resolution=256 output=outputs/views
    python -m training.encode path=outputs/views model=zero123 output=outputs/latents
    python -m training.loading original=outputs/png512 views=outputs/views latents=outputs/latents

The ways take turns, in one process on one core, and the figures are pairs per second of its CPU time, batches
included. The original's way: two PNG of 512² through matplotlib, made white where they are transparent, resized by
Pillow, turned into floats (`ObjaverseData` of its `ldm/data/simple.py`).
"""

import random
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.image import imread
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from conf.command import run
from conf.options import UserError
from pipeline.shards import read_manifests
from rendering.cameras import relative_pose
from training.config import DataConfig, DataKind, LoadingConfig
from training.data.pair_stream import training_batches
from training.data.split import split

ROUNDS = 5


class Original(Dataset[dict[str, Tensor]]):
    """Folders `<uid>/000.png, 000.npy …`, a random pair of views of each, as the original reads them."""

    def __init__(self, root: Path, resolution: int) -> None:
        self.folders = sorted(path.parent for path in root.glob("*/001.png"))
        self.resolution, self.random = resolution, random.Random(0)
        if not self.folders:
            raise UserError(f"original: {root} holds no folders <uid> with pictures 000.png …; see pipeline.export")
        self.views = len(list(self.folders[0].glob("*.png")))

    def __len__(self) -> int:
        return len(self.folders)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        target, condition = (self.folders[index] / f"{i:03d}" for i in self.random.sample(range(self.views), 2))
        pose = relative_pose(np.load(target.with_suffix(".npy")), np.load(condition.with_suffix(".npy")))
        pictures = {"image_target": self._picture(target), "image_cond": self._picture(condition)}
        return {**pictures, "T": torch.tensor(pose)}

    def _picture(self, path: Path) -> Tensor:
        pixels = imread(path.with_suffix(".png"))
        pixels[pixels[..., 3] == 0] = 1
        image = Image.fromarray((pixels[..., :3] * 255).astype(np.uint8))
        image = image.resize((self.resolution, self.resolution), Image.Resampling.BILINEAR)
        picture = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
        return (picture * 2 - 1).permute(1, 2, 0)


def main(config: LoadingConfig) -> int:
    torch.set_num_threads(1)
    ways: dict[str, Callable[[], Iterator[Any]]] = {}
    if config.original:
        pictures = Original(Path(config.original), config.resolution)
        ways["PNG, the original's way"] = lambda: _endless(pictures, config.batch_size)
    for kind, path in ((DataKind.views, config.views), (DataKind.latents, config.latents)):
        if path:
            ways[f"{kind} shards"] = lambda kind=kind, path=path: _batches(config, kind, path)  # type: ignore[misc]
    if not ways:
        raise UserError("nothing to read; name some of original=…, views=…, latents=…")
    paces = _measure({name: way() for name, way in ways.items()}, config)
    first = statistics.median(next(iter(paces.values())))
    print(f"| way | pairs/s | of {ROUNDS} rounds | ratio |\n| --- | --- | --- | --- |")
    for name, rounds in paces.items():
        pace = statistics.median(rounds)
        print(f"| {name} | {pace:,.0f} | {min(rounds):,.0f} to {max(rounds):,.0f} | {pace / first:.1f}× |")
    return 0


def _measure(ways: dict[str, Iterator[Any]], config: LoadingConfig) -> dict[str, list[float]]:
    """Pairs per CPU second of each way in each round; the first batches warm it up."""
    paces: dict[str, list[float]] = {name: [] for name in ways}
    for stream in ways.values():
        next(stream)
    for _ in tqdm(range(ROUNDS), desc="reading", unit=" rounds"):
        for name, stream in ways.items():
            start, batches = time.process_time(), 0
            while (seconds := time.process_time() - start) < config.seconds:
                next(stream)
                batches += 1
            paces[name].append(batches * config.batch_size / seconds)
    return paces


def _endless(pictures: Original, batch_size: int) -> Iterator[Any]:
    sampler = (i for _ in iter(int, 1) for i in torch.randperm(len(pictures)).tolist())
    while True:
        yield next(iter(DataLoader(pictures, batch_size, sampler=list(islice(sampler, batch_size)))))


def _batches(config: LoadingConfig, kind: DataKind, path: str) -> Iterator[Any]:
    data = DataConfig(
        path=path,
        kind=kind,
        batch_size=config.batch_size,
        pairs_per_object=config.pairs_per_object,
        workers=0,
        cache_mb=config.cache_mb,
    )
    shards = split(read_manifests(path, kind.value), 0.0).training
    return iter(training_batches(data, shards, config.resolution, seed=0))


def command() -> None:
    """Run the command line."""
    run(main, LoadingConfig, "training", "loading", help=__doc__)


if __name__ == "__main__":
    command()
