"""The soft visual hull: the part of space that projects into the object's silhouette in the views."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from rendering.cameras import FOV_DEGREES

POINTS_TOGETHER = 2**18


def project(points_P3: Tensor, cameras_N34: Tensor, fov_degrees: float = FOV_DEGREES) -> Tensor:
    """Return picture coordinates `[N, P, 2]` (x, y) of points, from -1 at the left and top edge to 1, as `grid_sample`.

    Points behind a camera lie outside of its picture.
    """
    in_camera_NP3 = torch.einsum("nij,pj->npi", cameras_N34[:, :, :3], points_P3) + cameras_N34[:, None, :, 3]
    depth_NP = -in_camera_NP3[..., 2]
    scale_NP = 1 / (math.tan(math.radians(fov_degrees) / 2) * depth_NP.clamp(min=1e-6))
    places = torch.stack([in_camera_NP3[..., 0] * scale_NP, -in_camera_NP3[..., 1] * scale_NP], dim=-1)
    return torch.where(depth_NP[..., None] > 1e-6, places, torch.full_like(places, 9.0))


def sample_pictures(pictures_NCRR: Tensor, places_NP2: Tensor) -> Tensor:
    """Return pictures sampled at places, `[N, C, P]`; zero outside."""
    return functional.grid_sample(pictures_NCRR, places_NP2[:, None], align_corners=False)[:, :, 0]


def visual_hull(points_P3: Tensor, cameras_N34: Tensor, masks_NRR: Tensor, tolerated: int = 0) -> Tensor:
    """Return the occupancy `[P]` of points by the soft visual hull, in [0, 1].

    It is the lowest coverage over the views. The first view is the photograph. Of the others, which a model draws and
    which contradict each other, the `tolerated` lowest are left out.
    """
    parts = []
    for points in points_P3.split(POINTS_TOGETHER):
        coverage_NP = sample_pictures(masks_NRR[:, None], project(points, cameras_N34))[:, 0]
        drawn_P = coverage_NP[1:].kthvalue(tolerated + 1, dim=0).values
        parts.append(torch.minimum(coverage_NP[0], drawn_P))
    return torch.cat(parts)


def mean_colours(points_P3: Tensor, cameras_N34: Tensor, pictures_N3RR: Tensor, masks_NRR: Tensor) -> Tensor:
    """Return the mean colour `[P, 3]` of points over the views that cover them, hidden or not; grey without any."""
    parts = []
    for points in points_P3.split(POINTS_TOGETHER):
        places = project(points, cameras_N34)
        coverage_NP = sample_pictures(masks_NRR[:, None], places)[:, 0]
        colours_N3P = sample_pictures(pictures_N3RR, places)
        total = (colours_N3P * coverage_NP[:, None]).sum(dim=0) + 0.5e-3
        parts.append((total / (coverage_NP.sum(dim=0) + 1e-3)).T)
    return torch.cat(parts)
