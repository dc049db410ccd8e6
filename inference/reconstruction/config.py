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


@dataclass(frozen=True)
class ViewsSettings:
    """Settings of the reconstruction from drawn views."""

    elevations: list[float] = option([-20.0, 20.0, 60.0], "degrees above the horizon of each ring of views")
    count: int = option(10, "views of a ring")
    guesses: int = option(3, "sets of views, each from its own noise, of which the most consistent is used")
    rounds: int = option(2, "rounds of rendering, partly noising, denoising and fitting again")
    strength: float = option(0.5, "share of the timesteps up to which a round adds noise; halved in each round")
    nodes: list[int] = option([64, 128, 192], "grid nodes per axis of each level of the fit, from coarse to fine")
    epochs: list[int] = option([8, 4, 2], "passes over all rays at each level")
    rate: float = option(0.1, "learning rate at the start of a level; it falls to a tenth")
    photograph_weight: float = option(4.0, "weight of the photograph, in weights of a drawn view")
    mask_weight: float = option(0.5, "weight of the silhouettes' error")
    smoothness: float = option(0.02, "weight of the variation of opacity between neighbouring nodes")
    hull_level: float = option(0.1, "lowest coverage of a point by all silhouettes that is fitted")
    tolerated: float = option(0.1, "share of the drawn views that may contradict the silhouettes of the others")

    def __post_init__(self) -> None:
        if not 1 <= len(self.elevations) <= 20 or not all(-89 <= degrees <= 89 for degrees in self.elevations):
            raise FieldError(self, "elevations", "give 1 to 20 angles between -89 and 89 degrees")
        if not self.nodes or len(self.nodes) != len(self.epochs):
            raise FieldError(self, "nodes", f"give as many levels as in epochs={self.epochs}")
        if self.nodes != sorted(self.nodes) or not all(8 <= nodes <= 400 for nodes in self.nodes):
            raise FieldError(self, "nodes", "must rise, between 8 and 400")
        if not all(1 <= epochs <= 1000 for epochs in self.epochs):
            raise FieldError(self, "epochs", "must be between 1 and 1000")
        _require(self, "count", 3, 100)
        _require(self, "guesses", 1, 16)
        _require(self, "rounds", 0, 10)
        _require(self, "strength", 0.02, 1)
        _require(self, "rate", 1e-4, 1)
        _require(self, "photograph_weight", 0.1, 1000)
        _require(self, "mask_weight", 0, 100)
        _require(self, "smoothness", 0, 100)
        _require(self, "hull_level", 0.01, 0.99)
        _require(self, "tolerated", 0, 0.5)
