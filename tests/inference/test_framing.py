"""Framing: one object on white, centred, as large as in training, without colours of transparent pixels."""

import numpy as np
import pytest
from PIL import Image

from conf.options import UserError
from inference.preprocess.framing import TRAINING_FILL, prepare


def rectangle(size, box, colour, beyond=(0, 0, 0, 0)) -> Image.Image:
    picture = Image.new("RGBA", size, beyond)
    picture.paste(colour, box)
    return picture


def extent(image) -> list[int]:
    """Return left, top, right and bottom of the pixels that are not near white."""
    return list(image.convert("L").point(lambda grey: 255 * (grey < 200)).getbbox())


@pytest.mark.parametrize(
    ("fill", "box"), [(0.5, [50, 75, 150, 125]), (None, [44, 72, 156, 128]), (1, [0, 50, 200, 150])]
)
def test_the_object_fills_its_share_and_is_centred(fill, box):
    # 40 × 20 pixels far from the middle; half of 200 is 100 × 50, TRAINING_FILL of it 112 × 56.
    assert TRAINING_FILL == 0.56
    image = prepare(rectangle((300, 130), (13, 101, 53, 121), (180, 0, 0, 255)), "auto", fill, 200).image
    assert image.mode == "RGB" and image.size == (200, 200)
    np.testing.assert_allclose(extent(image), box, atol=1)
    assert image.getpixel((100, 100)) == (180, 0, 0)


@pytest.mark.parametrize("resolution", [16, 37, 150, 400])
def test_colours_of_transparent_pixels_do_not_leak(resolution):
    """The transparent pixels are black and green; the result contains only mixtures of red and white."""
    for beyond in ((0, 0, 0, 0), (0, 255, 0, 0)):
        image = prepare(rectangle((90, 90), (30, 20, 51, 70), (255, 0, 0, 255), beyond), "auto", None, resolution).image
        red, green, blue = np.moveaxis(np.asarray(image, int), 2, 0)
        assert (red >= 254).all() and (green == blue).all()
        assert green.min() == 0 and green.max() == 255


def test_centring_is_subpixel_and_mirrors_with_the_picture():
    photograph = rectangle((101, 77), (11, 5, 42, 70), (20, 60, 200, 255))
    flip = Image.Transpose.FLIP_LEFT_RIGHT
    image, mirrored = prepare(photograph, "auto", None, 64).image, prepare(photograph.transpose(flip), "auto", None, 64)
    np.testing.assert_allclose(np.asarray(image.transpose(flip), int), np.asarray(mirrored.image, int), atol=1)


def test_fine_detail_is_antialiased():
    chequered = np.indices((256, 256)).sum(axis=0) % 2 * 255
    pixels = np.stack([chequered] * 3 + [np.full_like(chequered, 255)], axis=2).astype(np.uint8)
    photograph = Image.new("RGBA", (512, 512))
    photograph.paste(Image.fromarray(pixels), (100, 100))
    inside = np.asarray(prepare(photograph, "auto", 0.5, 32).image)[11:21, 11:21]
    np.testing.assert_allclose(inside, 127, atol=3)


def test_half_transparent_pixels_are_blended_with_white():
    image = prepare(rectangle((40, 40), (10, 10, 30, 30), (200, 0, 0, 128)), "auto", 0.5, 40).image
    # 200 · 128/255 + 255 · 127/255 = 227.4 and 255 · 127/255 = 127
    np.testing.assert_allclose(image.getpixel((20, 20)), [227, 127, 127], atol=1)


def test_fill_0_keeps_the_frame_and_pads_it_to_a_square():
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    assert (np.asarray(prepare(Image.fromarray(pixels), "none", 0, 32).image) == pixels).all()
    padded = np.asarray(prepare(Image.fromarray(pixels[:16]), "none", 0, 32).image)
    assert (padded[8:24] == pixels[:16]).all() and (padded[[*range(8), *range(24, 32)]] == 255).all()
    corner = prepare(rectangle((40, 40), (0, 0, 10, 10), (9, 9, 9, 255)), "auto", 0, 40).image
    assert extent(corner) == [0, 0, 10, 10]


def test_without_a_cutout_the_frame_is_kept_unless_fill_is_given():
    pixels = np.random.default_rng(0).integers(0, 90, (32, 32, 3), dtype=np.uint8)
    assert extent(prepare(Image.fromarray(pixels), "none", None, 32).image) == [0, 0, 32, 32]
    assert extent(prepare(Image.fromarray(pixels), "none", 0.5, 32).image) == [8, 8, 24, 24]


def test_a_picture_one_pixel_wide_is_framed():
    pixels = np.zeros((4, 3000, 3), np.uint8)
    pixels[:, 1000:] = 120
    line = np.asarray(prepare(Image.fromarray(pixels), "none", 0, 64).image)[..., 0]
    # 4 of 3000 rows are 0.085 of the frame's 64, which two rows of the frame share
    np.testing.assert_allclose(
        (255 - line.astype(float)).sum(axis=0)[[5, 60]] / 255, [0.085, 0.085 * 135 / 255], atol=0.03
    )
    assert (line[:28] == 255).all() and (line[36:] == 255).all()


@pytest.mark.parametrize("colour", [(255, 255, 255, 255), (254, 255, 255, 255), (70, 80, 90, 255), (70, 80, 90, 0)])
@pytest.mark.parametrize("cutout", ["auto", "none", "u2netp"])
@pytest.mark.parametrize("side", [1, 50])
def test_a_picture_without_an_object_is_refused(colour, cutout, side):
    with pytest.raises(UserError, match="is blank"):
        prepare(Image.new("RGBA", (side, side), colour), cutout, None, 16)


def test_preparation_is_deterministic():
    pixels = np.random.default_rng(0).integers(0, 255, (70, 50, 4), dtype=np.uint8)
    pixels[:20] = 255
    first, second = (prepare(Image.fromarray(pixels.copy()), "auto", None, 48) for _ in range(2))
    assert first.image.tobytes() == second.image.tobytes() and first.cutout.tobytes() == second.cutout.tobytes()
