"""Measure the speed of sampling views, or of rendering a reconstruction's field.

    python -m inference.benchmark checkpoint=outputs/run/model
    python -m inference.benchmark subject=reconstruction
    python -m inference.benchmark checkpoint=105000.ckpt community=pipeline_zero1to3.py compile=true

Variants of sampling (subject=views), measured in turns:
  ours          all views of one picture in one call of NovelView
  single calls  one call per view, each of which encodes the picture, with diffusers' attention; on a CPU in float32,
                unless `precision` is given
  community     one call per view of diffusers' examples/community/pipeline_zero1to3.py with the same weights, if
                `community` names that file. The file is executed and needs the package kornia.

Renderers (subject=reconstruction), measured in turns on equal samples: that of score Jacobian chaining, and a dense one
that interpolates every sample with grid_sample.

Writes benchmark.md (median times and the differences between the pictures) and benchmark.json into `output`.
"""

from conf.command import run
from inference.config import BenchmarkConfig, BenchmarkSubject
from pipeline.output import FolderLayout, claimed, json_object

LAYOUT = FolderLayout(
    record="benchmark.json",
    is_record=lambda contents: (
        {"ours"} < json_object(contents).keys() <= {"ours", "single calls", "community", "dense"}
    ),
    writes=r"benchmark\.(md|json)",
)


def main(config: BenchmarkConfig) -> int:
    """Run the benchmark in a locked output folder; return the exit code."""
    with claimed(config.output, LAYOUT):
        if config.subject is BenchmarkSubject.reconstruction:
            from inference.benchmarking import reconstruction_benchmark

            return reconstruction_benchmark.benchmark(config)
        from inference.benchmarking import sampling_benchmark

        return sampling_benchmark.benchmark(config)


def command() -> None:
    """Run the command line."""
    run(main, BenchmarkConfig, "inference", "benchmark", help=__doc__)


if __name__ == "__main__":
    command()
