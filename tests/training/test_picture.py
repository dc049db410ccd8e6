"""Pictures on white, and their decoding."""

import numpy as np
from PIL import Image

from tests.support.dots import webp
from training.model.picture import Background, decode, on_white

PIXELS = Image.fromarray(np.array([[[255, 0, 0, 0], [50, 100, 150, 51], [25, 50, 75, 255]]], dtype=np.uint8))


def test_composite_matches_hand_computed_pixels():
    expected = [[255, 255, 255], [214, 224, 234], [25, 50, 75]]  # 50·51/255 + 204, …
    assert np.asarray(on_white(PIXELS, Background.composite))[0].tolist() == expected


def test_original_background_keeps_straight_colours():
    expected = [[255, 255, 255], [50, 100, 150], [25, 50, 75]]
    assert np.asarray(on_white(PIXELS, Background.original))[0].tolist() == expected


def test_composite_rounds_every_colour_and_opacity_to_nearest():
    colour, alpha = (grid.astype(np.uint8) for grid in np.mgrid[:256, :256])
    seen = np.asarray(
        on_white(Image.fromarray(np.stack([colour, colour, colour, alpha], axis=2)), Background.composite)
    )
    exact = (colour.astype(int) * alpha + 255 * (255 - alpha.astype(int))) / 255  # never halfway: 255 is odd
    assert np.array_equal(seen[..., 1], np.round(exact))


def test_a_transparent_view_is_white():
    assert np.asarray(on_white(Image.new("RGBA", (3, 3)), Background.composite)).min() == 255


def test_decoding_composites_exactly_and_resizes_smoothly():
    picture = Image.new("RGBA", (2, 2), (0, 0, 0, 255))
    picture.putpixel((0, 0), (255, 0, 51, 0))
    picture.putpixel((1, 1), (255, 0, 51, 102))
    pixels = decode(webp(picture), 2, Background.composite)
    assert pixels.tolist() == [[[255, 255, 255], [0, 0, 0]], [[0, 0, 0], [255, 153, 173]]]
    stripes = Image.fromarray(np.tile(np.uint8([[0, 255]]), (64, 32))).convert("RGBA")
    small = decode(webp(stripes), 8, Background.composite)
    assert small.shape == (8, 8, 3) and np.abs(small[:, 1:-1].astype(int) - 128).max() <= 8  # grey, not aliased
