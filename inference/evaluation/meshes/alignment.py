"""Align a predicted mesh with the true one: a turn about the vertical axis, then iterative closest points.

Transforms are matrices `[4, 4]` of a rotation, one scale and a translation, applied to columns.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.spatial import cKDTree
from trimesh.registration import procrustes
from trimesh.transformations import rotation_matrix, transform_points

from inference.meshes.scores import nearest_index
from rendering.cameras import Array

YAW_STEP_DEGREES = 5.0
YAW_DECIMALS = 1  # of the refined angle, degrees; a copy of the truth has exactly 0
REFINED = 3  # best angles of the search that are refined
SEARCH_POINTS, REFINE_POINTS, ICP_POINTS = 2_000, 4_000, 5_000
ICP_STEPS = 50
ICP_TOLERANCE = 1e-5  # largest change of an entry of the matrix in the last step


@dataclass(frozen=True)
class Cloud:
    """Points of a surface with an index for the nearest of them.

    Attributes:
        points: `[N, 3]`.
        tree: Index of the points.
    """

    points: Array
    tree: cKDTree

    @staticmethod
    def of(points: Array) -> "Cloud":
        """Return the cloud of points `[N, 3]`."""
        return Cloud(points, nearest_index(points))

    def first(self, count: int) -> "Cloud":
        """Return the cloud of the first points."""
        return Cloud.of(self.points[:count])


def scale_of(transform: Array) -> float:
    """Return the factor by which a transform scales lengths."""
    return float(np.cbrt(np.linalg.det(transform[:3, :3])))


def distances(prediction: Cloud, truth: Cloud, transform: Array) -> tuple[Array, Array]:
    """Return the distances of a transformed prediction's points to the truth `[N]`, and of the truth's to it `[M]`."""
    there = truth.tree.query(transform_points(prediction.points, transform))[0]
    back = prediction.tree.query(transform_points(truth.points, np.linalg.inv(transform)))[0]
    return there, back * scale_of(transform)


def cost(prediction: Cloud, truth: Cloud, transform: Array) -> float:
    """Return twice the Chamfer distance of a transformed prediction to the truth."""
    there, back = distances(prediction, truth, transform)
    return float(there.mean() + back.mean())


def normalisation(vertices: Array) -> Array:
    """Return the transform that centres the bounding box of vertices `[V, 3]` and scales its longest side to 1."""
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    transform = np.eye(4) / float((high - low).max())
    transform[:3, 3] = -(low + high) / 2 * transform[0, 0]
    transform[3, 3] = 1
    return transform


def yaw_transform(vertices: Array, degrees: float) -> Array:
    """Return the turn of vertices `[V, 3]` about +z, counter-clockwise as seen from above, and their normalisation."""
    turn = rotation_matrix(math.radians(degrees), (0, 0, 1))
    return normalisation(transform_points(vertices, turn)) @ turn


def best_yaw_degrees(vertices: Array, prediction: Cloud, truth: Cloud) -> float:
    """Return the turn about +z in [0, 360) that gives the least Chamfer distance to the truth.

    The whole circle is searched in steps; the best angles are refined between their neighbours.

    Args:
        vertices: Of the prediction `[V, 3]`; it is normalised after each turn.
        prediction: Random points of its surface.
        truth: Random points of the true surface.
    """

    def cost_of(points: int) -> Callable[[float], float]:
        some, some_true = prediction.first(points), truth.first(points)
        return lambda degrees: cost(some, some_true, yaw_transform(vertices, degrees))

    coarse, fine = cost_of(SEARCH_POINTS), cost_of(REFINE_POINTS)
    angles = np.arange(0, 360, YAW_STEP_DEGREES)
    costs = np.array([coarse(angle) for angle in angles])
    minima = np.flatnonzero((costs <= np.roll(costs, 1)) & (costs <= np.roll(costs, -1)))
    found = []
    for angle in angles[minima[np.argsort(costs[minima], kind="stable")[:REFINED]]]:
        bounds = (angle - YAW_STEP_DEGREES, angle + YAW_STEP_DEGREES)
        result = minimize_scalar(fine, bounds=bounds, method="bounded", options={"xatol": 0.1**YAW_DECIMALS / 2})
        found.append((float(result.fun), float(result.x)))
    return round(min(found)[1], YAW_DECIMALS) % 360


def icp_transform(prediction: Cloud, truth: Cloud, start: Array) -> Array:
    """Return the rotation, scale and translation that iterative closest points finds from a transform.

    Each step pairs every point of both surfaces with the nearest one of the other, since pairs of one direction alone
    would favour a small prediction, and moves the pairs together (Procrustes, without reflection). Returned is the
    transform with the least Chamfer distance among the start and all steps.
    """
    all_points = prediction, truth
    prediction, truth = prediction.first(ICP_POINTS), truth.first(ICP_POINTS)
    transform = best = start
    least = math.inf
    for _ in range(ICP_STEPS):
        moved, scale = transform_points(prediction.points, transform), scale_of(transform)
        there, true_index = truth.tree.query(moved)
        back, own_index = prediction.tree.query(transform_points(truth.points, np.linalg.inv(transform)))
        if (distance := float(there.mean() + scale * back.mean())) < least:
            best, least = transform, distance
        sources = np.concatenate([moved, moved[own_index]])
        targets = np.concatenate([truth.points[true_index], truth.points])
        step = procrustes(sources, targets, reflection=False, scale=True, return_cost=False)
        transform = step @ transform
        if np.abs(step - np.eye(4)).max() < ICP_TOLERANCE:
            break
    return best if cost(*all_points, best) < cost(*all_points, start) else start
