"""Sample the part of a surface that is visible from cameras around it, as SyncDreamer does."""

import math

import numpy as np

from inference.meshes.ray_casting import RayCaster, pixel_rays
from inference.meshes.textured_mesh import TexturedMesh, plain_mesh
from rendering.cameras import FOV_DEGREES, Array, camera_centre, orbit

CAMERAS, ELEVATION_DEGREES, RADIUS = 16, 30.0, 1.5
RESOLUTION = 256  # pixels; the focal length is 280 pixels
NEAR, FAR = 0.5, 100.0  # depths between which the surface is drawn
VOXEL = 0.01


def visible_points(mesh: TexturedMesh) -> Array:
    """Return the points `[N, 3]` of a mesh that 16 cameras see, at most one in each voxel; none if it is out of view.

    As SyncDreamer's eval_mesh.py: depth maps of 256² pixels from azimuths 0, 22.5, …, 337.5 degrees, elevation 30
    degrees and radius 1.5 are unprojected and joined, and the points in each voxel of side 0.01 are replaced by their
    mean. A depth is measured at the centre of a pixel but unprojected through its corner, as there, which moves the
    points of each view by half a pixel, 0.003 object sizes; both meshes are treated alike.
    """
    caster = RayCaster(plain_mesh(mesh.vertices, mesh.faces))
    cameras = orbit(CAMERAS, math.radians(90 - ELEVATION_DEGREES), RADIUS)
    return voxel_means(np.concatenate([_unprojected(caster, camera) for camera in cameras]), VOXEL)


def _unprojected(caster: RayCaster, camera: Array) -> Array:
    centres = pixel_rays(camera, RESOLUTION, FOV_DEGREES)  # of length 1 along the axis of the camera
    hits = caster.first_hits(camera_centre(camera) + NEAR * centres, centres)
    depth = NEAR + hits.distance / np.linalg.norm(centres, axis=1)
    hit = np.flatnonzero(depth < FAR)
    depth = depth[hit]
    row, column = np.divmod(hit, RESOLUTION)
    focal = RESOLUTION / (2 * math.tan(math.radians(FOV_DEGREES) / 2))
    x, y = (column - RESOLUTION / 2) / focal, (RESOLUTION / 2 - row) / focal  # the corner of the pixel
    in_camera = depth[:, None] * np.stack([x, y, np.full_like(x, -1.0)], axis=1)
    return (in_camera - camera[:, 3]) @ camera[:, :3]


def voxel_means(points: Array, side: float) -> Array:
    """Return the mean of the points `[N, 3]` in each voxel that has some, as Open3D's `voxel_down_sample`.

    The first voxel begins half a side below the least coordinates of the points.
    """
    if not len(points):
        return points
    index = np.floor((points - points.min(axis=0)) / side + 0.5).astype(np.int64)
    size = index.max(axis=0) + 1
    _, voxel, counts = np.unique(np.ravel_multi_index(index.T, size), return_inverse=True, return_counts=True)
    return np.stack([np.bincount(voxel, points[:, axis]) / counts for axis in range(3)], axis=1)
