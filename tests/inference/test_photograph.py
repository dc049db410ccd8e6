"""A stranger's picture comes out upright with the transparency it has, or is refused in a sentence."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from conf.options import UserError
from inference.photograph import read_photograph


def saved(path, image, **options):
    image.save(path, **options)
    return path


def test_transparency_is_kept(tmp_path):
    pixels = np.uint8([[[200, 0, 0, 128], [0, 90, 0, 0]]])
    read = read_photograph(saved(tmp_path / "half.png", Image.fromarray(pixels)))
    assert read.mode == "RGBA" and (np.asarray(read) == pixels).all()


def test_the_transparent_colour_of_a_palette_is_transparent(tmp_path):
    picture = Image.new("P", (2, 1))
    picture.putpalette([250, 10, 10, 10, 10, 250])
    picture.putpixel((1, 0), 1)
    for file in ("x.gif", "x.png"):
        read = np.asarray(read_photograph(saved(tmp_path / file, picture, transparency=1)))
        assert read[0, 0].tolist() == [250, 10, 10, 255] and read[0, 1, 3] == 0


def test_the_first_frame_of_an_animation_counts(tmp_path):
    red, blue = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    read = read_photograph(saved(tmp_path / "x.gif", red, save_all=True, append_images=[blue]))
    assert read.getpixel((1, 1))[:3] == (255, 0, 0)


def test_exif_orientation_is_applied(tmp_path):
    picture = Image.fromarray(np.uint8([[[255, 0, 0]] * 8] * 8 + [[[0, 0, 255]] * 8] * 8))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    turned = np.asarray(read_photograph(saved(tmp_path / "x.jpg", picture, exif=exif, quality=95)))
    assert turned[1, 4, 2] > 200 and turned[-2, 4, 0] > 200
    exif[0x0112] = 6  # the first row is the right-hand side
    turned = np.asarray(read_photograph(saved(tmp_path / "x.png", picture, exif=exif)))
    assert turned.shape == (8, 16, 3) and turned[4, -2, 0] > 200 and turned[4, 1, 2] > 200


@pytest.mark.parametrize(
    ("mode", "grey"),
    [("L", 128), ("LA", (128, 255)), ("RGB", (128,) * 3), ("RGBA", (128, 128, 128, 255)), ("I;16", 32896),
     ("CMYK", (127, 127, 127, 0))],
)  # fmt: skip
def test_grey_is_grey_in_any_mode(tmp_path, mode, grey):
    path = saved(tmp_path / ("x.tif" if mode == "CMYK" else "x.png"), Image.new(mode, (5, 5), grey))
    read = read_photograph(path)
    assert read.mode == ("RGBA" if "A" in mode else "RGB")
    np.testing.assert_allclose(np.asarray(read.convert("RGB")), 128, atol=1)


def test_black_and_white_of_one_bit(tmp_path):
    picture = Image.new("1", (2, 1))
    picture.putpixel((1, 0), 1)
    assert np.asarray(read_photograph(saved(tmp_path / "x.png", picture)))[0, :, 0].tolist() == [0, 255]


def test_a_palette_becomes_its_colours(tmp_path):
    picture = Image.new("RGB", (5, 5), (10, 200, 90)).quantize(4)
    np.testing.assert_allclose(
        np.asarray(read_photograph(saved(tmp_path / "x.png", picture)))[0, 0], [10, 200, 90], atol=2
    )


def bomb() -> bytes:
    """A PNG header that promises 100,000 × 100,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunks = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunks + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


def cut() -> bytes:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    noise.save(buffer, "PNG")
    return buffer.getvalue()[:4000]


@pytest.mark.parametrize(
    ("contents", "sentence"),
    [
        (b"", "is no picture"),
        (b"no picture at all", "is no picture"),
        (cut(), "is damaged"),
        (bomb(), "far too many pixels"),
    ],
    ids=["empty", "text", "truncated", "bomb"],
)
def test_what_is_no_good_picture_is_refused(tmp_path, contents, sentence):
    (tmp_path / "x.png").write_bytes(contents)
    with pytest.raises(UserError, match=sentence):
        read_photograph(tmp_path / "x.png")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "nothing.png", tmp_path):
        with pytest.raises(UserError, match="no picture file"):
            read_photograph(path)


def test_a_large_picture_is_refused_by_its_header(tmp_path):
    with pytest.raises(UserError, match="has 9000 × 8000 pixels"):
        read_photograph(saved(tmp_path / "x.png", Image.new("1", (9000, 8000))))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(UserError, match="no picture file"):
        read_photograph(tmp_path / "x.png")


def test_only_plain_formats_are_opened(tmp_path):
    """EPS starts an interpreter; it is refused by name, whatever the suffix says."""
    (tmp_path / "x.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(UserError, match="is no picture"):
        read_photograph(tmp_path / "x.png")
