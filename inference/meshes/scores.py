"""Compare two meshes: Chamfer distance, F-score and volume IoU. The caller aligns and normalises them."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree

from inference.meshes.occupancy import occupancy
from inference.meshes.textured_mesh import TexturedMesh
from rendering.cameras import Array

SAMPLES = 50_000


def surface_points(mesh: TexturedMesh, count: int, seed: int = 0) -> Array:
    """Return `count` random points `[count, 3]`, uniform on the surface by area."""
    rng = np.random.default_rng(seed)
    corner, *edges = np.moveaxis(mesh.vertices[mesh.faces], 1, 0)
    first, second = (edge - corner for edge in edges)
    areas = np.cumsum(np.linalg.norm(np.cross(first, second), axis=1))
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


def chamfer_of_points(a: ArrayLike, b: ArrayLike) -> float:
    """Return the Chamfer distance of two point clouds `[N, 3]` and `[M, 3]`, as `chamfer`."""
    there, back = _nearest_distances(a, b)
    return float(there.mean() + back.mean()) / 2


def f_score(a: TexturedMesh, b: TexturedMesh, threshold: float, samples: int = SAMPLES, seed: int = 0) -> float:
    """Return the F-score: the harmonic mean of the shares of each surface within `threshold` of the other one."""
    shares = [float((distance <= threshold).mean()) for distance in _nearest_distances(*_samples(a, b, samples, seed))]
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
    union = int((inside_a | inside_b).sum())
    return int((inside_a & inside_b).sum()) / union if union else 0.0


def _samples(a: TexturedMesh, b: TexturedMesh, samples: int, seed: int) -> tuple[Array, Array]:
    seeds = np.random.SeedSequence(seed).generate_state(2)
    return surface_points(a, samples, int(seeds[0])), surface_points(b, samples, int(seeds[1]))


def _nearest_distances(a: ArrayLike, b: ArrayLike) -> tuple[Array, Array]:
    """Return the distances of the points of a to the nearest points of b, and of those of b to a."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    return cKDTree(b).query(a)[0], cKDTree(a).query(b)[0]
