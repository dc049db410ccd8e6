"""Define the scores of a mesh, with all that their values depend on, and published scores."""

from dataclasses import dataclass

from inference.evaluation.benchmarks.benchmark import Benchmark, Meshes, Published
from inference.evaluation.benchmarks.manifest import benchmark_names, read_benchmark
from inference.evaluation.meshes import alignment
from inference.meshes.scores import SAMPLES

TRIPOSR_SAMPLES = 10_000
FINE_THRESHOLDS = (0.01, 0.02, 0.05)
TRIPOSR_THRESHOLDS = (0.1, 0.2, 0.5)


@dataclass(frozen=True)
class MeshScore:
    """A score of a predicted mesh.

    Attributes:
        name: Name in tables and files.
        label: Display name.
        definition: Everything that its value depends on. Lengths are in object sizes, the longest side of the truth.
        higher_is_better: Whether better meshes score higher.
    """

    name: str
    label: str
    definition: str
    higher_is_better: bool = False


def f_name(threshold: float) -> str:
    """Return the name of the F-score at a threshold."""
    return f"f_{threshold:g}"


def _f_score(threshold: float, samples: int, source: str) -> MeshScore:
    text = (
        f"harmonic mean of the shares of {samples:,} points on each surface within {threshold:g} of the other's points"
    )
    return MeshScore(f_name(threshold), f"F {threshold:g}", text + source, True)


SCORES = (
    MeshScore(
        "chamfer",
        "Chamfer",
        f"(mean d(a→b) + mean d(b→a)) / 2 of {SAMPLES:,} random points on each surface, not squared",
    ),
    MeshScore("chamfer_squared", "Chamfer, squared", "as chamfer, of d²; the sum of both means is twice that"),
    MeshScore(
        "chamfer_visible",
        "Chamfer, visible",
        "as chamfer, of the surface that is seen in depth maps of 256² pixels from 16 cameras (azimuth 0, 22.5, …, "
        "337.5 degrees, elevation 30, radius 1.5), unprojected, the mean of the points in each voxel of side 0.01 "
        "(SyncDreamer, Wonder3D)",
    ),
    MeshScore(
        "chamfer_vertices",
        "Chamfer, vertices",
        "as chamfer, of the different vertices of both meshes, each centred with its longest side scaled to 1 "
        "(EscherNet); depends on the tessellation",
    ),
    MeshScore(
        "iou",
        "IoU",
        "volume IoU on 64³ nodes of a cube around both meshes, of side 1.01 or more; inside by the vote of six rays",
        True,
    ),
    MeshScore(
        "iou_parity",
        "IoU, parity",
        "volume IoU on 64³ nodes of [-1, 1]³, inside by the parity of one ray along +x (mesh2sdf, as SyncDreamer, "
        "Wonder3D and EscherNet use it)",
        True,
    ),
    *(_f_score(threshold, SAMPLES, "") for threshold in FINE_THRESHOLDS),
    *(
        _f_score(
            threshold,
            TRIPOSR_SAMPLES,
            " (thresholds and number of points as TripoSR, whose evaluation code is not published)",
        )
        for threshold in TRIPOSR_THRESHOLDS
    ),
)

ALIGNMENTS = {
    "none": "the prediction as its file has it, with its up axis along z",
    "yaw": "the prediction turned about the vertical axis by the angle with the least Chamfer distance (all angles in "
    f"steps of {alignment.YAW_STEP_DEGREES:g} degrees, refined to 0.1), centred, longest side scaled to 1",
    "icp": f"from yaw, at most {alignment.ICP_STEPS} steps of iterative closest points with pairs of both directions: "
    "rotation, translation and one scale",
}


@dataclass(frozen=True)
class MeshProtocol:
    """A published evaluation of meshes.

    Attributes:
        name: Name in options.
        title: Display name, with its source.
        truth_yaw_degrees: By uid, the angle by which the truth is turned about +z backwards after its normalisation.
        objects: Uids of its objects.
        alignment: The alignment of its figures.
        scores: Its scores, by their names here.
        published: Published figures.
        unknown: What is not published of it.
    """

    name: str
    title: str
    truth_yaw_degrees: dict[str, float]
    objects: tuple[str, ...]
    alignment: str
    scores: tuple[str, ...]
    published: tuple[Published, ...]
    unknown: str


def _protocol(benchmark: Benchmark, meshes: Meshes) -> MeshProtocol:
    return MeshProtocol(
        benchmark.name,
        f"{benchmark.title} ({benchmark.source})",
        {uid: meshes.truth_yaw_degrees.get(uid, 0.0) for uid in benchmark.objects},
        benchmark.objects,
        meshes.alignment.value,
        meshes.scores,
        meshes.published,
        " ".join(meshes.unknown),
    )


# The benchmarks whose evaluation of meshes is published, with its objects.
PROTOCOLS = {
    benchmark.name: _protocol(benchmark, benchmark.meshes)
    for benchmark in map(read_benchmark, benchmark_names())
    if benchmark.meshes and benchmark.meshes.scores and benchmark.objects
}
