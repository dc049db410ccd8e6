"""Sample novel views of the object in a picture, or of the object in each picture of a folder.

    python -m inference.sample image=chair.png orbit=24 sampling.guidance=2
    python -m inference.sample checkpoint=outputs/run/model image=chair.png 'poses=[[20,45,0],[0,180,0]]'
    python -m inference.sample checkpoint=105000.ckpt image=photographs orbit=24 output=outputs/orbits
    python -m inference.sample checkpoint=outputs/run/model image=chair.png grid=3x8 samples=4

A pose is relative to the picture's own camera: [Δpolar, Δazimuth, Δradius] in degrees, degrees and object sizes.
Δpolar > 0 lowers the camera, Δazimuth > 0 moves it counter-clockwise as seen from above, Δradius > 0 moves it back.
The background of a picture without alpha is removed, and the object is framed as in training.
Writes the views (000.png …), a contact sheet (views.png), an animation (views.mp4, views.gif) and poses.json into
`output`; for a folder of pictures, into a subfolder for each, beside inputs.png, a contact sheet of the prepared
pictures. A picture of a folder that cannot be used is named, the others are sampled, and the exit code is 1. Hidden
files are skipped. Repeat the command to continue an interrupted run: views that exist are not sampled again.
"""

from pathlib import Path

from conf.command import run
from inference.config import SampleConfig
from inference.poses import checked_elevation, parse_turns
from pipeline.output import locked


def main(config: SampleConfig) -> int:
    """Sample the views of a picture or of a folder of pictures; return the exit code."""
    turns = parse_turns(config.poses, config.orbit, config.grid, config.cameras, config.input_camera)
    config = checked_elevation(config)
    with locked(config.output):
        from inference.views.picture_views import sample_folder, sample_one

        sample = sample_folder if Path(config.image).is_dir() else sample_one
        return sample(Path(config.image), Path(config.output), turns, config)


def command() -> None:
    """Run the command line."""
    run(main, SampleConfig, "inference", "sample", help=__doc__)


if __name__ == "__main__":
    command()
