"""Cast rays at a mesh with Embree: first hits, unlit pictures, visibility."""

import math
from dataclasses import dataclass

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import ArrayLike, NDArray

from inference.meshes.srgb import from_linear, to_linear
from inference.meshes.textured_mesh import TexturedMesh
from rendering.cameras import FOV_DEGREES, Array, camera_centre, project

MAX_LAYERS = 64  # transparent surfaces that a ray passes, as in pipeline.render
MIN_ALPHA = 0.5  # of a surface that stops a ray
STEP = 1e-5  # past a transparent surface, in sizes of the mesh; Embree computes in float32
RAYS_AT_ONCE = 1 << 20
LINEAR = to_linear(np.arange(256) / 255)


@dataclass(frozen=True)
class Hits:
    """The first surface that each ray hits.

    Attributes:
        distance: From the origin of the ray, in units of the world `[N]`; infinite for rays that hit nothing.
        face: Index of the face, int64 `[N]`; -1 for none.
        barycentric: Weights of the face's three vertices `[N, 3]`; 0 for none.
    """

    distance: Array
    face: NDArray[np.int64]
    barycentric: Array


class RayCaster:
    """Cast rays at one mesh.

    Both sides of a face count as surface. Texels with an alpha below 0.5 do not stop a ray.

    Args:
        mesh: The mesh, near the origin; Embree stores positions in float32.
    """

    def __init__(self, mesh: TexturedMesh):
        self.mesh = mesh
        self._scene = EmbreeScene()
        vertices = np.ascontiguousarray(mesh.vertices, dtype=np.float32)
        TriangleMesh(scene=self._scene, vertices=vertices, indices=np.ascontiguousarray(mesh.faces, dtype=np.int32))
        self._size = float(np.ptp(mesh.vertices, axis=0).max())
        # All textures in one array, so that a lookup is one operation whatever their number.
        self._texels = np.concatenate([texture.reshape(-1, 4) for texture in mesh.textures])
        self._shapes = np.array([texture.shape[:2] for texture in mesh.textures])
        self._starts = np.cumsum([0, *self._shapes.prod(axis=1)])[:-1]
        self._cut = np.array([(texture[..., 3] < 255 * MIN_ALPHA).any() for texture in mesh.textures])

    def first_hits(self, origins: ArrayLike, directions: ArrayLike) -> Hits:
        """Return the first opaque surfaces on rays from `origins` `[N, 3]` in `directions` `[N, 3]` of any length."""
        origins, directions = _rays(origins, directions)
        hits = self._nearest(origins, directions)
        if not self._cut.any():
            return hits
        for _ in range(MAX_LAYERS):
            rays = np.flatnonzero(self._passed(hits))
            if not len(rays):
                return hits
            start = hits.distance[rays] + STEP * self._size
            behind = self._nearest(origins[rays] + start[:, None] * directions[rays], directions[rays])
            hits.distance[rays] = start + behind.distance
            hits.face[rays], hits.barycentric[rays] = behind.face, behind.barycentric
        return hits

    def _nearest(self, origins: Array, directions: Array) -> Hits:
        found = self._scene.run(origins.astype(np.float32), directions.astype(np.float32), output=1)
        face = found["primID"].astype(np.int64)
        hit = face >= 0
        u, v = found["u"].astype(np.float64), found["v"].astype(np.float64)
        return Hits(np.where(hit, found["tfar"], np.inf), face, np.stack([1 - u - v, u, v], axis=1) * hit[:, None])

    def _passed(self, hits: Hits) -> NDArray[np.bool_]:
        """Return which hits are at transparent texels `[N]`."""
        passed = (hits.face >= 0) & self._cut[self.mesh.material[hits.face]]
        passed[passed] = self._texture_colours(hits.face[passed], hits.barycentric[passed])[:, 3] < MIN_ALPHA
        return passed

    def colours(self, hits: Hits) -> NDArray[np.float32]:
        """Return the colours of hits in [0, 1], RGBA `[N, 4]`: sRGB without lighting, alpha 1; 0 for rays without one.

        Textures are interpolated bilinearly and repeat. Colours of vertices are interpolated in linear light.
        """
        colours = np.zeros((len(hits.face), 4), dtype=np.float32)
        hit = hits.face >= 0
        face, barycentric = hits.face[hit], hits.barycentric[hit]
        rgba = self._texture_colours(face, barycentric)
        rgba[:, 3] = 1
        if self.mesh.vertex_colours is not None:
            corners = LINEAR[self.mesh.vertex_colours[self.mesh.faces[face]]]
            light = np.einsum("nk,nkc->nc", barycentric, corners)  # as viewers of glTF do
            rgba[:, :3] = from_linear(to_linear(rgba[:, :3]) * light)
        colours[hit] = rgba
        return colours

    def _texture_colours(self, face: NDArray[np.int64], barycentric: Array) -> NDArray[np.float32]:
        """Return the straight RGBA `[N, 4]` of the textures at points of faces."""
        material = self.mesh.material[face]
        height, width = self._shapes[material].T
        u, v = np.einsum("nk,nkc->cn", barycentric, self.mesh.uv[face])
        x, y = (u % 1) * width - 0.5, (1 - v % 1) * height - 0.5  # of texel centres, from the top left
        column, row = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
        right, below = (x - column).astype(np.float32), (y - row).astype(np.float32)
        total = np.zeros((len(face), 4), dtype=np.float32)  # premultiplied: transparent texels have no colour
        for dy, dx, weight in ((0, 0, (1 - right) * (1 - below)), (0, 1, right * (1 - below)),
                               (1, 0, (1 - right) * below), (1, 1, right * below)):  # fmt: skip
            index = self._starts[material] + (row + dy) % height * width + (column + dx) % width
            texels = self._texels[index].astype(np.float32) / 255
            weight = weight * texels[:, 3]
            total[:, :3] += weight[:, None] * texels[:, :3]
            total[:, 3] += weight
        total[:, :3] /= np.maximum(total[:, 3:], 1e-6)
        return total

    def render(
        self, cameras: ArrayLike, resolution: int, fov_degrees: float = FOV_DEGREES, samples_per_axis: int = 2
    ) -> NDArray[np.uint8]:
        """Return unlit pictures of the mesh, RGBA with straight alpha `[N, R, R, 4]`.

        Args:
            cameras: Extrinsics `[N, 3, 4]`, world→camera, in the conventions of `rendering.cameras`.
            resolution: Side of a picture in pixels, R.
            fov_degrees: Field of view.
            samples_per_axis: A pixel is the mean of the square of that many rays; alpha is the share that hits.
        """
        return np.stack([
            self._picture(camera, resolution, fov_degrees, samples_per_axis)
            for camera in np.asarray(cameras, dtype=np.float64)
        ])  # fmt: skip

    def _picture(self, camera: Array, resolution: int, fov_degrees: float, samples: int) -> NDArray[np.uint8]:
        picture = np.zeros((resolution, resolution, 4), dtype=np.uint8)
        rows, columns = self.drawn_pixels(camera, resolution, fov_degrees)
        width = columns.stop - columns.start
        if width == 0:
            return picture
        height = max(1, RAYS_AT_ONCE // (width * samples**2))
        for start in range(rows.start, rows.stop, height):
            part = slice(start, min(start + height, rows.stop))
            directions = pixel_rays(camera, resolution, fov_degrees, samples, part, columns)
            hits = self.first_hits(np.broadcast_to(camera_centre(camera), directions.shape), directions)
            rgba = self.colours(hits).reshape(part.stop - start, samples, width, samples, 4).mean(axis=(1, 3))
            rgba[..., :3] /= np.maximum(rgba[..., 3:], 1e-6)  # colours of misses are 0, so the mean is premultiplied
            picture[part, columns] = np.round(255 * rgba)
        return picture

    def drawn_pixels(self, camera: Array, resolution: int, fov_degrees: float) -> tuple[slice, slice]:
        """Return the rows and the columns of a rectangle of pixels outside of which no ray hits the mesh.

        Args:
            camera: Extrinsics `[3, 4]`.
            resolution: Side of the picture in pixels.
            fov_degrees: Field of view.
        """
        pixels = project(self.mesh.vertices, camera, resolution, fov_degrees)
        if np.isnan(pixels).any():  # a vertex behind the camera
            return slice(0, resolution), slice(0, resolution)
        # One pixel more, since Embree computes in float32.
        first, last = np.floor(pixels.min(axis=0)) - 1, np.ceil(pixels.max(axis=0)) + 1
        columns, rows = (slice(*np.clip(ends, 0, resolution).astype(int)) for ends in zip(first, last, strict=True))
        return rows, columns

    def visible(
        self, points: ArrayLike, normals: ArrayLike, camera_centre: ArrayLike, offset: float = 1e-4
    ) -> NDArray[np.bool_]:
        """Return which points of the surface a camera sees `[P]`: they face it, and nothing lies between.

        Args:
            points: `[P, 3]`, on the surface.
            normals: Outward unit normals at the points `[P, 3]`.
            camera_centre: `[3]`.
            offset: Distance from the surface at which the rays to the camera start, in sizes of the mesh.
        """
        points, normals = np.asarray(points, dtype=np.float64), np.asarray(normals, dtype=np.float64)
        towards = np.asarray(camera_centre, dtype=np.float64) - points
        visible = np.einsum("nk,nk->n", towards, normals) > 0
        origins = points[visible] + offset * self._size * normals[visible]
        towards = np.asarray(camera_centre, dtype=np.float64) - origins
        visible[visible] = self.first_hits(origins, towards).distance >= np.linalg.norm(towards, axis=1)
        return visible


def _rays(origins: ArrayLike, directions: ArrayLike) -> tuple[Array, Array]:
    origins, directions = np.asarray(origins, dtype=np.float64), np.asarray(directions, dtype=np.float64)
    return origins, directions / np.linalg.norm(directions, axis=1, keepdims=True)


def pixel_rays(
    camera: Array,
    resolution: int,
    fov_degrees: float,
    samples: int = 1,
    rows: slice | None = None,
    columns: slice | None = None,
) -> Array:
    """Return the directions of rays through the pixels of a picture in world axes, row by row.

    Args:
        camera: Extrinsics `[3, 4]`.
        resolution: Side of the picture in pixels.
        fov_degrees: Field of view.
        samples: Rays along each side of a pixel.
        rows: H rows of pixels; None for all.
        columns: W columns of pixels; None for all.

    Returns:
        `[H · samples · W · samples, 3]`, of length 1 along the axis of the camera.
    """
    focal = resolution / (2 * math.tan(math.radians(fov_degrees) / 2))
    centres = (np.arange(resolution * samples).reshape(resolution, samples) + 0.5) / samples - resolution / 2
    across, down = (centres[part or slice(None)].ravel() / focal for part in (columns, rows))
    x, y = np.meshgrid(across, -down)
    return np.stack([x, y, np.full_like(x, -1)], axis=-1).reshape(-1, 3) @ camera[:, :3]


def on_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return pictures `[N, R, R, 4]` with straight alpha on white, `[N, R, R, 3]`."""
    alpha = rgba[..., 3:].astype(np.float32) / 255
    white: NDArray[np.uint8] = (rgba[..., :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)
    return white
