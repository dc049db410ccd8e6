"""Each picture of a folder has its own folder of views, whose name stays when other pictures are added."""

import json

import pytest
from PIL import Image

from conf.options import UserError
from inference.preprocess.image_folder import pictures_in, view_folders


def folders(files, output) -> dict[str, str]:
    """Return the name of the folder of each file."""
    return {path.name: name for name, path in view_folders([output / "in" / file for file in files], output).items()}


def write_records(output, given: dict[str, str]) -> None:
    """Write the records of an earlier run."""
    for file, name in given.items():
        (output / name).mkdir(parents=True, exist_ok=True)
        (output / name / "poses.json").write_text(json.dumps({"image": f"elsewhere/{file}"}))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["chair.png", "table.jpg"], ["chair", "table"]),
        (["chair.jpg", "chair.png", "chair.png.jpg"], ["chair.jpg", "chair.png", "chair.png.jpg"]),
        (["chair.png", "chair.png.jpg"], ["chair", "chair.png.jpg"]),
        (["a.png", "a.png.png", "a.png.png.png"], ["a", "a.png.png", "a.png.png.png"]),
        (["x.tar.png", "x.png"], ["x.tar", "x"]),
        (["inputs.png", "inputs.jpg", "inputs.png.webp"], ["inputs.png-views", "inputs.jpg", "inputs.png.webp"]),
    ],
)
def test_names_are_stems_where_those_are_distinct(tmp_path, files, expected):
    assert folders(files, tmp_path) == dict(zip(files, expected, strict=True))


def test_a_picture_keeps_its_folder_when_others_are_added_or_removed(tmp_path):
    write_records(tmp_path, folders(["chair.png"], tmp_path))
    both = folders(["chair.jpg", "chair.png"], tmp_path)
    assert both == {"chair.png": "chair", "chair.jpg": "chair.jpg"}
    write_records(tmp_path, both)
    assert folders(["chair.jpg"], tmp_path) == {"chair.jpg": "chair.jpg"}
    three = folders(["chair.jpg", "chair.png", "chair.webp"], tmp_path)
    assert three == both | {"chair.webp": "chair.webp"}


def test_names_are_distinct_for_any_existing_output(tmp_path):
    """This includes outputs where an earlier version gave one folder to two pictures, and damaged records."""
    write_records(tmp_path, {"chair.png.jpg": "chair.png", "chair.jpg": "chair.jpg"})
    (tmp_path / "chair").mkdir()
    for record in ("", "[]", "{}", '{"image": 3}'):
        (tmp_path / "chair/poses.json").write_text(record)
        assert len(set(folders(["chair.png", "chair.jpg", "chair.png.jpg"], tmp_path).values())) == 3


def test_hidden_files_are_skipped_and_unsupported_formats_listed(tmp_path):
    for name in ("._x.png", ".hidden.jpg", "x.PNG", "y.heic", "z.avif", "q.jfif", "logo.svg", "raw.CR2", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing.png")
    pictures, not_read = pictures_in(tmp_path)
    assert [path.name for path in pictures] == ["gone.png", "q.jfif", "x.PNG", "y.heic", "z.avif"]
    assert [path.name for path in not_read] == ["logo.svg", "raw.CR2"]


def test_a_folder_without_supported_pictures_is_refused(tmp_path):
    (tmp_path / "logo.svg").touch()
    with pytest.raises(UserError, match=r"logo\.svg"):
        pictures_in(tmp_path)
    Image.new("RGB", (2, 2)).save(tmp_path / "x.bmp")
    assert pictures_in(tmp_path)[0] == [tmp_path / "x.bmp"]
