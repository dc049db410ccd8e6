"""Contact sheets, films and GIFs, decoded by other libraries."""

import av
import numpy as np
from PIL import Image

from inference.views.media import contact_sheet, variance, variance_picture, write_gif, write_mp4

COLOURS = ["red", "lime", "blue", "yellow"]
FRAMES = [Image.new("RGB", (63, 63), colour) for colour in COLOURS]


def is_colour(picture: Image.Image, colour: str) -> bool:
    return np.abs(np.asarray(picture.convert("RGB"), float) - np.asarray(Image.new("RGB", (1, 1), colour))).max() < 12


def test_mp4_contains_the_views_in_order(tmp_path):
    write_mp4(tmp_path / "views.mp4", FRAMES)
    with av.open(tmp_path / "views.mp4") as film:
        (stream,) = film.streams.video
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.width == stream.height == 128  # even, and at least MIN_SIDE_PX
        seen = [frame.to_image() for frame in film.decode(video=0)]
    assert len(seen) == 4 and all(is_colour(picture, colour) for picture, colour in zip(seen, COLOURS, strict=True))


def test_gif_contains_the_views_and_loops(tmp_path):
    write_gif(tmp_path / "views.gif", FRAMES)
    with Image.open(tmp_path / "views.gif") as film:
        assert (film.n_frames, film.info["loop"], film.info["duration"]) == (4, 0, 100)
        for i, colour in enumerate(COLOURS):
            film.seek(i)
            assert is_colour(film, colour)


def test_contact_sheet_places_each_picture():
    sheet = contact_sheet(FRAMES, ["a", "b", "c", "d"], columns=3)
    places = {"red": (64, 64), "lime": (64 + 132, 64), "blue": (64 + 264, 64), "yellow": (64, 64 + 146)}
    assert sheet.size == (3 * 132, 2 * 146)
    for colour, place in places.items():
        assert is_colour(sheet.crop((*place, place[0] + 1, place[1] + 1)), colour)
    label = np.asarray(sheet.crop((0, 128, 132, 146)).convert("L"))
    assert label.min() < 160  # the label


def test_variance_matches_a_hand_computed_value():
    """Samples of 0 and 255 in one of three channels: variance 1/4, mean over the channels 1/12."""
    samples = np.zeros((2, 1, 2, 3), np.uint8)
    samples[1, 0, 1, 0] = 255
    field = variance(samples)
    np.testing.assert_allclose(field, [[0, 1 / 12]])
    dark, bright = np.asarray(variance_picture(field, 1 / 12), int).sum(axis=-1)[0]
    assert dark < 30 and bright > 500
    assert np.asarray(variance_picture(field, 1 / 3), int).sum(axis=-1)[0, 1] < bright
