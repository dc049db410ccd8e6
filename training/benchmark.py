"""Measure training steps per second, beside a plain loop of diffusers' components.

    python -m training.benchmark
    python -m training.benchmark batch_sizes=64,128 output=outputs/benchmark
    python -m training.benchmark model=tiny batch_sizes=16

Runs on one device with random pairs in memory and random weights, by default the full Stable Diffusion U-Net at 256²;
no shards or checkpoints are needed. *Ours* is the step of training.finetune from cached latents. *Plain* runs the
autoencoder and the image encoder at every step, with the defaults of diffusers and torch, in the same precision. The
variants take turns in blocks of steps, and medians are reported. With `threads=1` on a CPU, CPU time is measured, which
other load affects little. The folder then holds `benchmark.md` (tables), `.csv` and `.json`.
"""

from conf.command import run
from pipeline.output import FolderLayout, claimed, json_object
from training.config import BenchmarkConfig

LAYOUT = FolderLayout(
    record="benchmark.json",
    is_record=lambda contents: {"setting", "rows"} <= json_object(contents).keys(),
    writes=r"benchmark\.(md|csv|json)",
)


def main(config: BenchmarkConfig) -> int:
    """Run the command; return the exit code."""
    with claimed(config.output, LAYOUT):
        from training.benchmarking.step_benchmark import benchmark

        return benchmark(config)


def command() -> None:
    """Run the command line."""
    run(main, BenchmarkConfig, "training", "benchmark", help=__doc__)


if __name__ == "__main__":
    command()
