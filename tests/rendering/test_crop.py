"""`crop` samples only the rectangle around the object; views of any asset must not depend on it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rendering.asset_validation import CHECKS
from rendering.failure import RenderFailure
from rendering.settings import RenderSettings

CASES = Path(__file__).parents[3] / "shared/cases/rendering"


@pytest.mark.skipif(not CASES.is_dir(), reason="needs the folder of small failing inputs beside the project")
def test_views_do_not_depend_on_crop(renderer, tmp_path):
    def pictures(asset: Path, crop: bool) -> np.ndarray | str:
        settings = RenderSettings(crop=crop, resolution=48, views=2, samples=4, noise=0, denoise="none")
        folder = tmp_path / f"{asset.name}-{crop}"
        folder.mkdir()
        try:
            renderer.render(asset, settings, 0, folder, root=CASES)
        except RenderFailure as failure:
            return failure.reason
        return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("*.webp"))])

    assets = sorted(path for path in CASES.rglob("*") if path.suffix.lower() in CHECKS)
    cropped, whole = ([pictures(asset, crop) for asset in assets] for crop in (True, False))
    for asset, one, other in zip(assets, cropped, whole, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=asset.name)
    assert sum(isinstance(picture, np.ndarray) for picture in whole) >= 15, "most cases have views"
