"""Read the pictures that another program predicted."""

from pathlib import Path

from conf.options import UserError
from inference.evaluation.methods.method import Method, MissingPicture, Pixels, resized
from inference.evaluation.methods.predictions import prediction_path, read_picture
from inference.evaluation.pairs import Pair
from inference.evaluation.scored_object import ScoredObject

LAYOUT = "<uid>/<target>.png, such as chair/007.png, or <uid>/<input>-<target>.png, such as chair/000-007.png"


def external_method(name: str, folder: str, set_name: str, resolution: int, resize: bool) -> Method:
    """Return the method whose pictures lie in a folder, or in its subfolder named after the set.

    Args:
        name: Name of the method.
        folder: The folder; its pictures are `<uid>/<target>.png` or `<uid>/<input>-<target>.png`.
        set_name: Name of the set.
        resolution: Side of the scored pictures, pixels.
        resize: Resize pictures of another size; without it they are missing.

    Raises:
        UserError: The folder does not exist, or is empty.
    """
    root = Path(folder)
    if not root.is_dir() or not any(root.iterdir()):
        raise UserError(f"predictions={folder}: no folder with pictures; give one with {LAYOUT}")
    own = set_folder(folder, set_name)

    def pictures(one: ScoredObject, pair: Pair) -> list[Pixels]:
        path = prediction_path(own, one.uid, pair)
        if not path.exists():
            path = own / one.uid / f"{pair.target:03d}.png"
        return [read_external(path, resolution, resize)]

    return Method(name, name, pictures)


def set_folder(folder: str, set_name: str) -> Path:
    """Return the subfolder of a folder of pictures that has the name of the set, or the folder itself."""
    root = Path(folder)
    return root / set_name if (root / set_name).is_dir() else root


def read_external(path: Path, resolution: int, resize: bool) -> Pixels:
    """Return a picture at `[R, R, 3]`.

    Raises:
        MissingPicture: It does not exist or is damaged, or it has another size and is not to be resized.
    """
    picture = read_picture(path)
    if (side := len(picture)) != resolution and not resize:
        raise MissingPicture(f"{path} has {side}² pixels, not {resolution}²; give resize=true to resize it")
    return resized(picture, resolution)
