"""Define the fields of a benchmark: objects, views, cameras, pictures, sampler and metrics."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from training.model.config import Background

# Published scores whose variant of the metric is not published: they stand beside no score of ours.
UNKNOWN_VARIANTS = ("ssim_unknown", "lpips_unknown", "fid_unknown")
# Scores of meshes that a protocol may have; `inference.evaluation.meshes` defines them.
MESH_SCORES = ("chamfer", "chamfer_squared", "chamfer_visible", "chamfer_vertices", "iou", "iou_parity")
UNKNOWN_MESH_VARIANTS = ("chamfer_unknown", "iou_unknown")


class Average(StrEnum):
    """How a published figure averages scores."""

    objects = "objects"  # over the pictures of an object, then over objects
    pictures = "pictures"  # over all pictures


class CameraKind(StrEnum):
    """How the cameras of a benchmark are given."""

    any = "any"  # as the views are
    random = "random"  # drawn per object, as the original's renders: direction in a cube, radius in a range
    orbit = "orbit"  # equal steps of azimuth at one elevation, counter-clockwise from azimuth 0
    given = "given"  # as the dataset's own files


class Alignment(StrEnum):
    """How a mesh is aligned with the true one."""

    none = "none"
    yaw = "yaw"  # turned about the vertical axis
    icp = "icp"  # iterative closest points


@dataclass(frozen=True)
class Cameras:
    """Cameras of the views of an object.

    Attributes:
        kind: How they are given.
        views: Number of views of an orbit, the least number of other kinds; 0 for any.
        radius: Least and greatest distance from the object's centre, object sizes.
        elevation: Degrees above the horizon of an orbit.
        input_radius: Least and greatest distance of the input view; None: as `radius`.
        input_elevation: Least and greatest elevation of the input view, degrees; None: any.
        experiment: Name of the settings in conf/pipeline/experiment that render such views; empty if none do.
    """

    kind: CameraKind = CameraKind.any
    views: int = 0
    radius: tuple[float, float] | None = None
    elevation: float | None = None
    input_radius: tuple[float, float] | None = None
    input_elevation: tuple[float, float] | None = None
    experiment: str = ""


@dataclass(frozen=True)
class Published:
    """Scores that a publication reports under the protocol of a benchmark.

    Attributes:
        method: Name of the method.
        scores: Scores by the name of the metric: of `METRIC_NAMES` or `UNKNOWN_VARIANTS`, of meshes `MESH_SCORES` or
            `UNKNOWN_MESH_VARIANTS`.
        source: Publication, and the table or file that has the scores.
    """

    method: str
    scores: Mapping[str, float]
    source: str


@dataclass(frozen=True)
class Meshes:
    """How a benchmark compares meshes.

    Attributes:
        scores: Names of the scores.
        alignment: Alignment of a mesh with the true one.
        truth_yaw_degrees: By uid, the angle by which the true mesh is turned about +z backwards; 0 if absent.
        published: Published figures.
        unknown: Sentences about parts of the protocol that are not published.
    """

    scores: tuple[str, ...] = ()
    alignment: Alignment = Alignment.none
    truth_yaw_degrees: Mapping[str, float] = field(default_factory=dict)
    published: tuple[Published, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Benchmark:
    """Protocol of an evaluation: all that the scores of novel views depend on, except the method.

    Attributes:
        name: Name in options, tables and folders.
        title: Display name.
        source: Publication and evaluation code that the protocol is read from.
        objects: Uids of the objects; empty: all objects of the views.
        max_objects: Number of objects, the first in the order of their names; None: all.
        cameras: Cameras of the views.
        input: Index of the input view; None: pairs of views are chosen by hash, as the option `pairs` says.
        targets: Indices of the scored views.
        resolution: Side of the scored pictures, pixels; None: the model's.
        background: How views with transparency are composited on white.
        resize: Pillow's name of the filter that reduces larger views to `resolution`.
        sampling: Settings of the sampler, by name, that the protocol fixes.
        metrics: Names of the metrics.
        average: Averaging of the published figures.
        meshes: How meshes are compared; None: the benchmark has none.
        published: Published figures.
        published_objects: Number of objects that they are means of, where these are not listed; None: as `objects`.
        unknown: Sentences about parts of the protocol that are not published.
        differences: Sentences about known differences of this project's scores from those of the protocol.
    """

    name: str
    title: str
    source: str
    objects: tuple[str, ...] = ()
    max_objects: int | None = None
    cameras: Cameras = Cameras()
    input: int | None = None
    targets: tuple[int, ...] = ()
    resolution: int | None = None
    background: Background = Background.composite
    resize: str = "bicubic"
    sampling: Mapping[str, int | float] = field(default_factory=dict)
    metrics: tuple[str, ...] = ("psnr_db", "ssim")
    average: Average = Average.objects
    meshes: Meshes | None = None
    published: tuple[Published, ...] = ()
    published_objects: int | None = None
    unknown: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()
