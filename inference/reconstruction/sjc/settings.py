"""Define the settings of score Jacobian chaining, and resolve those that depend on the canvas."""

from dataclasses import asdict, dataclass

from conf.options import FieldError, option

MIN_HEIGHTS = 0.2  # range of the heights of cameras, object sizes


def require_field(settings: object, name: str, lowest: float, highest: float) -> None:
    """Raise FieldError unless a field of a settings dataclass lies in a range."""
    number = getattr(settings, name)
    if not lowest <= number <= highest:
        raise FieldError(settings, name, f"must be between {lowest} and {highest}")


@dataclass(frozen=True)
class SjcSettings:
    """Settings of score Jacobian chaining; `SjcOptions` describes them.

    The defaults are those of the published command, for latents (run_zero123.py; Zero-1-to-3, section 3.3).
    """

    steps: int = 10_000
    nodes: int = 100
    half_side: float = 1.0
    rate: float = 0.05
    density_shift: float = -1.0
    density_scale: float = 1.0
    guidance: float = 100.0
    skip_noisiest: int = 30
    skip_cleanest: int = 10
    anneal: bool = False
    input_weight: float = 10_000.0
    near_weight: float = 10_000.0
    near_distance: float = 0.05
    smooth_weight: float = 10_000.0
    input_smooth_weight: float = 1_000.0
    mask_weight: float = 0.0
    emptiness_weight: float = 0.0
    emptiness_scale: float = 10.0
    emptiness_growth: float = 20.0
    min_radius: float = 1.8
    max_radius: float = 2.2
    min_height: float = -0.5
    max_height: float = 2.2

    def __post_init__(self) -> None:
        require_field(self, "steps", 1, 10**6)
        require_field(self, "nodes", 8, 400)
        require_field(self, "half_side", 0.5, 1.2)
        require_field(self, "rate", 1e-6, 10)
        require_field(self, "density_shift", -100, 100)
        require_field(self, "density_scale", 1e-3, 1e3)
        require_field(self, "guidance", 0, 1000)
        for name in ("skip_noisiest", "skip_cleanest"):
            require_field(self, name, 0, 400)
        for name in ("input", "near", "smooth", "input_smooth", "mask", "emptiness"):
            require_field(self, f"{name}_weight", 0, 1e9)
        require_field(self, "near_distance", 1e-4, 1)
        require_field(self, "emptiness_scale", 0, 1e6)
        require_field(self, "emptiness_growth", -1, 1e6)
        require_field(self, "min_radius", 1.2, 10)
        require_field(self, "max_radius", self.min_radius, 10)
        # A wide enough range of heights, in which random cameras are found.
        require_field(self, "min_height", -self.max_radius, self.max_radius - MIN_HEIGHTS)
        require_field(self, "max_height", max(self.min_height, -self.min_radius) + MIN_HEIGHTS, 10)


PUBLISHED = SjcSettings()
# Scores of pixels are smaller than those of latents with a guidance of 100, and so are the weights beside them.
PIXELS = SjcSettings(
    steps=400,
    nodes=48,
    half_side=0.6,
    rate=0.2,
    density_shift=-2.0,
    density_scale=10.0,
    guidance=3.0,
    anneal=True,
    input_weight=300.0,
    near_weight=50.0,
    smooth_weight=50.0,
    input_smooth_weight=5.0,
    mask_weight=1.0,
)


@dataclass(frozen=True)
class SjcOptions:
    """Options of `method=sjc`; null stands for a value that depends on what the guide's canvases show.

    For latents it is the published command's. For pixels it is ours, chosen for canvases of 64². White density on a
    white background is not visible in pixels, and would remain as fog: the opacity has a score of its own
    (`mask_weight`), which the paper has not. `anneal` leaves out the cleanest timesteps: scores are inversely
    proportional to σ, and Adamax divides by the largest gradient of some thousand steps, so that large scores slow down
    all others.
    """

    steps: int | None = option(None, "optimiser steps, one view each; null: 10,000 for latents, 400 for pixels")
    nodes: int | None = option(None, "grid nodes per axis; null: 100, or 48")
    half_side: float | None = option(None, "half the side of the grid's cube, object sizes; null: 1, or 0.6")
    rate: float | None = option(None, "learning rate of Adamax; null: 0.05, or 0.2")
    density_shift: float | None = option(None, "added to the raw density before softplus; null: -1, or -2")
    density_scale: float | None = option(
        None, "initial factor of the raw density, which is optimised too; null: 1, or 10"
    )
    guidance: float | None = option(None, "classifier-free guidance scale of the score; null: 100, or 3")
    skip_noisiest: int = option(30, "timesteps left out at the noisy end")
    skip_cleanest: int = option(10, "timesteps left out at the clean end")
    anneal: bool | None = option(
        None, "lower the range of timesteps during the optimisation, as threestudio; null: only for pixels"
    )
    input_weight: float | None = option(None, "weight of the input view's squared error; null: 10,000, or 300")
    near_weight: float | None = option(None, "weight of the difference to a view from nearby; null: 10,000, or 50")
    near_distance: float = option(0.05, "distance of the camera of that view")
    smooth_weight: float | None = option(
        None, "weight of the smoothness of depth, in the second half of the steps; null: 10,000, or 50"
    )
    input_smooth_weight: float | None = option(
        None, "weight of the smoothness of depth in the input view; null: 1,000, or 5"
    )
    mask_weight: float | None = option(
        None, "weight of the score of the opacity, towards the denoised view's silhouette; null: 0, or 1"
    )
    emptiness_weight: float = option(0.0, "weight of the emptiness loss")
    emptiness_scale: float = option(10.0, "scale of the weights in the emptiness loss")
    emptiness_growth: float = option(20.0, "growth of its weight until the last step, as a share; -1 lowers it to 0")
    min_radius: float = option(1.8, "nearest camera, object sizes")
    max_radius: float = option(2.2, "farthest camera, object sizes")
    min_height: float = option(-0.5, "lowest camera, object sizes above the object's centre")
    max_height: float = option(2.2, "highest camera")

    def __post_init__(self) -> None:
        try:
            self.resolved(pixels=False)
        except FieldError as error:
            raise FieldError(self, error.field, error.reason) from error

    def resolved(self, pixels: bool) -> SjcSettings:
        """Return the settings for canvases of pixels, or of latents."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return SjcSettings(**{**asdict(PIXELS if pixels else PUBLISHED), **given})
