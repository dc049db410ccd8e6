"""Compare two meshes: Chamfer distance, F-score and volume IoU. The caller aligns and normalises them."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from conf.options import UserError
from inference.meshes.occupancy import occupancy
from inference.meshes.textured_mesh import TexturedMesh
from rendering.cameras import Array

SAMPLES = 50_000
LEAF_POINTS = 64  # of a k-d tree; scipy's 16 take twice as long for distant surfaces, and equally long for near ones


def surface_points(mesh: TexturedMesh, count: int, seed: int = 0) -> Array:
    """Return `count` random points `[count, 3]`, uniform on the surface by area.

    Raises:
        UserError: The surface has no area.
    """
    rng = np.random.default_rng(seed)
    corner, *edges = np.moveaxis(mesh.vertices[mesh.faces], 1, 0)
    first, second = (edge - corner for edge in edges)
    areas = np.cumsum(np.linalg.norm(np.cross(first, second), axis=1))
    if not areas[-1] > 0:
        raise UserError("the triangles have no area; give a mesh with a surface")
    face = np.searchsorted(areas, rng.random(count) * areas[-1], side="right").clip(max=len(areas) - 1)
    u, v = rng.random((2, count, 1))
    beyond = u + v > 1  # the other half of the parallelogram, reflected into the triangle
    u, v = np.where(beyond, 1 - u, u), np.where(beyond, 1 - v, v)
    return corner[face] + u * first[face] + v * second[face]


def chamfer(a: TexturedMesh, b: TexturedMesh, samples: int = SAMPLES, seed: int = 0) -> float:
    """Return the Chamfer distance of two surfaces: (mean d(a→b) + mean d(b→a)) / 2, not squared.

    Points are sampled on both surfaces independently, so that equal surfaces of area A score about √(A / samples) / 2,
    the mean distance of neighbouring samples.
    """
    return chamfer_of_points(*_samples(a, b, samples, seed))


def chamfer_of_points(a: ArrayLike, b: ArrayLike, squared: bool = False) -> float:
    """Return the Chamfer distance of two point clouds `[N, 3]` and `[M, 3]`, as `chamfer`; `squared`: of d²."""
    return chamfer_of_distances(*nearest_distances(a, b), squared)


def chamfer_of_distances(there: Array, back: Array, squared: bool = False) -> float:
    """Return half of the sum of the means of the distances in both directions; `squared`: of their squares."""
    power = 2 if squared else 1
    return float((there**power).mean() + (back**power).mean()) / 2


def f_score_of_distances(there: Array, back: Array, threshold: float) -> float:
    """Return the harmonic mean of the shares of the distances in both directions that are at most `threshold`."""
    shares = [float((distance <= threshold).mean()) for distance in (there, back)]
    return 2 * shares[0] * shares[1] / sum(shares) if sum(shares) else 0.0


def volume_iou(a: TexturedMesh, b: TexturedMesh, resolution: int = 64) -> float:
    """Return the intersection over union of the volumes of two meshes, of 0 if both are empty.

    As in SyncDreamer, count nodes of a grid that lie inside by the crossings of rays with the surface. There the parity
    of one ray along +x decides; here six rays vote, because meshes have holes and overlapping parts (`occupancy`).
    Both agree for a single closed surface.

    Args:
        a: A mesh, normalised.
        b: Another mesh in the same frame.
        resolution: Nodes along each axis of the grid, a cube around the origin that contains both meshes.
    """
    half_side = max(0.505, *(1.01 * float(np.abs(mesh.vertices).max()) for mesh in (a, b)))
    inside_a, inside_b = (occupancy(mesh, resolution, half_side) for mesh in (a, b))
    return iou_of_nodes(inside_a, inside_b)


def iou_of_nodes(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Return the intersection over union of two sets of nodes, of 0 if both are empty."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 0.0


def _samples(a: TexturedMesh, b: TexturedMesh, samples: int, seed: int) -> tuple[Array, Array]:
    seed_a, seed_b = sample_seeds(seed)
    return surface_points(a, samples, seed_a), surface_points(b, samples, seed_b)


def sample_seeds(seed: int) -> tuple[int, int]:
    """Return the seeds of the independent samples of two surfaces that are compared."""
    first, second = np.random.SeedSequence(seed).generate_state(2)
    return int(first), int(second)


def nearest_distances(a: ArrayLike, b: ArrayLike) -> tuple[Array, Array]:
    """Return the distances of the points of a to the nearest points of b, and of those of b to a."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    return nearest_index(b).query(a)[0], nearest_index(a).query(b)[0]


def nearest_index(points: Array) -> cKDTree:
    """Return an index for the nearest of points `[N, 3]`."""
    return cKDTree(points, leafsize=LEAF_POINTS)
