"""How fast we train, beside a plain loop of diffusers' parts, in one run.

    python -m training.benchmark
    python -m training.benchmark batch_sizes=64,128 output=outputs/benchmark
    python -m training.benchmark model=tiny batch_sizes=16

One device, the full Stable Diffusion U-Net at 256² unless told otherwise, made-up pairs in memory: nothing is loaded,
no shards are needed. *Ours* is the step of training.finetune from cached latents; *plain* encodes both pictures and
runs the image encoder at every step, with diffusers' and torch's defaults, in the same precision. They take turns in
blocks of steps; medians count. On a CPU `threads=1` counts CPU seconds, so that other work beside counts little. The
folder then holds `benchmark.md` (tables), `.csv` and `.json`.
"""

import csv
import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch._dynamo.exc import TorchDynamoException
from tqdm import tqdm

from conf.command import run
from conf.options import UserError
from pipeline.output import FolderLayout, claimed, json_object
from training.config import BenchmarkConfig, Precision
from training.memory import GB, Estimate, available_memory, estimate, largest_batch, require_fit
from training.model.architecture import build
from training.model.attention import attend_to_one_token
from training.model.cost import encoding_flops, mfu, peak_flops, step_flops
from training.model.zero123 import Zero123
from training.variants import OURS, PLAIN, Block, Variant, ablations, measure

LAYOUT = FolderLayout(
    record="benchmark.json",
    is_record=lambda contents: {"setting", "rows"} <= json_object(contents).keys(),
    writes=r"benchmark\.(md|csv|json)",
)
FIRST_BATCH = 8  # of those that double on a GPU


@dataclass(frozen=True)
class Row:
    """A variant at a batch size; milliseconds are those of a step. Compare within a table: its rows took turns."""

    table: str
    variant: str
    batch_size: int
    images_per_second: float | None = None
    ms: float | None = None
    slowest_ms: float | None = None  # of the blocks
    mfu: float | None = None
    peak_gb: float | None = None  # of memory, by torch's allocator
    estimated_gb: float | None = None  # by training.memory, before it was tried
    failure: str = ""


@dataclass(frozen=True)
class Bench:
    """What all measurements share."""

    config: BenchmarkConfig
    model: Zero123
    dtype: torch.dtype
    needed: Estimate  # of one pair
    flops: dict[bool, int]  # of a trained image, with and without the shortcut over one context token

    @property
    def device_name(self) -> str:
        device = self.model.device
        return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def main(config: BenchmarkConfig) -> int:
    with claimed(config.output, LAYOUT):
        return benchmark(config)


def benchmark(config: BenchmarkConfig) -> int:
    """Measure and write the report; return the exit code."""
    if config.threads:
        torch.set_num_threads(config.threads)
    device = _device(config.device)
    bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    half = bfloat16 if config.precision is Precision.auto else config.precision is Precision.bfloat16
    dtype = torch.bfloat16 if half else torch.float32
    compiled = device.type == "cuda" if config.compile is None else config.compile
    ours = replace(OURS, compile=compiled, autotune=device.type == "cuda")
    architecture = replace(config.model, pretrained=None, image_encoder=None)  # what weights say takes no time
    with torch.device("meta"):
        shapes = build(architecture)
    needed = estimate(shapes, 1, latents=False, compute_dtype=dtype, compiled=compiled)
    available = available_memory(device)
    require_fit(needed, available)
    sizes = config.batch_sizes or ([1] if device.type == "cpu" else _doubling(largest_batch(needed, available or 0)))
    flops = {one_token: step_flops(attend_to_one_token(shapes.unet, one_token)) for one_token in (True, False)}
    bench = Bench(config, build(architecture, config.seed).to(device), dtype, needed, flops)
    rows = _compare(bench, ours, list(sizes))
    text = _write(bench, rows)
    print(text)
    print(f"report: {config.output}/benchmark.md")
    return 0


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name != "cpu" and not name.startswith("cuda"):
        raise UserError(f"device={name} is none of auto, cpu, cuda")
    if name != "cpu" and not torch.cuda.is_available():
        raise UserError(f"device={name}: this machine has no CUDA device that torch can use")
    return torch.device(name)


def _doubling(limit: int) -> list[int]:
    """Up to the first that ought not to fit."""
    sizes = [FIRST_BATCH]
    while sizes[-1] <= limit:
        sizes.append(2 * sizes[-1])
    return sizes


