"""Render predicted meshes beside the true mesh, shaded grey; red marks a prediction that is far from the truth."""

import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from trimesh.transformations import transform_points

from inference.evaluation.meshes.alignment import Cloud
from inference.evaluation.meshes.comparison import Comparison, Shape
from inference.meshes.ray_casting import RayCaster, pixel_rays
from inference.meshes.textured_mesh import plain_mesh
from rendering.cameras import FOV_DEGREES, Array, camera_centre, look_at_origin, spherical_to_cartesian
from rendering.picture_grid import picture_grid

AZIMUTHS_DEGREES, ELEVATION_DEGREES, RADIUS = (-60.0, 120.0), 20.0, 1.5
RESOLUTION, SAMPLES = 128, 2  # pixels, rays along each side of a pixel
NEAR_DISTANCE, FAR_DISTANCE = 0.005, 0.05  # object sizes; drawn grey and red
GREY, RED = np.array([200.0, 202.0, 206.0]), np.array([220.0, 40.0, 30.0])
QUALITY = 85


def strip(truth: Shape, prediction: Shape, comparisons: Sequence[Comparison]) -> bytes:
    """Return a WebP picture: the truth and the prediction under each alignment from left to right, from two sides."""
    meshes = [plain_mesh(truth.mesh.vertices, truth.mesh.faces)]
    meshes += [
        replace(plain_mesh(prediction.mesh.vertices, prediction.mesh.faces), vertices=transform_points(
            prediction.mesh.vertices, comparison.transform
        ))
        for comparison in comparisons
    ]  # fmt: skip
    casters = [RayCaster(mesh) for mesh in meshes]
    rows = [
        [Image.fromarray(shaded(caster, camera, truth.cloud if i else None)) for i, caster in enumerate(casters)]
        for camera in cameras()
    ]
    contents = io.BytesIO()
    picture_grid(rows).save(contents, format="WEBP", quality=QUALITY)
    return contents.getvalue()


def cameras() -> list[Array]:
    """Return the cameras of the pictures."""
    polar = np.radians(90 - ELEVATION_DEGREES)
    return [look_at_origin(spherical_to_cartesian(polar, np.radians(azimuth), RADIUS)) for azimuth in AZIMUTHS_DEGREES]


def shaded(caster: RayCaster, camera: Array, truth: Cloud | None) -> NDArray[np.uint8]:
    """Return a picture `[R, R, 3]` of a mesh on white, lit from the camera.

    Args:
        caster: The mesh.
        camera: Extrinsics `[3, 4]`.
        truth: Points of the true surface; the farther a point of the mesh lies from them, the redder it is drawn.
    """
    rays = pixel_rays(camera, RESOLUTION, FOV_DEGREES, SAMPLES)
    hits = caster.first_hits(np.broadcast_to(camera_centre(camera), rays.shape), rays)
    hit = np.flatnonzero(hits.face >= 0)
    colours = np.full((len(rays), 3), 255.0)
    corners = caster.mesh.vertices[caster.mesh.faces[hits.face[hit]]]
    colour = np.tile(GREY, (len(hit), 1))
    if truth is not None and len(hit):
        points = np.einsum("nk,nkc->nc", hits.barycentric[hit], corners)
        distance = truth.tree.query(points, distance_upper_bound=FAR_DISTANCE)[0]  # infinite beyond
        share = np.clip((distance - NEAR_DISTANCE) / (FAR_DISTANCE - NEAR_DISTANCE), 0, 1)
        colour = GREY + share[:, None] * (RED - GREY)
    colours[hit] = colour * _light(corners, rays[hit])[:, None]
    side = RESOLUTION
    return colours.reshape(side, SAMPLES, side, SAMPLES, 3).mean(axis=(1, 3)).round().astype(np.uint8)


def _light(corners: Array, rays: Array) -> Array:
    """Return the brightness `[N]` of triangles `[N, 3, 3]` that rays `[N, 3]` meet; both sides are lit."""
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1) * np.linalg.norm(rays, axis=1)
    return 0.3 + 0.7 * np.abs(np.einsum("nk,nk->n", normals, rays)) / np.where(lengths > 0, lengths, 1)
