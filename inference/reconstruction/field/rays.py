"""Compute the rays of pinhole cameras."""

import math

import torch
from torch import Tensor

from rendering.cameras import FOV_DEGREES


def camera_rays(cameras_N34: Tensor, resolution: int, fov_degrees: float = FOV_DEGREES) -> tuple[Tensor, Tensor]:
    """Return origins `[N, R, R, 3]` and unit directions `[N, R, R, 3]` of the rays through the pixels' centres.

    Args:
        cameras_N34: Extrinsics, world→camera, in the conventions of `rendering.cameras`.
        resolution: Pixels R per side of the square picture; the first row is the top one.
        fov_degrees: Field of view of a side.
    """
    half = math.tan(math.radians(fov_degrees) / 2)
    places = (torch.arange(resolution, dtype=cameras_N34.dtype, device=cameras_N34.device) + 0.5) / resolution * 2 - 1
    y, x = torch.meshgrid(-places * half, places * half, indexing="ij")
    in_camera = torch.stack([x, y, torch.full_like(x, -1)], dim=-1)
    rotation_N33 = cameras_N34[:, :, :3]
    directions = torch.einsum("nji,hwj->nhwi", rotation_N33, in_camera)
    centres = -torch.einsum("nji,nj->ni", rotation_N33, cameras_N34[:, :, 3])
    return centres[:, None, None].expand_as(directions), directions / directions.norm(dim=-1, keepdim=True)


def project(points_P3: Tensor, cameras_N34: Tensor, fov_degrees: float = FOV_DEGREES) -> Tensor:
    """Return picture coordinates `[N, P, 2]` (x, y) of points, from -1 at the left and top edge to 1, as `grid_sample`.

    Points behind a camera lie outside of its picture.
    """
    in_camera_NP3 = torch.einsum("nij,pj->npi", cameras_N34[:, :, :3], points_P3) + cameras_N34[:, None, :, 3]
    depth_NP = -in_camera_NP3[..., 2]
    scale_NP = 1 / (math.tan(math.radians(fov_degrees) / 2) * depth_NP.clamp(min=1e-6))
    places = torch.stack([in_camera_NP3[..., 0] * scale_NP, -in_camera_NP3[..., 1] * scale_NP], dim=-1)
    return torch.where(depth_NP[..., None] > 1e-6, places, torch.full_like(places, 9.0))


def cube_crossing(origins_R3: Tensor, directions_R3: Tensor, half_side: float) -> tuple[Tensor, Tensor]:
    """Return the distances `[R]` at which rays enter and leave the cube [-half_side, half_side]³, as `box_crossing`."""
    corner = torch.full((3,), half_side, dtype=origins_R3.dtype, device=origins_R3.device)
    return box_crossing(origins_R3, directions_R3, -corner, corner)


def box_crossing(
    origins_R3: Tensor, directions_R3: Tensor, lowest_3: Tensor, highest_3: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the distances `[R]` at which rays enter and leave the box between two corners.

    A ray that starts inside enters at 0. For a ray that misses the box the first distance is not below the second.
    """
    inverse = 1 / torch.where(directions_R3.abs() < 1e-12, torch.full_like(directions_R3, 1e-12), directions_R3)
    one, two = (lowest_3 - origins_R3) * inverse, (highest_3 - origins_R3) * inverse
    return torch.minimum(one, two).amax(dim=1).clamp(min=0), torch.maximum(one, two).amin(dim=1)
