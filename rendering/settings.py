"""What a set of views is made with: everything that decides the pixels, beside the asset and the seed."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from conf.options import UserError, option
from rendering.cameras import (
    RADIUS_RANGE,
    Array,
    look_at_origin,
    orbit,
    sample_hemisphere,
    sample_sphere,
    sample_zero123,
    spherical_to_cartesian,
)

RANGES = {"views": (1, 999), "resolution": (8, 4096), "samples": (1, 65536), "transparent_bounces": (0, 1024)}
CHOICES = {
    "cameras": ("zero123", "sphere", "hemisphere", "orbit", "fixed"),
    "lighting": ("zero123", "uniform", "three_point"),
    "denoise": ("none", "balanced", "accurate"),
    "pixel_filter": ("BOX", "GAUSSIAN", "BLACKMAN_HARRIS"),
    "view_transform": ("Filmic", "Standard", "AgX"),
    "device": ("cpu", "auto", "cuda", "optix"),
}
PASSES = ("depth", "normal", "mask", "albedo")
RADII = (1.0, 5.5)  # object sizes: never inside the object, and never deeper than a depth picture reaches


@dataclass(frozen=True)
class RenderSettings:
    """A rendering recipe. The defaults are `fast`; `zero123` is the original's, see conf/pipeline/renderer."""

    views: int = option(12, "pictures per object")
    resolution: int = option(256, "side of a picture, pixels")
    cameras: str = option("zero123", f"where they stand: {', '.join(CHOICES['cameras'])}")
    radius: list[float] = option(list(RADIUS_RANGE), "distance range in object sizes; an orbit takes its middle")
    polar: float = option(75.0, "of an orbit, degrees from straight above")
    poses: list[Any] = option([], "of fixed cameras: [[polar, azimuth, radius], …] in degrees, object sizes")
    lighting: str = option("zero123", f"lamps and world: {', '.join(CHOICES['lighting'])}")
    passes: list[str] = option([], f"beside the colour: any of {', '.join(PASSES)}")
    samples: int = option(128, "Cycles samples per pixel, at most")
    min_samples: int = option(8, "where sampling may end early: samples per pixel at least; 0: by Cycles' own rule")
    noise: float = option(0.03, "sampling of a pixel ends early where its noise is below this; 0: it takes all samples")
    denoise: str = option("balanced", "OpenImageDenoise after sampling: none, balanced, accurate (five times slower)")
    transparent_bounces: int = option(64, "layers of transparent surfaces, as of leaves, that a ray passes at most")
    cull_backfaces: bool = option(True, "glTF materials that are not doubleSided are seen from their front alone")
    separate_coincident: bool = option(True, "of faces in one place, the one that faces the camera is drawn")
    crop: bool = option(True, "sample only the rectangle where the object is: the same picture, sooner")
    pixel_filter: str = option("BOX", "Cycles pixel filter: BOX, GAUSSIAN or BLACKMAN_HARRIS")
    filter_width: float = option(1.0, "width of the pixel filter, pixels (the original's 0.01 aliases)")
    view_transform: str = option("Filmic", "tone mapping: Filmic (as the released data), Standard or AgX")
    device: str = option("cpu", "cpu, cuda, optix, or auto: a GPU where there is one (other noise, same picture)")

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise UserError(f"renderer.{name}={getattr(self, name)} is outside {low}..{high}")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise UserError(f"renderer.{name}={getattr(self, name)} is none of {', '.join(choices)}")
        if unknown := set(self.passes) - set(PASSES):
            raise UserError(f"renderer.passes: there is no {min(unknown)}; choose from {', '.join(PASSES)}")
        if not 0 <= self.min_samples <= 4096:
            raise UserError(f"renderer.min_samples={self.min_samples} is outside 0..4096")
        if not 0 <= self.noise <= 1:
            raise UserError(f"renderer.noise={self.noise} lies not within 0 and 1")
        if not self.filter_width > 0:
            raise UserError("renderer.filter_width must be positive")
        if not (len(self.radius) == 2 and RADII[0] <= self.radius[0] <= self.radius[1] <= RADII[1]):
            raise UserError(f"renderer.radius={self.radius}: give [nearest, farthest] within {RADII[0]} and {RADII[1]}")
        if not 0 <= self.polar <= 180:
            raise UserError(f"renderer.polar={self.polar}: an angle from straight above lies within 0 and 180")
        try:
            poses = [[float(number) for number in pose] for pose in self.poses]
        except (TypeError, ValueError):
            raise UserError(f"renderer.poses={self.poses}: write [[polar, azimuth, radius], …] in numbers") from None
        object.__setattr__(self, "poses", poses)  # 90 and 90.0 are the same plan
        if self.cameras == "fixed" and len(self.poses) != self.views:
            raise UserError(
                f"renderer.cameras=fixed takes renderer.views={len(self.poses)} from renderer.poses, not {self.views}"
            )
        for pose in self.poses:
            if not (len(pose) == 3 and 0 <= pose[0] <= 180 and abs(pose[1]) <= 360 and RADII[0] <= pose[2] <= RADII[1]):
                raise UserError(f"renderer.poses: {pose} is not [polar 0..180, azimuth ±360, radius {RADII}]")


def sample_cameras(recipe: RenderSettings, rng: np.random.Generator) -> Array:
    """The object's cameras `[views, 3, 4]`; `rng` decides where the recipe leaves it open."""
    nearest, farthest = recipe.radius
    match recipe.cameras:
        case "zero123":
            return sample_zero123(rng, recipe.views, (nearest, farthest))
        case "sphere":
            return sample_sphere(rng, recipe.views, (nearest, farthest))
        case "hemisphere":
            return sample_hemisphere(rng, recipe.views, (nearest, farthest))
        case "orbit":
            return orbit(recipe.views, math.radians(recipe.polar), (nearest + farthest) / 2)
    places = [
        spherical_to_cartesian(math.radians(polar), math.radians(azimuth), r) for polar, azimuth, r in recipe.poses
    ]
    return np.stack([look_at_origin(place) for place in places])


@dataclass(frozen=True)
class AreaLight:
    """The light that the original places anew for every object: watts, and metres in the normalised world."""

    power: float
    location: tuple[float, float, float]


def sample_area_light(rng: np.random.Generator) -> AreaLight:
    """Power and place as `randomize_lighting` of the original's `blender_script.py`."""
    power, x, y, z = rng.uniform([300, -1, -1, 0.5], [600, 1, 1, 1.5])
    return AreaLight(float(power), (float(x), float(y), float(z)))
