"""Compare a mesh with the truth, and the baselines that need no model: a visual hull and a sphere."""

import numpy as np
import torch
import trimesh

from inference.meshes.occupancy import occupancy
from inference.meshes.scores import chamfer, volume_iou
from inference.meshes.textured_mesh import TexturedMesh, plain_mesh
from inference.reconstruction.config import ViewsSettings
from inference.reconstruction.guidance.oracle_guide import OracleGuide
from inference.reconstruction.surface.extraction import extract_surface
from inference.reconstruction.views.ring import ring_cameras
from inference.reconstruction.views.visual_hull import visual_hull

HULL_NODES, HALF_SIDE = 128, 0.55
OPAQUE = 1e3  # density of the hull
VOLUME_NODES = 64


def compared(mesh: TexturedMesh, truth: TexturedMesh) -> dict[str, float]:
    """Return volume IoU and Chamfer distance of a mesh to the truth, by name."""
    return {"iou": volume_iou(mesh, truth), "chamfer": chamfer(mesh, truth)}


def baseline_scores(truth: TexturedMesh, oracle: OracleGuide, settings: ViewsSettings) -> dict[str, float]:
    """Return the scores of the visual hull of the true views, and of a sphere of the truth's volume, by name."""
    scores: dict[str, float] = {}
    for name, mesh in (("hull", hull_mesh(oracle, settings)), ("sphere", sphere_mesh(truth))):
        scores |= {f"{name}_{score}": value for score, value in compared(mesh, truth).items()}
    return scores


def hull_mesh(oracle: OracleGuide, settings: ViewsSettings) -> TexturedMesh:
    """Return the surface of the visual hull of the true views from the input camera and the rings."""
    rings = ring_cameras(oracle.input_camera, settings.elevations, settings.count)
    cameras = np.concatenate([oracle.input_camera[None], rings])
    masks = torch.from_numpy(oracle.draw(cameras, 0, lambda done, total: None).masks)
    axis = torch.linspace(-HALF_SIDE, HALF_SIDE, HULL_NODES)
    points = torch.cartesian_prod(axis, axis, axis)
    hull = visual_hull(points, torch.from_numpy(cameras).float(), masks).view((HULL_NODES,) * 3)
    return plain_mesh(*extract_surface(OPAQUE * hull.numpy(), HALF_SIDE))


def sphere_mesh(truth: TexturedMesh) -> TexturedMesh:
    """Return a sphere at the origin with the volume of a mesh."""
    nodes = occupancy(truth, VOLUME_NODES)
    volume = nodes.mean() * 1.01**3  # `occupancy` covers the cube [-0.505, 0.505]³
    sphere = trimesh.creation.icosphere(subdivisions=4, radius=float((3 * volume / (4 * np.pi)) ** (1 / 3)))
    return plain_mesh(np.asarray(sphere.vertices), np.asarray(sphere.faces, dtype=np.int64))
