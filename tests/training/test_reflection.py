"""Reflected pairs: the mirror image of the object, from mirrored cameras."""

import numpy as np
import pytest
import torch

from conf.options import UserError
from rendering.cameras import camera_centre, look_at_origin, relative_pose
from tests.support.dots import draw_dots, views_of_dots, webp, write_dots
from tests.support.view_pairs import config, key, shards_of
from training.config import DataConfig, DataKind
from training.data.batches import fixed_pairs, validation_batches
from training.data.pair_stream import PairStream
from training.model.picture import Background, decode


def test_reflected_pairs_show_the_mirror_image_of_the_object(tmp_path):
    """Half of the pairs equal views of the object, half views of its mirror image, drawn from mirrored cameras."""
    write_dots(tmp_path, objects=1, views=6, resolution=64)
    rng, mirror = np.random.default_rng(0), np.array([1, -1, 1])
    points, colours = rng.uniform(-0.5, 0.5, (8, 3)), rng.integers(0, 256, (8, 3))
    cameras = views_of_dots(0, views=6)[1]
    mirrored = [look_at_origin(camera_centre(camera) * mirror) for camera in cameras]
    drawn = [draw_dots(points, colours, camera, 64) for camera in cameras]
    drawn += [draw_dots(points * mirror, colours, camera, 64) for camera in mirrored]
    pixels = np.stack([decode(webp(picture), 64, Background.composite) for picture in drawn]).astype(float)
    cameras = [*cameras, *mirrored]
    reflections = 0
    for pair in PairStream(config(tmp_path, reflect=True), shards_of(tmp_path), 64, 0, 400, epochs=1):
        distances = [np.abs(pixels - pair[name]).mean(axis=(1, 2, 3)) for name in ("target", "condition")]
        target, condition = (int(distance.argmin()) for distance in distances)
        assert max(distance.min() for distance in distances) < 2 < 4 < min(np.partition(d, 1)[1] for d in distances)
        expected = relative_pose(cameras[target], cameras[condition])
        assert pair["pose"].tolist() == pytest.approx(expected.tolist(), abs=1e-5)
        assert (target < 6) == (condition < 6)
        reflections += target >= 6
    assert 150 < reflections < 250


def test_reflection_leaves_the_choice_of_views_and_validation_as_they_are(dots):
    plain, reflected = ([*PairStream(config(dots, reflect=r), shards_of(dots), 32, 0, 8, epochs=1)] for r in (0, 1))
    same = [key(a) == key(b) for a, b in zip(plain, reflected, strict=True)]
    assert any(same) and not all(same)
    assert all(np.array_equal(a["pose"][2:], b["pose"][2:]) for a, b in zip(plain, reflected, strict=True))
    shards = shards_of(dots)
    for batches in (validation_batches, lambda *a: [fixed_pairs(*a, count=8)]):
        a, b = ([*batches(config(dots, reflect=r), shards, 32, 0)] for r in (False, True))
        assert all(torch.equal(x["target"], y["target"]) for x, y in zip(a, b, strict=True))


def test_latents_cannot_be_reflected():
    with pytest.raises(UserError, match="data.reflect"):
        DataConfig(path="x", kind=DataKind.latents, reflect=True)
