"""Score one predicted mesh against the true one, under each alignment."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from trimesh.transformations import transform_points

from inference.evaluation.meshes.alignment import (
    Cloud,
    best_yaw_degrees,
    distances,
    icp_transform,
    normalisation,
    yaw_transform,
)
from inference.evaluation.meshes.definitions import FINE_THRESHOLDS, TRIPOSR_SAMPLES, TRIPOSR_THRESHOLDS, f_name
from inference.evaluation.meshes.visible_surface import visible_points
from inference.meshes.occupancy import inside_by_parity, occupancy
from inference.meshes.scores import (
    SAMPLES,
    chamfer_of_distances,
    chamfer_of_points,
    f_score_of_distances,
    iou_of_nodes,
    sample_seeds,
    surface_points,
    volume_iou,
)
from inference.meshes.textured_mesh import TexturedMesh
from rendering.cameras import Array

PREDICTION_SEED, TRUTH_SEED = sample_seeds(0)


@dataclass(frozen=True)
class Shape:
    """A mesh with random points on its surface.

    Attributes:
        mesh: The mesh.
        cloud: 50,000 random points.
        few: The first 10,000 of them, for the scores of TripoSR.
    """

    mesh: TexturedMesh
    cloud: Cloud
    few: Cloud


@dataclass(frozen=True)
class Features:
    """Points and nodes of a mesh that the scores of other protocols compare.

    Attributes:
        visible: The visible points `[N, 3]`.
        vertices: The different vertices `[V, 3]`, centred with their longest side scaled to 1.
        inside: The nodes inside by parity `[64, 64, 64]`.
    """

    visible: Array
    vertices: Array
    inside: NDArray[np.bool_]


@dataclass(frozen=True)
class Truth:
    """The true mesh of an object, centred, its longest side 1.

    Attributes:
        shape: The mesh and its points.
        features: What the scores of other protocols compare.
        is_solid: Whether it encloses a node of the grid of `volume_iou`.
    """

    shape: Shape
    features: Features
    is_solid: bool


@dataclass(frozen=True)
class Comparison:
    """The scores of a prediction under one alignment.

    Attributes:
        alignment: Name of the alignment.
        transform: Matrix `[4, 4]` that moves the prediction.
        yaw_degrees: Angle of the search about the vertical axis; None for the alignment `none`.
        scores: Scores by name; a score without a value is missing.
        reason: Why scores are missing.
    """

    alignment: str
    transform: Array
    yaw_degrees: float | None
    scores: dict[str, float]
    reason: str = ""


def predicted_shape(mesh: TexturedMesh) -> Shape:
    """Return a predicted mesh with its points; raise `UserError` if it has no area."""
    return _shape(mesh, PREDICTION_SEED)


def true_object(mesh: TexturedMesh) -> Truth:
    """Return a true mesh with all that its comparisons need; raise `UserError` if it has no area."""
    return Truth(_shape(mesh, TRUTH_SEED), _features(mesh), bool(occupancy(mesh, 64).any()))


def _shape(mesh: TexturedMesh, seed: int) -> Shape:
    points = surface_points(mesh, SAMPLES, seed)
    return Shape(mesh, Cloud.of(points), Cloud.of(points[:TRIPOSR_SAMPLES]))


def _features(mesh: TexturedMesh) -> Features:
    vertices = np.unique(mesh.vertices, axis=0)
    return Features(visible_points(mesh), transform_points(vertices, normalisation(vertices)), inside_by_parity(mesh))


def compare(prediction: Shape, truth: Truth) -> Iterator[Comparison]:
    """Yield the comparisons under the alignments `none`, `yaw` and `icp`.

    Args:
        prediction: The mesh as its file has it, z up.
        truth: The true object.
    """
    vertices, cloud, true_cloud = prediction.mesh.vertices, prediction.cloud, truth.shape.cloud
    yield _compared("none", np.eye(4), None, prediction, truth)
    yaw = best_yaw_degrees(vertices, cloud, true_cloud)
    turned = yaw_transform(vertices, yaw)
    yield _compared("yaw", turned, yaw, prediction, truth)
    yield _compared("icp", icp_transform(cloud, true_cloud, turned), yaw, prediction, truth)


def _compared(
    alignment: str, transform: Array, yaw_degrees: float | None, prediction: Shape, truth: Truth
) -> Comparison:
    mesh = replace(prediction.mesh, vertices=transform_points(prediction.mesh.vertices, transform))
    scores, reasons = _point_scores(prediction, truth.shape, transform), []
    features = _features(mesh)
    scores["chamfer_vertices"] = chamfer_of_points(features.vertices, truth.features.vertices)
    if len(features.visible) and len(truth.features.visible):
        scores["chamfer_visible"] = chamfer_of_points(features.visible, truth.features.visible)
    else:
        reasons.append("chamfer_visible: the cameras do not see the mesh")
    if truth.is_solid:
        scores["iou"] = volume_iou(mesh, truth.shape.mesh)
    else:
        reasons.append("iou: the true mesh encloses no node of the grid")
    if truth.features.inside.any():
        scores["iou_parity"] = iou_of_nodes(features.inside, truth.features.inside)
    else:
        reasons.append("iou_parity: the true mesh encloses no node of the grid")
    return Comparison(alignment, transform, yaw_degrees, scores, "; ".join(reasons))


def _point_scores(prediction: Shape, truth: Shape, transform: Array) -> dict[str, float]:
    """Return the Chamfer distances and F-scores of random points of a prediction that is moved."""
    there, back = distances(prediction.cloud, truth.cloud, transform)
    scores = {
        "chamfer": chamfer_of_distances(there, back),
        "chamfer_squared": chamfer_of_distances(there, back, squared=True),
    }
    scores |= {f_name(threshold): f_score_of_distances(there, back, threshold) for threshold in FINE_THRESHOLDS}
    there, back = distances(prediction.few, truth.few, transform)
    return scores | {f_name(limit): f_score_of_distances(there, back, limit) for limit in TRIPOSR_THRESHOLDS}
