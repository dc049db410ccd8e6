"""Read the data file of a benchmark: JSON with the fields of `Benchmark`, shipped in conf/inference/benchmarks."""

import functools
import math
import re
from collections.abc import Collection, Iterator
from dataclasses import asdict, replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import yaml
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from conf.options import FieldError, UserError, first_line
from inference.config import Sampling
from inference.evaluation.benchmarks.benchmark import (
    MESH_SCORES,
    UNKNOWN_MESH_VARIANTS,
    UNKNOWN_VARIANTS,
    Benchmark,
    CameraKind,
    Cameras,
    Published,
)
from inference.evaluation.metrics.loading import METRIC_NAMES
from rendering.settings import RenderSettings

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
MAX_BYTES = 2**20
MAX_VIEWS = 1000
FILTERS = tuple(name.lower() for name in Image.Resampling.__members__)
KINDS = {"orbit": CameraKind.orbit, "zero123": CameraKind.random, "fixed": CameraKind.random}


def benchmark_names() -> tuple[str, ...]:
    """Return the names of the benchmarks of the project."""
    return tuple(sorted(file.name.removesuffix(".json") for file in _folder().iterdir() if file.name.endswith(".json")))


def read_benchmark(name_or_path: str) -> Benchmark:
    """Return a benchmark of the project, or one from a JSON file.

    Args:
        name_or_path: One of `benchmark_names()`, or the path of a file that ends with `.json`.

    Raises:
        UserError: There is no such benchmark, or the file does not describe one.
    """
    names = benchmark_names()
    if name_or_path in names:
        return _parse(name_or_path, _folder().joinpath(f"{name_or_path}.json").read_bytes())
    if not name_or_path.endswith(".json"):
        choices = ", ".join(names)
        raise UserError(f"benchmark={name_or_path}: unknown; choose one of {choices}, or give the path of a .json file")
    try:
        with Path(name_or_path).open("rb") as file:
            contents = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"benchmark={name_or_path}: cannot be read ({first_line(error)}); give a JSON file") from None
    if len(contents) > MAX_BYTES:
        raise UserError(f"benchmark={name_or_path}: has more than {MAX_BYTES:,} bytes; give the JSON of a benchmark")
    return _parse(name_or_path, contents)


