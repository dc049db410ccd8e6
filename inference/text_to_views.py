"""From words to a picture, and from there to the same object from elsewhere.

    python -m inference.text_to_views prompt='a wooden toy robot' checkpoint=105000.ckpt orbit=24
    python -m inference.text_to_views prompt='a red armchair' text_to_image=folder/of/a/pipeline \
        checkpoint=outputs/run/model grid=3x8 sampling.sampler=dpm_solver sampling.steps=20

`text_to_image` is any text-to-image pipeline of diffusers: a folder, or a name on the Hugging Face Hub. Its weights
are read from safetensors alone, and one that brings code of its own is refused.
Writes the picture (prompt.png) and all that inference.sample writes into `output`; given again, the same words keep
their picture, and only what is not there yet is drawn.
"""

import json
import os
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors import SafetensorError
from transformers.utils.logging import set_verbosity_error

from conf.command import run
from conf.options import UserError
from inference.config import TextToViewsConfig
from inference.novel_view import resolve_device
from inference.poses import Turn, parse_turns
from inference.sample import load, sample_image
from inference.view_folder import file_names, given_elevation, require_own_views, with_cameras_elevation
from pipeline.output import json_object, locked, not_own
from pipeline.storage import normalised
from training.model.untrusted_file import require_finite

NAMES = ("prompt.png", "prompt.json")
set_verbosity_error()  # transformers advises those who write pipelines, not those who draw with them


def main(config: TextToViewsConfig) -> int:
    turns = parse_turns(config.poses, config.orbit, config.grid, config.cameras, config.input_camera)
    config = with_cameras_elevation(config)
    given_elevation(config.elevation)
    with locked(config.output):
        return sample_all(Path(config.output), turns, config)


def sample_all(output: Path, turns: list[Turn], config: TextToViewsConfig) -> int:
    """Draw the picture of the words and its views; return the exit code."""
    require_own_views(output, file_names(len(turns), config.samples))
    require_own_picture(output)
    novel_view = load(config)
    sample_image(write_picture(output, config), output, turns, config, novel_view)
    print(f"{len(turns) * config.samples} views of “{config.prompt}”: {output / 'views.png'}")
    return 0


def write_picture(output: Path, config: TextToViewsConfig) -> Path:
    """Draw the picture of the words, unless it is there. `prompt.json` says what it shows, and is written first."""
    picture, about = (output / name for name in NAMES)
    source = config.text_to_image
    asked = {
        "prompt": config.prompt + config.suffix,
        "text_to_image": normalised(source) if os.path.isdir(source) else source,
        "steps": config.text_steps,
        "seed": config.sampling.seed,
    }
    if picture.exists() and about.exists() and about.read_text() == json.dumps(asked) + "\n":
        return picture
    drawn = picture_of(config)
    output.mkdir(parents=True, exist_ok=True)
    picture.unlink(missing_ok=True)
    for path, write in ((about, lambda aside: aside.write_text(json.dumps(asked) + "\n")), (picture, drawn.save)):
        aside = path.with_name(f".part-{path.name}")
        write(aside)
        aside.replace(path)
    return picture


def require_own_picture(output: Path) -> None:
    """Refuse a folder with a prompt.png or prompt.json that an earlier run of this command did not write."""
    there = [name for name in NAMES if os.path.lexists(output / name)]
    if not there:
        return
    contents = (output / "prompt.json").read_bytes() if "prompt.json" in there else b""
    if not {"prompt", "text_to_image", "steps", "seed"} <= json_object(contents).keys():
        raise not_own(output, there)


def picture_of(config: TextToViewsConfig) -> Image.Image:
    """What the pipeline makes of the words.

    Raises:
        UserError: there is no such pipeline, it makes no picture of words, or it withholds the one it made.
    """
    pipeline = pipeline_of(config.text_to_image, resolve_device(config.device))
    steps = {} if config.text_steps is None else {"num_inference_steps": config.text_steps}
    noise = torch.Generator().manual_seed(config.sampling.seed)
    try:
        made = pipeline(config.prompt + config.suffix, generator=noise, **steps)
    except TypeError as error:
        raise UserError(f"text_to_image={config.text_to_image} makes no picture of words alone: {error}") from error
    if any(getattr(made, "nsfw_content_detected", None) or []):
        raise UserError("the pipeline's safety checker withholds its picture; try other words or another sampling.seed")
    return made.images[0]


def pipeline_of(source: str, device: str) -> Any:
    """A pipeline of diffusers from a folder or by its name on the hub; nothing in it is executed."""
    dtype = torch.float32 if device == "cpu" else torch.float16
    try:
        folder = source if os.path.isdir(source) else DiffusionPipeline.download(source, use_safetensors=True)
        code = next(Path(folder).rglob("*.py"), None)
        if code is not None:
            raise UserError(f"text_to_image={source} brings code of its own ({code.name}), which is not run")
        pipeline = DiffusionPipeline.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False
        )
    except (OSError, ValueError, AttributeError, KeyError, SafetensorError) as error:
        raise UserError(
            f"text_to_image={source} cannot be read as a pipeline of diffusers: {str(error).splitlines()[0]}"
        ) from error
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            require_finite(part, f"text_to_image={source}: in {name} the", "use another pipeline")
    return pipeline.to(device)


if __name__ == "__main__":
    run(main, TextToViewsConfig, "inference", "text_to_views", help=__doc__)
