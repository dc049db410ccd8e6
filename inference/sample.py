"""Draw new views of the object in one picture.

    python -m inference.sample checkpoint=outputs/run/model image=chair.png 'poses=[[20,45,0],[0,180,0]]'

A pose is a turn from the picture's own camera: [Δpolar, Δazimuth, Δradius] in degrees, degrees and object sizes.
Δpolar > 0 lowers the camera, Δazimuth > 0 moves it counter-clockwise as seen from above, Δradius > 0 moves it back.
Writes 000.png …, all of them beside the input in views.png, and poses.json into `output`.
"""

import json
import math
import shutil
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from conf.command import run
from conf.options import UserError
from inference.config import SampleConfig
from inference.novel_view import NovelView
from inference.photograph import read_photograph

MOST_POSES = 1000


def main(config: SampleConfig) -> None:
    poses = _checked(config.poses)
    photograph = read_photograph(config.image)
    novel_view = NovelView.load(config.checkpoint, config.device)
    views = novel_view(photograph, poses, config.sampling)
    output = Path(config.output)
    aside = output.with_name(f".{output.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for i, view in enumerate(views):
        view.save(aside / f"{i:03d}.png")
    contact_sheet(photograph, views, poses).save(aside / "views.png")
    (aside / "poses.json").write_text(json.dumps({"image": config.image, "poses": poses}, indent=1))
    output.mkdir(parents=True, exist_ok=True)
    for stale in output.glob("[0-9][0-9][0-9].png"):
        stale.unlink()
    for file in aside.iterdir():
        file.replace(output / file.name)
    aside.rmdir()
    print(f"{len(views)} views of {config.image}: {output / 'views.png'}")


def contact_sheet(photograph: Image.Image, views: list[Image.Image], poses: list[list[float]]) -> Image.Image:
    """The input and every view with its pose written below, eight in a row."""
    side, label, columns = max(128, views[0].width), 18, min(8, len(views) + 1)
    rows = math.ceil((len(views) + 1) / columns)
    sheet = Image.new("RGB", (columns * (side + 4), rows * (side + label)), "white")
    draw = ImageDraw.Draw(sheet)
    names = ["input", *(f"{polar:+g}° {azimuth:+g}° {radius:+g}" for polar, azimuth, radius in poses)]
    for i, (picture, name) in enumerate(zip([photograph, *views], names, strict=True)):
        x, y = i % columns * (side + 4), i // columns * (side + label)
        sheet.paste(picture.resize((side, side), Image.Resampling.BICUBIC), (x, y))
        draw.text((x + 4, y + side + 2), name, fill="#555")
    return sheet


def _checked(poses: list[Any]) -> list[list[float]]:
    if not 1 <= len(poses) <= MOST_POSES:
        raise UserError(f"poses: give 1 to {MOST_POSES}, not {len(poses)}")
    for pose in poses:
        numbers = isinstance(pose, list) and len(pose) == 3 and all(isinstance(x, (int, float)) for x in pose)
        if not numbers or not all(math.isfinite(x) for x in pose):
            raise UserError(f"poses: {pose} is no [Δpolar, Δazimuth, Δradius] in degrees, degrees and object sizes")
    return poses


if __name__ == "__main__":
    run(main, SampleConfig, "inference", "sample", help=__doc__)
