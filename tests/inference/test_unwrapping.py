"""Texture coordinates without overlaps, whatever xatlas makes of a mesh; texels and the padding between charts."""

import time

import numpy as np
import pytest
import trimesh

from inference.reconstruction.surface.texels import pad, rasterise
from inference.reconstruction.surface.unwrapping import triangle_atlas, unwrap


def torus(sections=24):
    mesh = trimesh.creation.torus(0.35, 0.12, major_sections=2 * sections, minor_sections=sections)
    return np.asarray(mesh.vertices, dtype=float), np.asarray(mesh.faces, dtype=np.int64)


def tangle(count=1500):
    """Return triangles between random points: edges of many faces, intersections, two faces without area."""
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 300, (count, 3))
    faces[:2] = 7
    return rng.uniform(-0.5, 0.5, (300, 3)), faces


def check(uv, size):
    """Check that all triangles are inside of the texture, and that no texel lies inside of two."""
    assert np.isfinite(uv).all() and uv.min() >= 0 and uv.max() <= 1
    texels, reverse = rasterise(uv, size), rasterise(uv[::-1], size)
    np.testing.assert_array_equal(texels.index, reverse.index)
    twice = texels.face != len(uv) - 1 - reverse.face
    assert (texels.barycentric[twice].min(axis=1) < 1e-6).all()  # on common edges only
    return texels


def areas(corners):
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return np.sqrt(np.maximum((first**2).sum(1) * (second**2).sum(1) - (first * second).sum(1) ** 2, 0)) / 2


def test_charts_do_not_overlap_and_have_one_scale():
    vertices, faces = torus()
    uv, size = unwrap(vertices, faces, 256)
    texels = check(uv, size)
    assert size == 256 and len(np.unique(texels.face)) == len(faces)
    assert len(texels.index) > 0.3 * size**2
    scale = np.sqrt(areas(uv) / areas(vertices[faces]))
    assert scale.min() > 0.5 * np.median(scale) and scale.max() < 2 * np.median(scale)


def test_charts_are_apart():
    """Two faces that are neighbours in the texture are neighbours on the surface, or have a gap between them."""
    vertices, faces = torus()
    uv, size = unwrap(vertices, faces, 256)
    texels = rasterise(uv, size)
    face = np.full(size * size, -1)
    face[texels.index] = texels.face
    points = np.zeros((size * size, 3))
    points[texels.index] = texels.interpolate(vertices, faces)
    face, points = face.reshape(size, size), points.reshape(size, size, 3)
    step = 1 / size / np.median(np.sqrt(areas(uv) / areas(vertices[faces])))  # of a texel on the surface
    for first, second in (((slice(1, None), slice(None)), (slice(-1), slice(None))),
                          ((slice(None), slice(1, None)), (slice(None), slice(-1)))):  # fmt: skip
        both = (face[first] >= 0) & (face[second] >= 0)
        assert both.any() and np.linalg.norm(points[first] - points[second], axis=2)[both].max() < 3 * step


def test_equal_meshes_have_equal_coordinates():
    np.testing.assert_array_equal(*(unwrap(*torus(12), 128)[0] for _ in range(2)))


def test_past_the_deadline_each_triangle_has_its_place():
    vertices, faces = torus(60)  # takes xatlas seconds
    uv, size = unwrap(vertices, faces, 256, deadline_s=0.7)
    np.testing.assert_array_equal(uv, triangle_atlas(vertices, faces, 256)[0])
    texels = check(uv, size)
    assert len(np.unique(texels.face)) == len(faces)


def test_a_mesh_that_is_no_surface_ends_too():
    vertices, faces = tangle()
    started = time.monotonic()
    uv, size = unwrap(vertices, faces, 512, deadline_s=3)
    assert time.monotonic() - started < 6 and size >= 512
    check(uv, size)
    real = areas(vertices[faces]) > 1e-9
    assert not real.all() and (areas(uv)[real] * size**2 > 0.001).all()


