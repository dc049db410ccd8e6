"""Sample the views of one picture, or of the pictures in a folder, into folders."""

import hashlib
import io
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tqdm import tqdm

from conf.options import UserError
from inference.config import SampleConfig, ViewsConfig
from inference.novel_view import NovelView
from inference.poses import Turn, input_position
from inference.preprocess.image_folder import INPUTS, pictures_in, view_folders
from inference.preprocess.photograph import PictureError, read_photograph
from inference.views.media import MIN_SIDE_PX, contact_sheet
from inference.views.view_folder import (
    file_names,
    is_written,
    own_files,
    require_own_views,
    sample_views,
    write_views,
)
from pipeline.output import is_marked, mark, names_in, require_apart, require_own_file
from pipeline.storage import write_atomically

COMMAND = "inference.sample"
MAX_INPUTS = 400  # pictures on inputs.png


def sample_one(image: Path, output: Path, turns: list[Turn], config: SampleConfig) -> int:
    """Sample the views of one picture; return the exit code."""
    require_own_views(output, file_names(len(turns), config.samples))
    if image.name in (own := own_files(output)) or not own:
        require_apart(str(output), str(image.parent), "image", nested=False)
    read_photograph(image)  # fails before the checkpoint is loaded, which takes longer
    existed = not sample_image(image, output, turns, config, load(config))
    print(f"{len(turns) * config.samples} views of {image}{existed * ', which existed'}: {output / 'views.png'}")
    return 0


def sample_folder(folder: Path, output: Path, turns: list[Turn], config: SampleConfig) -> int:
    """Sample the views of each picture in a folder; return the exit code, 1 if a picture has no views."""
    files, unsupported = pictures_in(folder)
    pictures = view_folders(files, output)
    for views in (output, *(output / name for name in pictures)):
        require_apart(str(views), str(folder), "image", nested=False)
    require_own(output, pictures, file_names(len(turns), config.samples))
    return sample_all(pictures, unsupported, output, turns, config, load(config))


def load(config: ViewsConfig) -> NovelView:
    """Load the checkpoint with the options of a command."""
    return NovelView.load(config.checkpoint, config.device, config.precision, config.compile)


def sample_all(
    pictures: dict[str, Path],
    unsupported: list[Path],
    output: Path,
    turns: list[Turn],
    config: SampleConfig,
    model: NovelView,
) -> int:
    """Sample the views of each picture, write inputs.png, and print each picture without views and the reason.

    Args:
        pictures: The pictures by the name of the folder of their views.
        unsupported: Pictures of the input folder in unsupported formats.
        output: Contains the folders of views.
        turns: The turn of each pose.
        config: Options of the command.
        model: The checkpoint.

    Returns:
        The exit code: 1 if a picture has no views, else 0.
    """
    failures = [f"{path}: {path.suffix} files are not supported; save it as PNG or JPEG" for path in unsupported]
    sampled, existing, total = list[str](), 0, len(pictures) + len(unsupported)
    for name, path in tqdm(pictures.items(), desc="pictures", unit=" pictures"):
        try:
            existing += not sample_image(path, output / name, turns, config, model)
            sampled.append(name)
        except PictureError as error:
            failures.append(f"{path}: {error.reason}")
        except UserError as error:
            failures.append(f"{path}: {error}")
    if failures:
        print(f"{len(failures)} of {total} pictures have no views:", *failures, sep="\n  ", file=sys.stderr)
    if sampled:
        write_inputs(output, sampled[:MAX_INPUTS])
        print(f"inputs of the model: {output / INPUTS}")
    if existing:
        print(f"views of {existing} pictures existed")
    print(f"views of {total - len(failures)} pictures: {output}/*/views.png")
    return 1 if failures else 0


def require_own(output: Path, pictures: dict[str, Path], names: set[str]) -> None:
    """Check that the views of a folder of pictures replace no files that this command did not write.

    Earlier versions wrote inputs.png without a mark: it is accepted beside a folder with a poses.json.

    Raises:
        UserError: A file exists that this command did not write.
    """
    for name in pictures:
        names_in(str(output / name))  # refuses a file of that name
        require_own_views(output / name, names)
    if not any(own_files(output / name) for name in pictures):
        require_own_file(str(output / INPUTS), is_marked(COMMAND), "output")


def write_inputs(output: Path, names: list[str]) -> None:
    """Write `output`/inputs.png, a contact sheet of the prepared pictures in the folders `names`."""
    inputs = list[Image.Image]()
    for name in names:
        with Image.open(output / name / "input.png") as image:
            inputs.append(image.copy())  # read now, so that few files are open
    # Letters that fit below a picture. Names are cut at their start, since their ends differ more.
    max_letters = max(MIN_SIDE_PX, inputs[0].width) // 7
    metadata = PngInfo()
    metadata.add_text("Software", mark(COMMAND))
    contents = io.BytesIO()
    contact_sheet(inputs, [name[-max_letters:] for name in names]).save(contents, format="PNG", pnginfo=metadata)
    write_atomically(str(output / INPUTS), contents.getvalue())


def view_settings(config: ViewsConfig) -> dict[str, Any]:
    """Return the options that poses.json records: those on which the views may depend."""
    return {name: value for name, value in asdict(config).items() if name not in ("image", "output", "device")}


def sample_image(image: Path, folder: Path, turns: list[Turn], config: ViewsConfig, novel_view: NovelView) -> bool:
    """Sample the views of one picture, unless the folder already holds them; return whether they were sampled."""
    try:
        with image.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise PictureError(f"cannot be read: {(error.strerror or str(error)).lower()}", image) from error
    weights, position = novel_view.fingerprint, input_position(config.cameras, config.input_camera)
    about = {
        "image": str(image),
        "sha256": digest,
        "weights": weights,
        "settings": view_settings(config),
        "poses": turns,
        **({"input_position": asdict(position)} if config.cameras else {}),
    }
    if is_written(folder, about):
        return False
    write_views(folder, sample_views(read_photograph(image), turns, config, novel_view), turns, about, position)
    return True