def _compare(bench: Bench, ours: Variant, sizes: list[int]) -> list[Row]:
    """Ours and plain at each batch size; then all between them at the largest that both can take."""
    parts = [ours, *ablations(ours), PLAIN] if bench.config.ablation else []
    rows: list[Row] = []
    total = bench.config.rounds * (2 * len(sizes) + len(parts))
    with tqdm(total=total, desc="benchmark", unit=" blocks") as bar:
        for size in sizes:
            rows += _take_turns(bench, "batch sizes", [ours, PLAIN], size, bar)
        taken = {row.batch_size for row in rows} - {row.batch_size for row in rows if row.failure}
        if taken:
            rows += _take_turns(bench, "parts", parts, max(taken), bar)
    return rows


def _take_turns(bench: Bench, table: str, variants: list[Variant], size: int, bar: Any) -> list[Row]:
    blocks: dict[str, list[Block]] = {variant.name: [] for variant in variants}
    failures: dict[str, str] = {}
    for _ in range(bench.config.rounds):
        for variant in variants:
            bar.set_postfix_str(f"{variant.name}, batch {size}", refresh=False)
            if variant.name not in failures:
                try:
                    block = measure(bench.model, variant, size, bench.dtype, bench.config.steps, bench.config.seed)
                    blocks[variant.name].append(block)
                except torch.OutOfMemoryError:
                    failures[variant.name] = "does not fit into memory"
                except TorchDynamoException as error:
                    failures[variant.name] = f"cannot be compiled: {str(error).strip().splitlines()[0]}"
            bar.update()
    return [
        Row(table, variant.name, size, failure=failures[variant.name])
        if variant.name in failures
        else _row(bench, table, variant, size, blocks[variant.name])
        for variant in variants
    ]


def _row(bench: Bench, table: str, variant: Variant, size: int, blocks: list[Block]) -> Row:
    seconds = median(block.seconds for block in blocks)
    share = mfu(size / seconds, bench.flops[variant.one_token], 1, peak_flops(bench.device_name, bench.dtype))
    peaks = [block.peak_bytes for block in blocks if block.peak_bytes is not None]
    guess = replace(bench.needed, batch_size=size)
    return Row(
        table,
        variant.name,
        size,
        round(size / seconds, 3),
        round(1000 * seconds, 2),
        round(1000 * max(block.seconds for block in blocks), 2),
        None if share is None else round(share, 4),
        round(max(peaks) / GB, 2) if peaks else None,
        round((guess.state + guess.activations) / GB, 2) if variant.name == OURS.name else None,
    )


def _write(bench: Bench, rows: list[Row]) -> str:
    """The three files of the report; returns the text of the one for people."""
    output = Path(bench.config.output)
    output.mkdir(parents=True, exist_ok=True)
    setting = {
        "device": bench.device_name,
        "torch": torch.__version__,
        "precision": str(bench.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "resolution": bench.model.resolution,
        "unet_parameters": sum(p.numel() for p in bench.model.unet.parameters()),
        "gflop_per_trained_image": round(bench.flops[False] / 1e9, 1),
        "gflop_per_trained_image_one_token": round(bench.flops[True] / 1e9, 1),
        "gflop_to_encode_a_pair": round(encoding_flops(bench.model) / 1e9, 1),
        "steps": bench.config.steps,
        "rounds": bench.config.rounds,
    }
    found = [asdict(row) for row in rows]
    (output / "benchmark.json").write_text(json.dumps({"setting": setting, "rows": found}, indent=2) + "\n")
    with (output / "benchmark.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(found)
    text = _text(setting, rows)
    (output / "benchmark.md").write_text(text + "\n")
    return text


def _text(setting: dict[str, Any], rows: list[Row]) -> str:
    lines = [", ".join(f"{name.replace('_', ' ')} {value}" for name, value in setting.items())]
    for table in dict.fromkeys(row.table for row in rows):
        lines += ["", *_table([row for row in rows if row.table == table])]
    return "\n".join(lines)


def _table(rows: list[Row]) -> list[str]:
    """One line for each row, measured against the plain loop at the same batch size."""
    plain = {row.batch_size: row.images_per_second for row in rows if row.variant == PLAIN.name}
    lines = [
        f"| {rows[0].table} | batch | images/s | of plain | ms/step (slowest block) | MFU | peak GB | estimated GB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        start, base = f"| {row.variant} | {row.batch_size} |", plain[row.batch_size]
        if row.images_per_second is None:
            lines.append(f"{start} {row.failure} | | | | | |")
            continue
        times = f"{row.images_per_second / base:.2f}×" if base else "–"
        utilised = "–" if row.mfu is None else f"{row.mfu:.1%}"
        pace = f"{row.images_per_second:.2f} | {times} | {row.ms:.1f} ({row.slowest_ms:.1f})"
        lines.append(f"{start} {pace} | {utilised} | {_shown(row.peak_gb)} | {_shown(row.estimated_gb)} |")
    return lines


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def command() -> None:
    """Run the command line."""
    run(main, BenchmarkConfig, "training", "benchmark", help=__doc__)


if __name__ == "__main__":
    command()
