"""Measure training steps of this project and of a plain loop, and report both."""

import csv
import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch._dynamo.exc import TorchDynamoException
from tqdm import tqdm

from conf.options import first_line
from training.benchmarking.variants import OURS, PLAIN, Block, Variant, ablations, measure
from training.config import BenchmarkConfig
from training.model.architecture import build
from training.model.attention import attend_to_one_token
from training.model.hardware.cost import encoding_flops, mfu, peak_flops, step_flops
from training.model.hardware.device import dtype_name, resolve_device, training_dtype
from training.model.hardware.memory import GB, Estimate, available_memory, estimate, largest_batch, require_fit
from training.model.zero123 import Zero123

FIRST_BATCH = 8  # on a GPU, from which the batch size doubles


@dataclass(frozen=True)
class Row:
    """Result of a variant at a batch size. Only rows of the same table are comparable, since they took turns."""

    table: str
    variant: str
    batch_size: int
    images_per_second: float | None = None
    ms: float | None = None  # per step
    slowest_ms: float | None = None  # per step, in the slowest block
    mfu: float | None = None
    peak_gb: float | None = None  # memory of torch's allocator
    estimated_gb: float | None = None  # by training.model.hardware.memory, without a run
    failure: str = ""


@dataclass(frozen=True)
class Bench:
    """Inputs of all measurements.

    Attributes:
        config: Options of the command.
        model: The model.
        dtype: Type that steps compute in.
        needed: Estimated memory of a batch of one pair.
        flops: Operations per trained image, with (True) and without the shortcut for one context token.
    """

    config: BenchmarkConfig
    model: Zero123
    dtype: torch.dtype
    needed: Estimate
    flops: dict[bool, int]

    @property
    def device_name(self) -> str:
        """Name of the GPU, or CPU."""
        device = self.model.device
        return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def benchmark(config: BenchmarkConfig) -> int:
    """Measure and write the report; return the exit code."""
    if config.threads:
        torch.set_num_threads(config.threads)
    device = resolve_device(config.device)
    dtype = training_dtype(config.precision, gpu=device.type == "cuda")
    compiled = device.type == "cuda" if config.compile is None else config.compile
    latents = not config.model.train_image_encoder  # latent shards hold the embeddings of a frozen encoder
    ours = replace(OURS, latents=latents, compile=compiled, autotune=device.type == "cuda")
    # The values of weights do not affect the speed.
    architecture = replace(config.model, pretrained=None, image_encoder=None)
    with torch.device("meta"):
        shapes = build(architecture)
    needed = estimate(shapes, 1, latents=latents, compute_dtype=dtype, compiled=compiled)
    available = available_memory(device)
    require_fit(needed, available)
    sizes = config.batch_sizes or ([1] if device.type == "cpu" else _doubling(largest_batch(needed, available or 0)))
    flops = {}
    for one_token in (True, False):
        attend_to_one_token(shapes.unet, one_token)
        flops[one_token] = step_flops(shapes)
    bench = Bench(config, build(architecture, config.seed).to(device), dtype, needed, flops)
    rows = _compare(bench, ours, list(sizes))
    text = _write(bench, rows)
    print(text)
    print(f"report: {config.output}/benchmark.md")
    return 0


def _doubling(limit: int) -> list[int]:
    """Return doubling batch sizes, up to the first one above `limit`."""
    sizes = [FIRST_BATCH]
    while sizes[-1] <= limit:
        sizes.append(2 * sizes[-1])
    return sizes


def _compare(bench: Bench, ours: Variant, sizes: list[int]) -> list[Row]:
    """Compare ours and plain at each batch size, then all variants at the largest size that fits both."""
    parts = [ours, *ablations(ours), PLAIN] if bench.config.ablation else []
    rows: list[Row] = []
    total = bench.config.rounds * (2 * len(sizes) + len(parts))
    with tqdm(total=total, desc="benchmark", unit=" blocks") as bar:
        for size in sizes:
            rows += _take_turns(bench, "batch sizes", [ours, PLAIN], size, bar)
        fitting = {row.batch_size for row in rows} - {row.batch_size for row in rows if row.failure}
        if fitting:
            rows += _take_turns(bench, "parts", parts, max(fitting), bar)
    return rows


def _take_turns(bench: Bench, table: str, variants: list[Variant], size: int, bar: Any) -> list[Row]:
    """Measure variants in alternating blocks; return a row for each."""
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
                    failures[variant.name] = "out of memory"
                except TorchDynamoException as error:
                    failures[variant.name] = f"cannot be compiled: {first_line(error)}"
            bar.update()
    return [
        Row(table, variant.name, size, failure=failures[variant.name])
        if variant.name in failures
        else _row(bench, table, variant, size, blocks[variant.name])
        for variant in variants
    ]


def _row(bench: Bench, table: str, variant: Variant, size: int, blocks: list[Block]) -> Row:
    seconds = median(block.seconds for block in blocks)
    utilisation = mfu(size / seconds, bench.flops[variant.one_token], 1, peak_flops(bench.device_name, bench.dtype))
    peaks = [block.peak_bytes for block in blocks if block.peak_bytes is not None]
    estimated = replace(bench.needed, batch_size=size)
    return Row(
        table,
        variant.name,
        size,
        images_per_second=round(size / seconds, 3),
        ms=round(1000 * seconds, 2),
        slowest_ms=round(1000 * max(block.seconds for block in blocks), 2),
        mfu=None if utilisation is None else round(utilisation, 4),
        peak_gb=round(max(peaks) / GB, 2) if peaks else None,
        estimated_gb=round((estimated.state + estimated.activations) / GB, 2) if variant.name == OURS.name else None,
    )


def _write(bench: Bench, rows: list[Row]) -> str:
    """Write the three files of the report; return the text of `benchmark.md`."""
    output = Path(bench.config.output)
    output.mkdir(parents=True, exist_ok=True)
    setting = {
        "device": bench.device_name,
        "torch": torch.__version__,
        "precision": dtype_name(bench.dtype),
        "threads": torch.get_num_threads(),
        "resolution": bench.model.resolution,
        "unet_parameters": sum(p.numel() for p in bench.model.unet.parameters()),
        "gflop_per_trained_image": round(bench.flops[False] / 1e9, 1),
        "gflop_per_trained_image_one_token": round(bench.flops[True] / 1e9, 1),
        "gflop_to_encode_a_pair": round(encoding_flops(bench.model) / 1e9, 1),
        "steps": bench.config.steps,
        "rounds": bench.config.rounds,
    }
    records = [asdict(row) for row in rows]
    (output / "benchmark.json").write_text(json.dumps({"setting": setting, "rows": records}, indent=2) + "\n")
    with (output / "benchmark.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(records)
    text = _report(setting, rows)
    (output / "benchmark.md").write_text(text + "\n")
    return text


def _report(setting: dict[str, Any], rows: list[Row]) -> str:
    lines = [", ".join(f"{name.replace('_', ' ')} {value}" for name, value in setting.items())]
    for table in dict.fromkeys(row.table for row in rows):
        lines += ["", *_table([row for row in rows if row.table == table])]
    return "\n".join(lines)


def _table(rows: list[Row]) -> list[str]:
    """Return a Markdown table, with speeds relative to plain at the same batch size."""
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
        utilisation = "–" if row.mfu is None else f"{row.mfu:.1%}"
        speed = f"{row.images_per_second:.2f} | {times} | {row.ms:.1f} ({row.slowest_ms:.1f})"
        lines.append(f"{start} {speed} | {utilisation} | {_optional(row.peak_gb)} | {_optional(row.estimated_gb)} |")
    return lines


def _optional(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
