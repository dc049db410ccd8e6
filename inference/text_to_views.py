"""Generate a picture from a prompt, and sample novel views of its object.

    python -m inference.text_to_views prompt='a wooden toy robot' checkpoint=105000.ckpt orbit=24
    python -m inference.text_to_views prompt='a red armchair' text_to_image=folder/of/a/pipeline \
        checkpoint=outputs/run/model grid=3x8 sampling.sampler=dpm_solver sampling.steps=20

`text_to_image` is a text-to-image pipeline of diffusers: a folder, or org/name on the Hugging Face hub. Its weights are
read from safetensors only, and a pipeline with its own code is refused.
Writes the picture (prompt.png, prompt.json) and the files of inference.sample into `output`. Repeat the command to
continue an interrupted run: a picture and views that exist are not generated again.
"""

from pathlib import Path

from conf.command import run
from inference.config import TextToViewsConfig
from inference.poses import checked_elevation, parse_turns
from pipeline.output import locked


def main(config: TextToViewsConfig) -> int:
    """Generate a picture and sample its views; return the exit code."""
    turns = parse_turns(config.poses, config.orbit, config.grid, config.cameras, config.input_camera)
    config = checked_elevation(config)
    with locked(config.output):
        from inference.views.text_to_image import sample_prompt

        return sample_prompt(Path(config.output), turns, config)


def command() -> None:
    """Run the command line."""
    run(main, TextToViewsConfig, "inference", "text_to_views", help=__doc__)


if __name__ == "__main__":
    command()
