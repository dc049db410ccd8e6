"""Define what a benchmark fixes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from training.model.config import Background


class Average(StrEnum):
    """How a published figure averages scores."""

    objects = "objects"  # over the pictures of an object, then over objects
    pictures = "pictures"  # over all pictures


class CameraKind(StrEnum):
    """How the cameras of a benchmark are given."""

    any = "any"  # as the views are
    random = "random"  # drawn per object, as the original's renders: direction in a cube, radius in a range
    orbit = "orbit"  # equal steps of azimuth at one elevation
    given = "given"  # as the dataset's own files


@dataclass(frozen=True)
class Cameras:
    """Cameras of the views of an object.

    Attributes:
        kind: How they are given.
        views: Number of views; 0 for any.
        radius: Least and greatest distance from the object's centre, object sizes.
        elevation: Degrees above the horizon of an orbit.
        experiment: Name of the settings in conf/pipeline/experiment that render such views; empty if none do.
    """

    kind: CameraKind = CameraKind.any
    views: int = 0
    radius: tuple[float, float] | None = None
    elevation: float | None = None
    experiment: str = ""


@dataclass(frozen=True)
class Published:
    """Scores that a publication reports under the protocol of a benchmark.

    Attributes:
        method: Name of the method.
        scores: Scores by the name of the metric.
        source: Publication, and the table or file that has the scores.
    """

    method: str
    scores: Mapping[str, float]
    source: str


@dataclass(frozen=True)
class Benchmark:
    """Everything that the scores of novel views depend on, except the method.

    Attributes:
        name: Name in options, tables and folders.
        title: Name for people.
        source: Publication and evaluation code that the protocol is read from.
        objects: Uids of the objects; empty: all objects of the views.
        cameras: Cameras of the views.
        input: Index of the input view; None: pairs of views are chosen by hash, as the option `pairs` says.
        targets: Indices of the scored views.
        resolution: Side of the scored pictures, pixels; None: the model's.
        background: How views with transparency are composited on white.
        resize: Pillow's name of the filter that reduces larger views to `resolution`.
        sampling: Settings of the sampler, by name, that the protocol fixes.
        metrics: Names of the metrics.
        average: Averaging of the published figures.
        published: Published figures.
        unknown: Sentences about parts of the protocol that are not published.
    """

    name: str
    title: str
    source: str
    objects: tuple[str, ...] = ()
    cameras: Cameras = Cameras()
    input: int | None = None
    targets: tuple[int, ...] = ()
    resolution: int | None = None
    background: Background = Background.composite
    resize: str = "bicubic"
    sampling: Mapping[str, float] = field(default_factory=dict)
    metrics: tuple[str, ...] = ("psnr_db", "ssim")
    average: Average = Average.objects
    published: tuple[Published, ...] = ()
    unknown: tuple[str, ...] = ()
