"""Define the settings of reconstruction."""

from dataclasses import dataclass
from enum import StrEnum

from conf.options import FieldError, UserError, option
from inference.config import (
    CUTOUT_HELP,
    DEFAULT_CHECKPOINT_HELP,
    DEVICE_HELP,
    FILL_HELP,
    PRECISION_HELP,
    Sampling,
    check_fill,
    require_range,
)
from inference.meshes.height import parse_height
from inference.reconstruction.sjc.settings import SjcOptions, require_field
from training.model.hardware.precision import Precision


@dataclass(frozen=True)
class ViewsSettings:
    """Settings of the reconstruction from sampled views."""

    elevations: list[float] = option([-30.0, 0.0, 30.0, 60.0], "degrees above the horizon of each ring of views")
    count: int = option(8, "views of a ring")
    guesses: int = option(2, "sets of views, each from its own noise, of which the most consistent is used")
    rounds: int = option(1, "rounds of rendering, partly noising, denoising and fitting again")
    strength: float = option(0.5, "share of the timesteps up to which a round adds noise; halved in each round")
    nodes: list[int] = option(
        [64, 128, 192],
        "grid nodes per axis of each level of the fit, from coarse to fine; at most twice the pixels of a view",
    )
    epochs: list[int] = option([12, 4, 2], "passes over all rays at each level")
    rate: float = option(0.1, "learning rate at the start of a level; it falls to a tenth")
    photograph_weight: float = option(4.0, "weight of the photograph, in weights of a drawn view")
    mask_weight: float = option(0.5, "weight of the silhouettes' error")
    smoothness: float | None = option(
        None, "weight of the variation of opacity between neighbouring nodes; null: 1, or 0.02 for an oracle's views"
    )
    hull_level: float = option(0.1, "lowest coverage of a point by all silhouettes that is fitted")
    tolerated: float = option(
        0.1, "least share of drawn views that the hull may contradict; more if it would miss the photograph"
    )

    def __post_init__(self) -> None:
        if not 1 <= len(self.elevations) <= 20 or not all(-89 <= degrees <= 89 for degrees in self.elevations):
            raise FieldError(self, "elevations", "give 1 to 20 angles between -89 and 89 degrees")
        if not self.nodes or len(self.nodes) != len(self.epochs):
            raise FieldError(self, "nodes", f"give as many levels as in epochs={self.epochs}")
        if self.nodes != sorted(self.nodes) or not all(8 <= nodes <= 400 for nodes in self.nodes):
            raise FieldError(self, "nodes", "must rise, between 8 and 400")
        if not all(1 <= epochs <= 1000 for epochs in self.epochs):
            raise FieldError(self, "epochs", "must be between 1 and 1000")
        require_field(self, "count", 3, 100)
        require_field(self, "guesses", 1, 16)
        require_field(self, "rounds", 0, 10)
        require_field(self, "strength", 0.02, 1)
        require_field(self, "rate", 1e-4, 1)
        require_field(self, "photograph_weight", 0.1, 1000)
        require_field(self, "mask_weight", 0, 100)
        if self.smoothness is not None:
            require_field(self, "smoothness", 0, 100)
        require_field(self, "hull_level", 0.01, 0.99)
        require_field(self, "tolerated", 0, 0.5)


class Method(StrEnum):
    """The reconstruction method."""

    views = "views"
    sjc = "sjc"


class GuideKind(StrEnum):
    """Source of the views of an oracle's object."""

    oracle = "oracle"
    model = "model"


class Texture(StrEnum):
    """Colouring of a mesh."""

    baked = "baked"
    vertex = "vertex"


class MeshFormat(StrEnum):
    """The format of the mesh's file."""

    glb = "glb"
    obj = "obj"
    ply = "ply"
    stl = "stl"


@dataclass(frozen=True)
class ReconstructConfig:
    """Options of `inference.reconstruct`."""

    image: str = option("", "picture of one object")
    prompt: str = option("", "in place of image: description of the object")
    oracle: str = option("", "in place of image and checkpoint: a mesh, or a folder of meshes, that the views show")
    guide: GuideKind = option(
        GuideKind.oracle,
        "with oracle: what draws the views: oracle, or model: the checkpoint, given the oracle's picture",
    )
    checkpoint: str | None = option(None, DEFAULT_CHECKPOINT_HELP)
    output: str = option("outputs/reconstruction", "folder of the mesh, the views, the turntable and the report")
    method: Method = option(Method.views, "views: fit drawn views; sjc: optimise by the model's score, as the paper")
    elevation: str = option("estimate", "of the input camera, degrees above the horizon, or estimate")
    cutout: str = option("auto", CUTOUT_HELP)
    fill: float | None = option(None, FILL_HELP)
    resolution: int | None = option(
        None, "side of the oracle's views, pixels; null: 192, or 64 for method=sjc, which renders as many in each step"
    )
    smoothing: float | None = option(
        None,
        "blur of the opacity before the surface is extracted, grid spacings; null: 1.5, or 0 for an oracle's views",
    )
    faces: int = option(40_000, "maximum number of faces of the mesh")
    texture: Texture = option(Texture.baked, "baked: a texture; vertex: vertex colours")
    texture_size: int = option(1024, "side of the texture, pixels")
    format: MeshFormat = option(MeshFormat.glb, "glb, obj, ply or stl")
    height: str = option("", "upright height, such as 12cm, for printing; empty: the longest side is 1")
    turntable: int = option(48, "frames of the film of the turning mesh")
    suffix: str = option(", a single object, centred, on a plain white background", "appended to the prompt")
    text_to_image: str = option(
        "stable-diffusion-v1-5/stable-diffusion-v1-5", "diffusers pipeline: a folder, or org/name on the hub"
    )
    text_steps: int | None = option(None, "denoising steps of that pipeline; null: its default")
    device: str = option("auto", DEVICE_HELP)
    precision: Precision = option(Precision.auto, PRECISION_HELP)
    compile: bool = option(False, "compile the U-Net: takes minutes, pays off for method=sjc on a GPU")
    sampling: Sampling = option(Sampling(), "settings of the sampler of the views")
    views: ViewsSettings = option(ViewsSettings(), "settings of method=views")
    sjc: SjcOptions = option(SjcOptions(), "settings of method=sjc")

    def __post_init__(self) -> None:
        given = [name for name in ("image", "prompt", "oracle") if getattr(self, name).strip()]
        if len(given) != 1:
            raise UserError(
                f"give one of image, prompt and oracle, not {' and '.join(given) or 'none'}: image=chair.png, "
                "prompt='a wooden toy robot' or oracle=asset.glb"
            )
        if self.elevation == "none":
            raise UserError("elevation=none: a fit needs an elevation; give degrees above the horizon, or estimate")
        check_fill(self.fill)
        if self.resolution is not None:
            require_range("resolution", self.resolution, 16, 1024)
        if self.smoothing is not None:
            require_range("smoothing", self.smoothing, 0, 10)
        require_range("faces", self.faces, 100, 2_000_000)
        require_range("texture_size", self.texture_size, 64, 8192)
        require_range("turntable", self.turntable, 4, 1000)
        if self.height:
            parse_height(self.height)
        if self.text_steps is not None:
            require_range("text_steps", self.text_steps, 1, 500)
