"""Generate a picture from a prompt with a text-to-image pipeline of diffusers, and sample novel views of its object."""

import io
import json
import os
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from PIL import Image
from transformers.utils.logging import set_verbosity_error

from conf.options import UserError, first_line
from inference.config import TextToViewsConfig
from inference.poses import Turn
from inference.views.picture_views import load, sample_image
from inference.views.view_folder import file_names, require_own_views
from pipeline.output import json_object, not_own
from pipeline.storage import normalised, write_atomically
from training.model.checkpoints.untrusted_file import require_finite
from training.model.hardware.device import resolve_device

NAMES = ("prompt.png", "prompt.json")
set_verbosity_error()  # the advice of transformers is for authors of pipelines


def sample_prompt(output: Path, turns: list[Turn], config: TextToViewsConfig) -> int:
    """Generate a picture from `config.prompt` and sample its views into `output`; return the exit code."""
    require_own_views(output, file_names(len(turns), config.samples))
    require_own_picture(output)
    novel_view = load(config)
    sample_image(write_picture(output, config), output, turns, config, novel_view)
    print(f"{len(turns) * config.samples} views of “{config.prompt}”: {output / 'views.png'}")
    return 0


def write_picture(output: Path, config: TextToViewsConfig) -> Path:
    """Write prompt.json and prompt.png into `output`, unless the same picture exists; return the path of prompt.png."""
    picture, about = (output / name for name in NAMES)
    source = config.text_to_image
    settings = {
        "prompt": config.prompt + config.suffix,
        "text_to_image": normalised(source) if os.path.isdir(source) else source,
        "steps": config.text_steps,
        "seed": config.sampling.seed,
    }
    if picture.exists() and about.exists() and about.read_text() == json.dumps(settings) + "\n":
        return picture
    generated = generate_picture(config)
    output.mkdir(parents=True, exist_ok=True)
    picture.unlink(missing_ok=True)
    contents = io.BytesIO()
    generated.save(contents, format="PNG")
    write_atomically(str(about), f"{json.dumps(settings)}\n".encode())
    write_atomically(str(picture), contents.getvalue())
    return picture


def require_own_picture(output: Path) -> None:
    """Raise `UserError` if a prompt.png or prompt.json exists that this command did not write."""
    existing = [name for name in NAMES if os.path.lexists(output / name)]
    if not existing:
        return
    contents = (output / "prompt.json").read_bytes() if "prompt.json" in existing else b""
    if not {"prompt", "text_to_image", "steps", "seed"} <= json_object(contents).keys():
        raise not_own(output, existing)


def generate_picture(config: TextToViewsConfig) -> Image.Image:
    """Return the pipeline's picture for the prompt.

    Raises:
        UserError: The pipeline cannot be loaded, needs more than a prompt, or its safety checker rejects the picture.
    """
    pipeline = load_pipeline(config.text_to_image, resolve_device(config.device))
    steps = {} if config.text_steps is None else {"num_inference_steps": config.text_steps}
    noise = torch.Generator().manual_seed(config.sampling.seed)
    try:
        result = pipeline(config.prompt + config.suffix, generator=noise, **steps)
    except TypeError as error:
        raise UserError(
            f"text_to_image={config.text_to_image}: does not generate from a prompt alone ({error}); use another"
        ) from error
    if any(getattr(result, "nsfw_content_detected", None) or []):
        raise UserError(
            "prompt: the pipeline's safety checker rejects the picture; try another prompt or sampling.seed"
        )
    return result.images[0]


def load_pipeline(source: str, device: torch.device) -> Any:
    """Load a diffusers pipeline from a folder or the hub, without executing code in it.

    Raises:
        UserError: It has its own code, cannot be read, or its weights are not finite.
    """
    dtype = torch.float32 if device.type == "cpu" else torch.float16
    try:
        folder = source if os.path.isdir(source) else DiffusionPipeline.download(source, use_safetensors=True)
        code = next(Path(folder).rglob("*.py"), None)
        if code is not None:
            raise UserError(
                f"text_to_image={source}: has its own code ({code.name}), which is not executed; use another"
            )
        pipeline = DiffusionPipeline.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False
        )
    except UserError:
        raise
    except Exception as error:  # diffusers and transformers raise many types for damaged pipelines
        raise UserError(
            f"text_to_image={source}: is not a readable diffusers pipeline ({first_line(error)}); use another"
        ) from error
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            require_finite(part, f"text_to_image={source}: in {name} the", "use another pipeline")
    return pipeline.to(device)
