"""Define the settings of reconstruction."""

from dataclasses import dataclass

from conf.options import FieldError, option


def _require(settings: object, name: str, lowest: float, highest: float) -> None:
    number = getattr(settings, name)
    if not lowest <= number <= highest:
        raise FieldError(settings, name, f"must be between {lowest} and {highest}")


@dataclass(frozen=True)
class SjcSettings:
    """Settings of score Jacobian chaining; the defaults are the published command's (run_zero123.py, section 3.3)."""

    steps: int = option(10_000, "optimiser steps, one view each")
    nodes: int = option(100, "grid nodes per axis")
    half_side: float = option(1.0, "half the side of the grid's cube, object sizes")
    rate: float = option(0.05, "learning rate of Adamax")
    density_shift: float = option(-1.0, "added to the raw density before softplus")
    guidance: float = option(100.0, "classifier-free guidance scale of the score")
    skip_noisiest: int = option(30, "timesteps left out at the noisy end")
    skip_cleanest: int = option(10, "timesteps left out at the clean end")
    anneal: bool = option(False, "lower the range of timesteps during the optimisation, as threestudio")
    input_weight: float = option(10_000.0, "weight of the input view's squared error")
    near_weight: float = option(10_000.0, "weight of the difference to a view from nearby")
    near_distance: float = option(0.05, "distance of the camera of that view")
    smooth_weight: float = option(10_000.0, "weight of the smoothness of depth, in the second half of the steps")
    input_smooth_weight: float = option(1_000.0, "weight of the smoothness of depth in the input view")
    emptiness_weight: float = option(0.0, "weight of the emptiness loss")
    emptiness_scale: float = option(10.0, "scale of the weights in the emptiness loss")
    emptiness_growth: float = option(20.0, "growth of its weight until the last step")
    min_radius: float = option(1.8, "nearest camera, object sizes")
    max_radius: float = option(2.2, "farthest camera, object sizes")
    min_height: float = option(-0.5, "lowest camera, object sizes above the object's centre")
    max_height: float = option(2.2, "highest camera")

    def __post_init__(self) -> None:
        _require(self, "steps", 1, 10**6)
        _require(self, "nodes", 8, 400)
        _require(self, "half_side", 0.5, 1.2)
        _require(self, "guidance", 0, 1000)
        _require(self, "min_radius", 1.2, 10)
        _require(self, "max_radius", self.min_radius, 10)
        _require(self, "max_height", self.min_height, 10)
        _require(self, "min_height", -self.max_radius, self.max_radius)
