"""Decode untrusted pictures upright, with 8 bits and their transparency, or refuse them with a sentence."""

import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, features

from conf.options import UserError
from inference.preprocess.photograph import PictureError, load_photograph, read_photograph


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


def test_the_first_frame_of_an_animation_is_read(tmp_path):
    red, blue = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    read = read_photograph(saved(tmp_path / "x.gif", red, save_all=True, append_images=[blue]))
    assert read.getpixel((1, 1))[:3] == (255, 0, 0)


STORED = {  # how an upright picture lies in a file of each EXIF orientation: the inverse of what a reader applies
    1: lambda rows: rows,
    2: lambda rows: rows[:, ::-1],
    3: lambda rows: rows[::-1, ::-1],
    4: lambda rows: rows[::-1],
    5: lambda rows: rows.swapaxes(0, 1),
    6: lambda rows: rows.swapaxes(0, 1)[::-1],
    7: lambda rows: rows[::-1, ::-1].swapaxes(0, 1),
    8: lambda rows: rows.swapaxes(0, 1)[:, ::-1],
}
COMPRESSIONS = [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"]
LOSSLESS = [
    *((mode, ".tif", {"compression": name}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16")
      for name in COMPRESSIONS),
    ("1", ".tif", {"compression": "group4"}),
    *((mode, ".png", {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    *((mode, ".webp", {"lossless": True, "exact": True}) for mode in ("RGB", "RGBA")),
]  # fmt: skip


def blocks(mode: str) -> Image.Image:
    """7 × 5 blocks of random colours."""
    small = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    picture = Image.fromarray(small.repeat(8, axis=0).repeat(8, axis=1))
    if mode == "I;16":
        return Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    if mode == "P":
        return picture.convert("RGB").quantize(64)
    return picture.convert(mode) if mode in ("RGBA", "LA") else picture.convert("RGB").convert(mode)


def save_rotated(path, picture: Image.Image, orientation: int, **options):
    """Save a picture with an EXIF orientation, as a rotated camera does."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    rows = np.ascontiguousarray(STORED[orientation](np.asarray(picture)))
    stored = Image.fromarray(rows, picture.mode if picture.mode in ("P", "CMYK") else None)
    if picture.mode == "P":
        stored.putpalette(picture.getpalette())
    return saved(path, stored, exif=exif if path.suffix == ".tif" else exif.tobytes(), **options)


@pytest.mark.parametrize(("mode", "suffix", "options"), LOSSLESS)
def test_every_exif_orientation_comes_out_upright(tmp_path, mode, suffix, options):
    picture = blocks(mode)
    if mode == "I;16":
        upright = np.repeat(np.asarray(picture)[..., None] // 257, 3, axis=2)
    else:
        upright = np.asarray(picture.convert("RGBA" if "A" in mode else "RGB"))
    for orientation in STORED:
        path = save_rotated(tmp_path / f"{orientation}{suffix}", picture, orientation, **options)
        np.testing.assert_array_equal(np.asarray(read_photograph(path)), upright)
        np.testing.assert_array_equal(np.asarray(load_photograph(Image.open(path))), upright)


@pytest.mark.parametrize("suffix", [".jpg", ".avif"])
def test_every_exif_orientation_of_a_compressed_photograph_comes_out_upright(tmp_path, suffix):
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow does not read AVIF")
    picture = blocks("RGB")
    for orientation in STORED:
        read = read_photograph(save_rotated(tmp_path / f"{orientation}{suffix}", picture, orientation, quality=95))
        assert read.size == picture.size
        middles = [np.asarray(one, int)[4::8, 4::8] for one in (read, picture)]
        assert np.abs(middles[0] - middles[1]).mean() < 12


DEEP = np.random.default_rng(1).integers(0, 2**16, (9, 12, 4), dtype=np.uint16)
EIGHT = np.rint(DEEP / 257).astype(int)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_become_8_from_a_file_an_array_and_a_pil_image(tmp_path, suffix):
    for name, values, stored, expected in (
        ("grey", DEEP[..., 0], DEEP[..., 0], np.repeat(EIGHT[..., :1], 3, axis=2)),
        ("rgb", DEEP[..., :3], DEEP[..., 2::-1], EIGHT[..., :3]),
        ("rgba", DEEP, DEEP[..., [2, 1, 0, 3]], EIGHT),
    ):
        path = tmp_path / f"{name}{suffix}"
        assert cv2.imwrite(str(path), np.ascontiguousarray(stored))
        for picture in (path, str(path), Image.open(path), values):
            read = load_photograph(picture)
            assert read.mode == ("RGBA" if name == "rgba" else "RGB")
            np.testing.assert_allclose(np.asarray(read, int), expected, atol=1)


@pytest.mark.parametrize("colour", [0, 2], ids=["grey", "rgb"])
def test_the_transparent_colour_of_16_bits_is_transparent(tmp_path, colour):
    channels = 3 if colour else 1
    (tmp_path / "x.png").write_bytes(png(DEEP[..., :channels], colour, key=DEEP[3, 4, :channels]))
    expected = np.full((9, 12), 255)
    expected[3, 4] = 0
    assert (np.asarray(read_photograph(tmp_path / "x.png"))[..., 3] == expected).all()


def png(values_HWC, colour: int, key) -> bytes:
    """A PNG of 16 bits per channel with a tRNS chunk."""

    def chunk(kind: bytes, contents: bytes) -> bytes:
        body = kind + contents
        return struct.pack(">I", len(contents)) + body + struct.pack(">I", zlib.crc32(body))

    height, width = values_HWC.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values_HWC)
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"tRNS", key.astype(">u2").tobytes()), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


@pytest.mark.parametrize(("bits", "white"), [(12, False), (16, True)])
def test_grey_tiffs_of_other_scales(tmp_path, bits, white):
    """Two rows of two pixels: black, a third, two thirds, all of the range; `white` stores white as 0."""
    values = [0, (2**bits - 1) // 3, (2**bits - 1) * 2 // 3, 2**bits - 1]
    packed = sum(value << bits * (3 - i) for i, value in enumerate(values)).to_bytes(bits // 2, "big")
    if bits == 16:
        packed = np.uint16(values).astype("<u2").tobytes()
    tags = {
        256: 2,
        257: 2,
        258: bits,
        259: 1,
        262: 0 if white else 1,
        273: 8 + 2 + 8 * 12 + 4,
        278: 2,
        279: len(packed),
    }
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    (tmp_path / "x.tif").write_bytes(b"II*\0" + struct.pack("<IH", 8, 8) + entries + bytes(4) + packed)
    grey = np.asarray(read_photograph(tmp_path / "x.tif"))[..., 0].ravel().tolist()
    assert grey == ([255, 170, 85, 0] if white else [0, 85, 170, 255])


def test_arrays_of_bytes_are_unchanged():
    values = np.random.default_rng(0).integers(0, 256, (6, 9, 4), dtype=np.uint8)
    assert (np.asarray(load_photograph(values)) == values).all()
    assert (np.asarray(load_photograph(values[..., :3])) == values[..., :3]).all()
    assert (np.asarray(load_photograph(values[..., 0])) == values[..., :1]).all()


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((4, 4, 3)), np.zeros((4, 4), bool), np.zeros((4, 4, 2), np.uint8), np.zeros(4, np.uint8),
        np.zeros((0, 4), np.uint8), np.zeros((1, 4, 4, 3), np.uint8), [[0, 1], [1, 0]], None, b"PNG",
        Image.new("I", (4, 4)), Image.new("F", (4, 4)), Image.new("LAB", (4, 4)), Image.new("1", (9000, 8000)),
    ],
)  # fmt: skip
def test_a_picture_of_unknown_range_or_shape_is_refused(picture):
    with pytest.raises(PictureError, match="; "):
        load_photograph(picture)


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_a_tiff_of_32_bits_is_refused(tmp_path, dtype):
    with pytest.raises(PictureError, match="32-bit"):
        read_photograph(saved(tmp_path / "x.tif", Image.fromarray(np.ones((4, 4), dtype))))


def test_a_pil_image_is_not_modified(tmp_path):
    path = save_rotated(tmp_path / "x.tif", blocks("L"), 6)
    picture = Image.open(path)
    load_photograph(picture)
    assert picture.filename == str(path) and picture.mode == "L"
    assert (np.asarray(load_photograph(load_photograph(path))) == np.asarray(load_photograph(picture))).all()


def test_unsupported_formats_are_refused_by_name(tmp_path):
    (tmp_path / "x.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    with pytest.raises(PictureError, match="SVG"):
        read_photograph(tmp_path / "x.svg")
    (tmp_path / "x.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    with pytest.raises(PictureError, match="HEIC|damaged"):
        read_photograph(tmp_path / "x.heic")


def test_a_heic_photograph_is_read_upright(tmp_path):
    pytest.importorskip("pillow_heif", reason="needs the optional package pillow-heif").register_heif_opener()
    picture = Image.new("RGB", (64, 48), "red")
    picture.paste("blue", (0, 0, 64, 24))
    read = read_photograph(save_rotated(tmp_path / "x.heic", picture, 6, quality=90))
    assert read.size == (64, 48) and read.getpixel((9, 9))[2] > 200 and read.getpixel((9, 40))[0] > 200


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
        (b"", "not a picture"),
        (b"no picture at all", "not a picture"),
        (cut(), "damaged"),
        (bomb(), "too many pixels"),
    ],
    ids=["empty", "text", "truncated", "bomb"],
)
def test_damaged_pictures_are_refused(tmp_path, contents, sentence):
    (tmp_path / "x.png").write_bytes(contents)
    with pytest.raises(UserError, match=sentence):
        read_photograph(tmp_path / "x.png")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "nothing.png", tmp_path):
        with pytest.raises(UserError, match="no such picture file"):
            read_photograph(path)


@pytest.mark.parametrize("path", ["/proc/self/mem", "x" * 300])
def test_an_error_of_the_operating_system_is_not_called_damage(path):
    with pytest.raises(PictureError, match="cannot be read: "):
        read_photograph(path)


def test_a_large_picture_is_refused_by_its_header(tmp_path):
    with pytest.raises(UserError, match="has 9000 × 8000 pixels"):
        read_photograph(saved(tmp_path / "x.png", Image.new("1", (9000, 8000))))


def test_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(UserError, match="no such picture file"):
        read_photograph(tmp_path / "x.png")


def test_only_plain_formats_are_opened(tmp_path):
    """EPS starts an interpreter; it is refused by name, whatever the suffix says."""
    (tmp_path / "x.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(UserError, match="not a picture"):
        read_photograph(tmp_path / "x.png")
