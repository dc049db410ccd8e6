"""What a set of views is made with: everything that decides the pixels, beside the asset and the seed."""

from dataclasses import dataclass

import numpy as np

from conf.options import UserError, option

RANGES = {"views": (1, 999), "resolution": (8, 4096), "samples": (1, 65536)}
CHOICES = {
    "pixel_filter": ("BOX", "GAUSSIAN", "BLACKMAN_HARRIS"),
    "view_transform": ("Filmic", "Standard", "AgX"),
}


@dataclass(frozen=True)
class Recipe:
    """A rendering recipe. The defaults are `fast`; `zero123` is the original's, see conf/pipeline/renderer."""

    views: int = option(12, "pictures per object")
    resolution: int = option(256, "side of a picture, pixels")
    samples: int = option(16, "Cycles samples per pixel")
    denoise: bool = option(False, "OpenImageDenoise after sampling (as the original; lowers fidelity)")
    pixel_filter: str = option("BOX", "Cycles pixel filter: BOX, GAUSSIAN or BLACKMAN_HARRIS")
    filter_width: float = option(1.0, "width of the pixel filter, pixels (the original's 0.01 aliases)")
    view_transform: str = option("Filmic", "tone mapping: Filmic (as the released data), Standard or AgX")

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise UserError(f"renderer.{name}={getattr(self, name)} is outside {low}..{high}")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise UserError(f"renderer.{name}={getattr(self, name)} is none of {', '.join(choices)}")
        if not self.filter_width > 0:
            raise UserError("renderer.filter_width must be positive")


@dataclass(frozen=True)
class AreaLight:
    """The light that the original places anew for every object: watts, and metres in the normalised world."""

    power: float
    location: tuple[float, float, float]


def sample_area_light(rng: np.random.Generator) -> AreaLight:
    """Power and place as `randomize_lighting` of the original's `blender_script.py`."""
    power, x, y, z = rng.uniform([300, -1, -1, 0.5], [600, 1, 1, 1.5])
    return AreaLight(float(power), (float(x), float(y), float(z)))