def render_settings(experiment: str) -> RenderSettings:
    """Return the render settings that `conf/pipeline/experiment/<experiment>.yaml` gives, other options at defaults.

    Raises:
        UserError: There are no such settings, or they are not of a renderer.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", experiment):
        raise UserError(f"cameras.experiment={experiment}: must be a name in conf/pipeline/experiment")
    file = resources.files("conf").joinpath(f"pipeline/experiment/{experiment}.yaml")
    try:
        return RenderSettings(**yaml.safe_load(file.read_text(encoding="utf-8"))["renderer"])
    except FileNotFoundError:
        raise UserError(f"cameras.experiment={experiment}: is not in conf/pipeline/experiment") from None
    except (yaml.YAMLError, KeyError, TypeError, FieldError) as error:
        raise UserError(f"cameras.experiment={experiment}: has no valid renderer ({first_line(error)})") from None


def _folder() -> Traversable:
    return resources.files("conf").joinpath("inference/benchmarks")


@functools.cache
def _adapter() -> TypeAdapter[Benchmark]:
    return TypeAdapter(Benchmark)


def _parse(source: str, contents: bytes) -> Benchmark:
    try:
        benchmark = _adapter().validate_json(contents, strict=True, extra="forbid")
        if benchmark.cameras.experiment:
            benchmark = replace(benchmark, cameras=_complete(benchmark.cameras))
        problem = next(_problems(benchmark), None)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        problem = f"{where}: {first['msg']}"
    except UserError as error:
        problem = str(error)
    if problem:
        raise UserError(f"benchmark={source}: {problem}; correct the file (docs/conventions.md, Benchmarks)")
    return benchmark


def _complete(cameras: Cameras) -> Cameras:
    """Fill fields that the file leaves at their defaults with the values of the settings that render the views."""
    settings, default = render_settings(cameras.experiment), Cameras()
    if settings.cameras not in KINDS:
        raise UserError(f"cameras.experiment={cameras.experiment}: renders cameras={settings.cameras}, no benchmark's")
    kind = KINDS[settings.cameras]
    nearest, farthest = settings.radius
    if settings.cameras == "fixed":
        nearest, farthest = min(pose[2] for pose in settings.poses), max(pose[2] for pose in settings.poses)
    if kind is CameraKind.orbit:
        nearest = farthest = (nearest + farthest) / 2
    rendered = replace(
        default,
        kind=kind,
        views=settings.views,
        radius=(nearest, farthest),
        elevation=90 - settings.polar if kind is CameraKind.orbit else None,
    )
    given = {name: value for name, value in vars(cameras).items() if value != getattr(default, name)}
    return replace(rendered, **given)


def _problems(benchmark: Benchmark) -> Iterator[str]:
    """Yield a sentence for each field whose value has no meaning."""
    if not NAME.fullmatch(benchmark.name):
        yield f"name={benchmark.name}: must be 1 to 64 of a-z, 0-9 and -"
    if (benchmark.input is None) != (not benchmark.targets):
        yield "input and targets must be given both or neither"
    views = [*benchmark.targets, benchmark.input or 0]
    if len(set(benchmark.targets)) < len(benchmark.targets) or not all(0 <= view < MAX_VIEWS for view in views):
        yield f"targets and input must be different numbers from 0 to {MAX_VIEWS - 1}"
    if benchmark.cameras.views and max(views) >= benchmark.cameras.views:
        yield f"view {max(views)} is not one of {benchmark.cameras.views}"
    if benchmark.resolution is not None and not 8 <= benchmark.resolution <= 4096:
        yield f"resolution={benchmark.resolution}: must be between 8 and 4096"
    if benchmark.resize not in FILTERS:
        yield f"resize={benchmark.resize}: must be one of {', '.join(FILTERS)}"
    if benchmark.max_objects is not None and benchmark.max_objects < 1:
        yield f"max_objects={benchmark.max_objects}: must be at least 1"
    yield from _unknown_names(benchmark.sampling, asdict(Sampling()), "sampling")
    if not set(benchmark.sampling) - set(asdict(Sampling())):
        Sampling(**benchmark.sampling)  # type: ignore[arg-type]  # raises the sentence of a value out of range
    yield from _camera_problems(benchmark.cameras)
    yield from _unknown_names(benchmark.metrics, METRIC_NAMES, "metrics")
    yield from _score_problems(benchmark.published, (*METRIC_NAMES, *UNKNOWN_VARIANTS))
    if benchmark.meshes:
        yield from _unknown_names(benchmark.meshes.scores, MESH_SCORES, "meshes.scores")
        yield from _score_problems(benchmark.meshes.published, (*MESH_SCORES, *UNKNOWN_MESH_VARIANTS))


def _camera_problems(cameras: Cameras) -> Iterator[str]:
    for name in ("radius", "input_radius", "input_elevation"):
        if (limits := getattr(cameras, name)) and not (math.isfinite(sum(limits)) and limits[0] <= limits[1]):
            yield f"cameras.{name}={list(limits)}: must be [least, greatest]"
    if cameras.kind is CameraKind.orbit and None in (cameras.elevation, cameras.radius):
        yield "cameras of an orbit need elevation and radius"
    if not 0 <= cameras.views <= MAX_VIEWS or (cameras.kind is CameraKind.orbit and not cameras.views):
        yield f"cameras.views={cameras.views}: must be 1 to {MAX_VIEWS}; 0 (any) is not possible with an orbit"


def _unknown_names(names: Collection[str], known: Collection[str], field: str) -> Iterator[str]:
    if unknown := sorted(set(names) - set(known)):
        yield f"{field}: unknown {unknown[0]}; choose from {', '.join(known)}"


def _score_problems(published: tuple[Published, ...], known: Collection[str]) -> Iterator[str]:
    for figure in published:
        yield from _unknown_names(figure.scores, known, "published.scores")
        if not all(map(math.isfinite, figure.scores.values())):
            yield f"published.scores of {figure.method}: must be finite numbers"
