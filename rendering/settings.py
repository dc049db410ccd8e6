"""Render settings: everything that decides the pixels of a set of views, except the asset and the seed."""

import math
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import yaml

from conf.options import FieldError, option
from rendering.cameras import (
    GRID_AZIMUTHS,
    RADIUS_RANGE,
    Array,
    grid,
    look_at_origin,
    orbit,
    sample_hemisphere,
    sample_sphere,
    sample_zero123,
    spherical_to_cartesian,
)
from rendering.lights import LIGHTINGS

RANGES = {
    "views": (1, 999),
    "resolution": (8, 4096),
    "samples": (1, 65536),
    "min_samples": (0, 4096),
    "noise": (0, 1),
    "filter_width": (0.01, 10),
    "polar": (0, 180),
    "transparent_bounces": (0, 1024),
}
CHOICES = {
    "cameras": ("zero123", "sphere", "hemisphere", "orbit", "grid", "fixed"),
    "lighting": LIGHTINGS,
    "denoise": ("none", "balanced", "accurate"),
    "pixel_filter": ("BOX", "GAUSSIAN", "BLACKMAN_HARRIS"),
    "view_transform": ("Filmic", "Standard", "AgX"),
    "device": ("cpu", "auto", "cuda", "optix"),
}
PASSES = ("depth", "normal", "mask", "albedo")
RADIUS_LIMITS = (1.0, 5.5)  # object sizes: outside the object, within the range of a depth picture


@dataclass(frozen=True)
class RenderSettings:
    """Cameras, lights and Cycles settings of a set of views.

    The defaults are the preset `fast` of `conf/pipeline/renderer`; `zero123` there is the paper's.

    Raises:
        FieldError: a value is not valid.
    """

    views: int = option(12, "views per object")
    resolution: int = option(256, "width and height of a view, pixels")
    cameras: str = option("zero123", f"distribution of the cameras: {', '.join(CHOICES['cameras'])}")
    radius: list[float] = option(
        list(RADIUS_RANGE), "range of distances to the origin, object sizes; orbit and grid take the mean"
    )
    polar: float = option(75.0, "polar angle of an orbit, degrees from +z down")
    poses: list[Any] = option([], "fixed cameras: [[polar, azimuth, radius], …], degrees and object sizes")
    lighting: str = option("zero123", f"lamps and world: {', '.join(LIGHTINGS)} (one of the others per object)")
    passes: list[str] = option([], f"further images of each view: any of {', '.join(PASSES)}")
    samples: int = option(128, "maximum of Cycles samples per pixel")
    min_samples: int = option(8, "minimum of samples per pixel with adaptive sampling; 0: chosen by Cycles")
    noise: float = option(0.03, "noise threshold of adaptive sampling; 0: every pixel takes all samples")
    denoise: str = option("balanced", "OpenImageDenoise: none, balanced or accurate (five times slower)")
    transparent_bounces: int = option(64, "maximum of transparent surfaces (leaves, hair) that a ray passes")
    cull_backfaces: bool = option(True, "show glTF materials that are not doubleSided from the front only")
    separate_coincident: bool = option(True, "of coincident faces, draw the one that faces the camera")
    crop: bool = option(True, "sample only the rectangle around the object: equal images in less time")
    pixel_filter: str = option("BOX", "Cycles pixel filter: BOX, GAUSSIAN or BLACKMAN_HARRIS")
    filter_width: float = option(1.0, "width of the pixel filter, pixels (the paper's 0.01 aliases)")
    view_transform: str = option("Filmic", "view transform: Filmic (as the released data), Standard or AgX")
    device: str = option("cpu", "cpu, cuda, optix, or auto: a GPU if there is one (its noise differs)")

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise FieldError(self, name, f"must be between {low} and {high}")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise FieldError(self, name, f"must be one of {', '.join(choices)}")
        if unknown := set(self.passes) - set(PASSES):
            raise FieldError(self, "passes", f"unknown pass {min(unknown)}; choose from {', '.join(PASSES)}")
        nearest, farthest = RADIUS_LIMITS
        if not (len(self.radius) == 2 and nearest <= self.radius[0] <= self.radius[1] <= farthest):
            raise FieldError(self, "radius", f"must be [nearest, farthest] between {nearest} and {farthest}")
        if self.cameras == "grid" and self.views % GRID_AZIMUTHS:
            raise FieldError(self, "views", f"must be a multiple of {GRID_AZIMUTHS} with cameras=grid")
        self._check_poses()

    def _check_poses(self) -> None:
        try:
            poses = [[float(number) for number in pose] for pose in self.poses]
        except (TypeError, ValueError):
            raise FieldError(self, "poses", "must be [[polar, azimuth, radius], …] in numbers") from None
        object.__setattr__(self, "poses", poses)  # 90 and 90.0 are the same plan
        nearest, farthest = RADIUS_LIMITS
        for pose in poses:
            if not (len(pose) == 3 and 0 <= pose[0] <= 180 and abs(pose[1]) <= 360 and nearest <= pose[2] <= farthest):
                limits = f"[polar 0 to 180, azimuth -360 to 360, radius {nearest} to {farthest}]"
                raise FieldError(self, "poses", f"pose {pose} must be {limits}")
        if poses and self.cameras != "fixed":
            raise FieldError(self, "poses", f"not used with cameras={self.cameras}; add cameras=fixed, or omit them")
        if self.cameras == "fixed" and len(poses) != self.views:
            raise FieldError(self, "cameras", f"{len(poses)} poses for views={self.views}; give one pose for each view")


def preset(name: str) -> RenderSettings:
    """Return the settings of `conf/pipeline/renderer/<name>.yaml`: `fast`, or `zero123`, the paper's."""
    text = resources.files("conf").joinpath(f"pipeline/renderer/{name}.yaml").read_text(encoding="utf-8")
    return RenderSettings(**yaml.safe_load(text))


def sample_cameras(settings: RenderSettings, rng: np.random.Generator) -> Array:
    """Return the extrinsics `[views, 3, 4]` of an object's cameras; `rng` draws those that are random."""
    nearest, farthest = settings.radius
    match settings.cameras:
        case "zero123":
            return sample_zero123(rng, settings.views, (nearest, farthest))
        case "sphere":
            return sample_sphere(rng, settings.views, (nearest, farthest))
        case "hemisphere":
            return sample_hemisphere(rng, settings.views, (nearest, farthest))
        case "grid":
            return grid(settings.views // GRID_AZIMUTHS, (nearest + farthest) / 2)
        case "orbit":
            return orbit(settings.views, math.radians(settings.polar), (nearest + farthest) / 2)
    centres = [
        spherical_to_cartesian(math.radians(polar), math.radians(azimuth), r) for polar, azimuth, r in settings.poses
    ]
    return np.stack([look_at_origin(centre) for centre in centres])
