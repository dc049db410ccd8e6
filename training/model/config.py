"""Define the options of the model; imports no torch, so that commands start quickly."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from conf.options import option


class PoseVector(StrEnum):
    """Definitions of the pose vector `[4]`."""

    zero123 = "zero123"  # [Δθ, sin Δφ, cos Δφ, Δr]
    stable_zero123 = "stable_zero123"  # [Δθ, sin Δφ, cos Δφ, radians(90 - elevation of the condition view)]


class Background(StrEnum):
    """Methods of compositing an image with transparency on white."""

    composite = "composite"  # rgb·α + 1-α
    original = "original"  # white only where α = 0, straight colours elsewhere, as in the dataset class of the original


class Prediction(StrEnum):
    """Prediction types of the U-Net, under the names of diffusers."""

    epsilon = "epsilon"  # the noise: the paper, and every released checkpoint
    v_prediction = "v_prediction"  # √ᾱ·ε - √(1-ᾱ)·x₀ (Salimans & Ho 2022, arXiv 2202.00512)
    sample = "sample"  # the clean latent, for a U-Net narrower than its latents (arXiv 2511.13720)


class Conditioning(StrEnum):
    """Parts of the conditioning (section 3.2 of the paper)."""

    pose = "pose"  # relative pose, in the context token
    embedding = "embedding"  # image embedding, in the context token
    concat = "concat"  # condition latent, concatenated with the noisy one


@dataclass(frozen=True)
class UNetShape:
    """Shape of the U-Net; the defaults are those of Stable Diffusion v1."""

    channels: list[int] = option([320, 640, 1280, 1280], "width of each level, finest first")
    attention: list[bool] = option([True, True, True, False], "whether a level has self- and cross-attention")
    layers: int = option(2, "residual blocks per level")
    heads: int = option(8, "attention heads")
    groups: int = option(32, "groups of the group normalisation; must divide every width")
    modulation: bool = option(False, "the context token also scales and shifts the features of every residual block")


@dataclass(frozen=True)
class ImageEncoderShape:
    """Shape of a CLIP vision model; the defaults are those of ViT-L/14."""

    image_size: int = option(224, "side of the input in pixels")
    patch_size: int = option(14, "side of a patch in pixels")
    width: int = option(1024, "width of the layers")
    layers: int = option(24, "layers")
    heads: int = option(16, "attention heads")
    projection: int = option(768, "length of the embedding, which is that of the U-Net's context")
    init_scale: float = option(1.0, "scale of the random weights; a larger one separates embeddings of images better")


@dataclass(frozen=True)
class TimestepDensity:
    """Density of the timesteps that training draws."""

    logit_mean: float | None = option(
        None, "mean of a normal density of log(t / (T - t)); above 0: more often much noise; null: uniform timesteps"
    )
    logit_std: float = option(1.0, "its standard deviation")


UNIFORM = TimestepDensity()


@dataclass(frozen=True)
class Architecture:
    """Architecture of a model, and the checkpoints it starts from."""

    resolution: int = option(256, "side of the images in pixels")
    patch: int | None = option(
        None, "side in pixels of the patches to denoise; null: latents of Stable Diffusion's autoencoder"
    )
    scaling_factor: float = option(1.0, "factor of patches before noise is added")
    prediction: Prediction = option(Prediction.epsilon, "prediction type of the U-Net: epsilon, v_prediction, sample")
    beta_end: float = option(
        0.012,
        "β of the last timestep; 0.012 leaves √ᾱ = 0.068 of the image there, 0.02 leaves 0.015, 0.03 leaves 0.002",
    )
    unet: UNetShape = option(UNetShape(), "shape of the U-Net")
    encoder: ImageEncoderShape = option(
        ImageEncoderShape(), "shape of the image encoder, where image_encoder and pretrained are null"
    )
    image_encoder: str | None = option(None, "folder, or org/name on the Hugging Face hub, of a CLIP vision model")
    pretrained: str | None = option(None, "checkpoint to start from, of any layout that training.convert reads")
    train_image_encoder: bool = option(False, "train the image encoder too, instead of keeping it frozen as the paper")
    without: list[Conditioning] = option([], f"ablation: parts that the model ignores, of {', '.join(Conditioning)}")

    def pinned(self, recorded: Mapping[str, Any] | None = None) -> "Architecture":
        """Return the settings with sources on the Hugging Face hub resolved to commits.

        Args:
            recorded: Settings that a run recorded at its start, whose commits are kept.
        """
        from training.model.checkpoints.hub import pinned  # huggingface_hub takes long to import

        recorded = recorded or {}
        return replace(
            self,
            pretrained=self.pretrained and pinned(self.pretrained, recorded.get("pretrained")),
            image_encoder=self.image_encoder and pinned(self.image_encoder, recorded.get("image_encoder")),
        )