@pytest.mark.parametrize("count", [1, 2, 3, 1000])
def test_the_atlas_by_triangles_has_gutters_and_keeps_orientation(count):
    rng = np.random.default_rng(count)
    vertices, faces = rng.uniform(-1, 1, (3 * count, 3)), np.arange(3 * count).reshape(-1, 3)
    uv, size = triangle_atlas(vertices, faces, 256)
    texels = check(uv, size)
    (ax, ay), (bx, by) = np.moveaxis(uv[:, 1:] - uv[:, :1], (1, 2), (0, 1))
    assert (ax * by - ay * bx > 0).all()
    image = np.full(size * size, -1)
    image[texels.index] = texels.face
    image = image.reshape(size, size)
    for a, b in ((image[1:], image[:-1]), (image[:, 1:], image[:, :-1]), (image[1:, 1:], image[:-1, :-1])):
        assert ((a == b) | (a < 0) | (b < 0)).all()


def test_the_atlas_by_triangles_grows_for_many_faces():
    vertices, faces = np.random.default_rng(0).uniform(-1, 1, (100, 3)), np.arange(3 * 20_000).reshape(-1, 3) % 100
    uv, size = triangle_atlas(vertices, faces, 512)
    assert size == 1024 and len(np.unique(rasterise(uv, size).face)) == 20_000


def test_a_square_of_two_triangles_covers_each_texel_once():
    square = np.array([[[0, 0], [1, 0], [1, 1]], [[0, 0], [1, 1], [0, 1]]], dtype=float)
    texels = rasterise(square, 8)
    np.testing.assert_array_equal(texels.index, np.arange(64))
    row, column = np.divmod(texels.index, 8)
    centre = np.stack([column + 0.5, 8 - row - 0.5], axis=1) / 8  # (0, 0) is the bottom left corner
    np.testing.assert_allclose(np.einsum("pk,pkc->pc", texels.barycentric, square[texels.face]), centre, atol=1e-12)
    np.testing.assert_allclose(texels.barycentric.sum(axis=1), 1)
    above = centre[:, 1] > centre[:, 0]
    assert (texels.face[above] == 1).all() and (texels.face[centre[:, 1] < centre[:, 0]] == 0).all()


def test_triangles_cover_as_many_texels_as_their_area_in_any_number_and_size():
    rng = np.random.default_rng(0)
    side = np.linspace(0, 1, 42)
    x, y = np.meshgrid(side, side)
    places = np.stack([x, y], axis=-1)
    places[1:-1, 1:-1] += rng.uniform(-0.005, 0.005, (40, 40, 2))
    a, b, c, d = (p.reshape(-1, 2) for p in (places[:-1, :-1], places[:-1, 1:], places[1:, 1:], places[1:, :-1]))
    uv = np.concatenate([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)])
    texels = rasterise(uv, 1500)
    assert len(texels.index) == 1500**2  # no gaps
    counts = np.bincount(texels.face, minlength=len(uv))
    np.testing.assert_allclose(counts, areas(uv) * 1500**2, rtol=0.1)


def test_triangles_outside_and_without_area_cover_nothing():
    uv = np.array([[[0.2, 0.2]] * 3, [[2, 2], [3, 2], [2, 3]], [[0.1, 0.1], [0.5, 0.5], [0.9, 0.9]]], dtype=float)
    assert not len(rasterise(uv, 16).index)


def test_padding_repeats_the_nearest_texel():
    texture = np.zeros((4, 6), dtype=np.uint8)
    texture[1, 1], texture[2, 5] = 10, 20
    padded = pad(texture, np.array([1 * 6 + 1, 2 * 6 + 5]))
    np.testing.assert_array_equal(padded[1], [10, 10, 10, 10, 20, 20])
    assert padded[1, 1] == 10 and padded[2, 5] == 20 and padded[3, 0] == 10 and padded[0, 5] == 20
