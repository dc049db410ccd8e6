"""Pictures in a grid."""

import numpy as np
from PIL import Image

from rendering.picture_grid import picture_grid

RED, GREEN, HALF_BLUE = ((255, 0, 0), (0, 255, 0), (0, 0, 255, 128))


def test_pictures_lie_in_rows_with_gaps_and_rgba_is_composited():
    red, green = (Image.new("RGB", (2, 1), colour) for colour in (RED, GREEN))
    grid = picture_grid([[red, green], [Image.new("RGBA", (2, 1), HALF_BLUE)]], gap_px=(1, 2))
    white = [255] * 3
    blue = [127, 127, 255]
    top = [[*RED], [*RED], white, [*GREEN], [*GREEN], white]
    bottom = [blue, blue, *[white] * 4]
    np.testing.assert_array_equal(grid, [top, [white] * 6, [white] * 6, bottom, [white] * 6, [white] * 6])


def test_the_background_fills_empty_places():
    grid = picture_grid([[Image.new("RGB", (1, 1), RED)] * 2, [Image.new("RGB", (1, 1), RED)]], background=GREEN)
    np.testing.assert_array_equal(grid, [[RED, RED], [RED, GREEN]])
