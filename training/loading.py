"""Measure how fast view pairs are read: from the original's PNG files, view shards and latent shards.

    python -m pipeline.render objects=folder objects.path=my_objects renderer.resolution=512 output=outputs/views512
    python -m pipeline.export path=outputs/views512 output=outputs/png512
    python -m pipeline.pack path=outputs/png512 resolution=256 output=outputs/views
    python -m training.encode path=outputs/views model=zero123 output=outputs/latents
    python -m training.loading original=outputs/png512 views=outputs/views latents=outputs/latents

The sources take turns in one process on one core. The unit is pairs per second of CPU time, collation included. The
original reads two 512² PNG files with matplotlib, sets transparent pixels to white, resizes with Pillow and converts to
float (`ObjaverseData` in its `ldm/data/simple.py`).
"""

from conf.command import run
from training.config import LoadingConfig


def main(config: LoadingConfig) -> int:
    """Run the command; return the exit code."""
    from training.data.loading_speed import compare_sources

    return compare_sources(config)


def command() -> None:
    """Run the command line."""
    run(main, LoadingConfig, "training", "loading", help=__doc__)


if __name__ == "__main__":
    command()
