"""Compute the soft visual hull: the part of space that projects into the object's silhouettes in the views."""

import torch
from torch import Tensor
from torch.nn import functional

from inference.reconstruction.field.rays import project

POINTS_TOGETHER = 2**18


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
