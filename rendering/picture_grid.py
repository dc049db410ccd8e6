"""Paste pictures into a grid, for contact sheets."""

from collections.abc import Sequence

from PIL import Image


def picture_grid(
    rows: Sequence[Sequence[Image.Image]],
    gap_px: tuple[int, int] = (0, 0),
    background: str | tuple[int, int, int] = "white",
) -> Image.Image:
    """Return one RGB picture of rows of pictures.

    Args:
        rows: Pictures of each row, all of one size; rows may differ in length. RGBA is composited on the background.
        gap_px: Space right of and below each picture, pixels.
        background: Colour of gaps and empty places.
    """
    width, height = rows[0][0].width + gap_px[0], rows[0][0].height + gap_px[1]
    grid = Image.new("RGB", (max(map(len, rows)) * width, len(rows) * height), background)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            grid.paste(picture, (x * width, y * height), picture if picture.mode == "RGBA" else None)
    return grid
