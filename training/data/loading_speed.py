"""Measure how fast view pairs are read from PNG files, view shards and latent shards."""

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

from conf.options import UserError
from rendering.cameras import relative_pose
from training.config import DataConfig, DataKind, LoadingConfig
from training.data.batches import training_batches
from training.data.sources import training_sources
from training.data.split import split

ROUNDS = 5


class Original(Dataset[dict[str, Tensor]]):
    """A random pair of views of each folder `<uid>/000.png, 000.npy …`, read as in the original."""

    def __init__(self, root: Path, resolution: int) -> None:
        self.folders = sorted(path.parent for path in root.glob("*/001.png"))
        self.resolution, self.random = resolution, random.Random(0)
        if not self.folders:
            raise UserError(f"original={root}: no folders <uid> with images 000.png …; write them with pipeline.export")
        self.views = len(list(self.folders[0].glob("*.png")))

    def __len__(self) -> int:
        return len(self.folders)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        target, condition = (self.folders[index] / f"{i:03d}" for i in self.random.sample(range(self.views), 2))
        pose = relative_pose(np.load(target.with_suffix(".npy")), np.load(condition.with_suffix(".npy")))
        images = {"image_target": self._image(target), "image_cond": self._image(condition)}
        return {**images, "T": torch.tensor(pose)}

    def _image(self, path: Path) -> Tensor:
        pixels = imread(path.with_suffix(".png"))
        pixels[pixels[..., 3] == 0] = 1
        image = Image.fromarray((pixels[..., :3] * 255).astype(np.uint8))
        image = image.resize((self.resolution, self.resolution), Image.Resampling.BILINEAR)
        floats = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
        return (floats * 2 - 1).permute(1, 2, 0)


def compare_sources(config: LoadingConfig) -> int:
    """Print the pairs per CPU second of each source; return the exit code.

    Raises:
        UserError: No source is given, or one cannot be read.
    """
    torch.set_num_threads(1)
    sources: dict[str, Callable[[], Iterator[Any]]] = {}
    if config.original:
        images = Original(Path(config.original), config.resolution)
        sources["PNG, as in the original"] = lambda: _endless(images, config.batch_size)
    for kind, path in ((DataKind.views, config.views), (DataKind.latents, config.latents)):
        if path:
            sources[f"{kind} shards"] = lambda kind=kind, path=path: _batches(config, kind, path)  # type: ignore[misc]
    if not sources:
        raise UserError("original, views, latents: none is set; set at least one to a folder")
    rates = _measure({name: open_source() for name, open_source in sources.items()}, config)
    first = statistics.median(next(iter(rates.values())))
    print(f"| source | pairs/s | of {ROUNDS} rounds | ratio |\n| --- | --- | --- | --- |")
    for name, rounds in rates.items():
        rate = statistics.median(rounds)
        print(f"| {name} | {rate:,.0f} | {min(rounds):,.0f} to {max(rounds):,.0f} | {rate / first:.1f}× |")
    return 0


def _measure(sources: dict[str, Iterator[Any]], config: LoadingConfig) -> dict[str, list[float]]:
    """Return the pairs per CPU second of each source in each round, after one batch to warm up."""
    rates: dict[str, list[float]] = {name: [] for name in sources}
    for stream in sources.values():
        next(stream)
    for _ in tqdm(range(ROUNDS), desc="reading", unit=" rounds"):
        for name, stream in sources.items():
            start, batches = time.process_time(), 0
            while (seconds := time.process_time() - start) < config.seconds:
                next(stream)
                batches += 1
            rates[name].append(batches * config.batch_size / seconds)
    return rates


def _endless(images: Original, batch_size: int) -> Iterator[Any]:
    sampler = (i for _ in iter(int, 1) for i in torch.randperm(len(images)).tolist())
    while True:
        yield next(iter(DataLoader(images, batch_size, sampler=list(islice(sampler, batch_size)))))


def _batches(config: LoadingConfig, kind: DataKind, path: str) -> Iterator[Any]:
    data = DataConfig(
        path=path,
        kind=kind,
        batch_size=config.batch_size,
        pairs_per_object=config.pairs_per_object,
        workers=0,
        cache_mb=config.cache_mb,
    )
    shards = split(training_sources(data), 0.0).training
    return iter(training_batches(data, shards, config.resolution, seed=0))
