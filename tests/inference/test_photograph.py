"""A stranger's picture comes out square, upright and on white, or is refused in a sentence."""

import io
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


def test_transparency_is_composited_on_white_and_the_frame_made_square(tmp_path):
    picture = Image.new("RGBA", (4, 2), (200, 0, 0, 128))
    square = np.asarray(read_photograph(saved(tmp_path / "half.png", picture)))
    assert square.shape == (4, 4, 3)
    assert (square[[0, 3]] == 255).all()
    # 200 · 128/255 + 255 · 127/255 = 227.4 and 255 · 127/255 = 127
    np.testing.assert_allclose(square[1, 0], [227, 127, 127], atol=1)


def test_exif_orientation_is_applied(tmp_path):
    picture = Image.fromarray(np.uint8([[[255, 0, 0]] * 8] * 8 + [[[0, 0, 255]] * 8] * 8))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    turned = np.asarray(read_photograph(saved(tmp_path / "x.jpg", picture, exif=exif, quality=95)))
    assert turned[1, 8, 2] > 200 and turned[-2, 8, 0] > 200


@pytest.mark.parametrize(
    ("mode", "grey"),
    [("L", 128), ("LA", (128, 255)), ("RGB", (128,) * 3), ("RGBA", (128, 128, 128, 255)), ("I;16", 32896),
     ("CMYK", (127, 127, 127, 0))],
)  # fmt: skip
def test_grey_is_grey_in_any_mode(tmp_path, mode, grey):
    path = saved(tmp_path / ("x.tif" if mode == "CMYK" else "x.png"), Image.new(mode, (5, 5), grey))
    np.testing.assert_allclose(np.asarray(read_photograph(path)), 128, atol=1)


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
        (bomb(), "pixels|damaged"),
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


def test_only_plain_formats_are_opened(tmp_path):
    """EPS starts an interpreter; it is refused by name, whatever the suffix says."""
    (tmp_path / "x.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(UserError, match="is no picture"):
        read_photograph(tmp_path / "x.png")
