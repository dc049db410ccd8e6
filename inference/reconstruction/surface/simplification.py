"""Turn a closed triangle mesh into a solid of fewer faces: manifold, smooth, simplified."""

from dataclasses import dataclass

import fast_simplification
import numpy as np
import trimesh
from manifold3d import Error, Manifold, Mesh64, OpType
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, diags_array

from conf.options import UserError
from inference.reconstruction.surface.extraction import Faces, large_parts
from rendering.cameras import Array

# Taubin, "A signal processing approach to fair surface design" (1995): a step that shrinks and one that inflates,
# with 1/λ + 1/μ = 0.1 as the pass band.
SHRINK, INFLATE = 0.5, -1 / (1 / 0.5 - 0.1)
ATTEMPTS = 4  # to reach the number of faces
PINCH = 0.02  # shift of two vertices at one position towards their neighbours, relative to the neighbours' distance


@dataclass(frozen=True)
class SurfaceCheck:
    """Properties of a mesh as a solid.

    Attributes:
        watertight: Whether each edge belongs to exactly two faces, which run along it in opposite directions.
        volume: Enclosed volume; negative if the faces wind the wrong way.
        faces: Number of triangles.
        components: Number of connected parts.
    """

    watertight: bool
    volume: float
    faces: int
    components: int


def check_surface(vertices: Array, faces: Faces) -> SurfaceCheck:
    """Return the properties of a mesh as a solid; vertices at one position count as one vertex."""
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    mesh.merge_vertices(merge_tex=True, merge_norm=True, digits_vertex=12)
    return SurfaceCheck(
        watertight=bool(mesh.is_watertight and mesh.is_winding_consistent),
        volume=float(mesh.volume),
        faces=len(mesh.faces),
        components=int(mesh.body_count),
    )


def make_solid(vertices: Array, faces: Faces, target: int = 40_000, smoothing: int = 10) -> tuple[Array, Faces]:
    """Return a watertight mesh of at most `target` faces that encloses the volume of a closed mesh.

    Args:
        vertices: Positions `[V, 3]`.
        faces: Triangles `[F, 3]`, counter-clockwise from outside.
        target: Largest number of faces.
        smoothing: Taubin steps against the stair steps of a grid; 0 for none.

    Raises:
        UserError: The mesh encloses no volume.
    """
    vertices, faces = _arrays(_solid(vertices, faces))
    vertices = smooth(vertices, faces, smoothing)
    if len(faces) > target:
        vertices, faces = large_parts(*_simplify(vertices, faces, target))
    return vertices, faces


def smooth(vertices: Array, faces: Faces, steps: int) -> Array:
    """Return the vertices `[V, 3]` after Taubin smoothing, which keeps the volume."""
    average = _neighbour_average(faces, len(vertices))
    for _ in range(steps):
        for factor in (SHRINK, INFLATE):
            vertices = vertices + factor * (average @ vertices - vertices)
    return vertices


def _neighbour_average(faces: Faces, count: int) -> csr_array:
    """Return the matrix `[V, V]` that averages the neighbours of each vertex."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = np.concatenate([edges, edges[:, ::-1]])
    linked = coo_array((np.ones(len(edges)), edges.T), shape=(count, count)).tocsr().astype(bool).astype(np.float64)
    return csr_array(diags_array(1 / np.maximum(linked.sum(axis=1), 1)) @ linked)


def _simplify(vertices: Array, faces: Faces, target: int) -> tuple[Array, Faces]:
    """Return the solid with at most `target` faces.

    Collapsing edges by quadric errors keeps every edge paired, so that manifold3d can make the result a solid again.
    Where that adds faces, a smaller number is asked for.
    """
    asked = target
    for _ in range(ATTEMPTS):
        result = _arrays(_solid(*fast_simplification.simplify(vertices, faces.astype(np.int32), target_count=asked)))
        if len(result[1]) <= target:
            break
        asked = int(0.9 * asked * target / len(result[1]))
    return result


def _solid(vertices: Array, faces: Faces) -> Manifold:
    manifold = _manifold(vertices, faces)
    if manifold is None or manifold.volume() <= 0:
        raise UserError("the surface of the field encloses no volume; try another iso-level")
    return _positive(manifold)


def _manifold(vertices: Array, faces: NDArray) -> Manifold | None:
    """Return the mesh as a manifold, open edges at one position joined; None if it is none."""
    mesh = Mesh64(np.ascontiguousarray(vertices, dtype=np.float64), np.ascontiguousarray(faces, dtype=np.uint64))
    mesh.merge()
    manifold = Manifold(mesh)
    return manifold if manifold.status() == Error.NoError and not manifold.is_empty() else None


def _positive(manifold: Manifold) -> Manifold:
    """Return the union of the parts that enclose a positive volume."""
    parts = manifold.decompose()
    return Manifold.batch_boolean([part for part in parts if part.volume() > 0], OpType.Add) if parts else manifold


def _arrays(manifold: Manifold) -> tuple[Array, Faces]:
    """Return vertices and faces, without two vertices at one position.

    A solid that touches itself at a point or along an edge has several vertices there. A reader of the file would join
    them to an edge of four faces, so that they are moved apart.
    """
    mesh = manifold.to_mesh64()
    vertices, faces = np.asarray(mesh.vert_properties)[:, :3].astype(np.float64), np.asarray(mesh.tri_verts, np.int64)
    _, place, count = np.unique(vertices, axis=0, return_inverse=True, return_counts=True)
    pinched = count[place.ravel()] > 1
    if pinched.any():
        vertices[pinched] += PINCH * (_neighbour_average(faces, len(vertices)) @ vertices - vertices)[pinched]
    return vertices, faces
