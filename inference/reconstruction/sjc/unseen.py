"""Fill the parts of a field that no camera sees, such as the inside of the object."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from inference.reconstruction.field.rays import camera_rays, project
from inference.reconstruction.field.volume_rendering import Occupancy, compositing_weights, sample_rays
from inference.reconstruction.field.voxel_grid import occupancy
from inference.reconstruction.sjc.field import SjcField
from rendering.cameras import Array

SEEN_OPACITY = 0.5  # of what lies in front of a node; a denser front hides it
MAP_PIXELS = 96  # side of a map of distances
SOLID = 20.0  # optical depth of one spacing in the parts that no camera sees


@torch.no_grad()
def solid_density(field: SjcField, cameras: Array) -> Tensor:
    """Return the density σ `[N, N, N]` of a field, opaque where no camera sees.

    The scores constrain the visible surface alone: behind it, a fit leaves arbitrary density and values, and marching
    cubes would return a shell, with holes where a thin part is missing. A node is seen if the ray from some camera
    reaches it before its opacity exceeds one half; all others count as solid, as in space carving (Kutulakos and Seitz,
    2000).

    Args:
        field: The field.
        cameras: Extrinsics `[V, 3, 4]` of cameras around the object.
    """
    density = field.sigma(field.density.dense())
    nodes = field.density.positions()
    seen = torch.zeros(len(nodes), dtype=torch.bool, device=nodes.device)
    occupied = occupancy(field.density, field.occupied_cells())
    for camera in torch.from_numpy(cameras).to(nodes):
        ends = surface_distances(field, camera, occupied)
        places = project(nodes, camera[None])[0]
        distances = (nodes @ camera[:, :3].T + camera[:, 3]).norm(dim=1)
        end = functional.grid_sample(ends[None, None], places[None, None], "nearest", "border", align_corners=False)
        seen |= (distances <= end[0, 0, 0]) | (places.abs().amax(dim=1) > 1)
    return torch.where(seen.view_as(density), density, SOLID / field.density.spacing)


def surface_distances(field: SjcField, camera_34: Tensor, occupied: Occupancy) -> Tensor:
    """Return the distances `[P, P]` at which the opacity of a camera's rays exceeds one half, else infinity."""
    origins, directions = (part.reshape(-1, 3) for part in camera_rays(camera_34[None], MAP_PIXELS))
    samples = sample_rays(origins, directions, field.density.half_side, field.step, occupied)
    weights_M = compositing_weights(field.sigma(field.density.interpolate(samples.points_M3)[:, 0]), samples)
    total_M = weights_M.double().cumsum(0)
    starts_M = torch.searchsorted(samples.ray_M, samples.ray_M)
    opacity_M = total_M - (total_M - weights_M)[starts_M]
    hidden = opacity_M > SEEN_OPACITY
    ends = torch.full((len(origins),), math.inf, device=origins.device, dtype=samples.distance_M.dtype)
    ends.scatter_reduce_(0, samples.ray_M[hidden], samples.distance_M[hidden], "amin")
    return ends.view(MAP_PIXELS, MAP_PIXELS)
