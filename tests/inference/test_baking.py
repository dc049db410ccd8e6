"""Textures show the photograph where it sees the surface, then the other views, then the field."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from inference.meshes.ray_casting import RayCaster
from inference.meshes.textured_mesh import TexturedMesh
from inference.reconstruction.posed_views import PosedViews
from inference.reconstruction.surface.baking import (
    FIELD,
    PHOTOGRAPH,
    VIEWS,
    bake,
    source_texture,
    vertex_colours,
)
from inference.reconstruction.surface.texels import rasterise
from inference.reconstruction.surface.unwrapping import triangle_atlas
from rendering.cameras import orbit

RED, BLUE, GREEN = np.array([[200, 40, 30], [30, 60, 210], [20, 180, 60]])
RESOLUTION, SIZE = 96, 256
CAMERAS = orbit(8, np.radians(75), 1.9)


def arrays(mesh):
    return np.asarray(mesh.vertices, dtype=float), np.asarray(mesh.faces, dtype=np.int64)


def in_one_colour(vertices, faces, colour):
    texture = np.full((1, 1, 4), 255, dtype=np.uint8)
    texture[..., :3] = colour
    return TexturedMesh(vertices, faces, np.zeros((len(faces), 3, 2)), np.zeros(len(faces), dtype=np.int64), (texture,))


def pictures(mesh, cameras=CAMERAS, first_only=None, background=255):
    """Return views of a mesh; the photograph shows it in the colour `first_only`."""
    shown = RayCaster(mesh).render(cameras, RESOLUTION, samples_per_axis=4)
    if first_only is not None:
        shown[0, ..., :3] = np.where(shown[0, ..., 3:] > 0, first_only, 0)
    alpha = shown[..., 3:] / 255
    weights = np.array([3] + [1] * (len(cameras) - 1), dtype=np.float32)
    on_white = np.uint8(np.round(shown[..., :3] * alpha + background * (1 - alpha)))
    return PosedViews(cameras, on_white, alpha[..., 0].astype(np.float32), weights)


def green(points):
    return np.broadcast_to(GREEN / 255, points.shape)


def baked(vertices, faces, views, size=SIZE):
    """Return positions, faces, colours and sources of the texels on the surface."""
    uv, size = triangle_atlas(vertices, faces, size)
    texture, sources = bake(vertices, faces, uv, size, views, green)
    texels = rasterise(uv, size)
    colours = texture.reshape(-1, 4)[texels.index, :3].astype(int)
    return texels.interpolate(vertices, faces), texels.face, colours, sources.ravel()[texels.index]


def near(colours, colour):
    return np.abs(colours - colour).max(axis=1) <= 2


@pytest.fixture(scope="module")
def pot():
    """Return a cube with a deep narrow shaft from above, which views from the side do not look into."""
    outside = trimesh.creation.box((0.8, 0.8, 0.8))
    shaft = trimesh.creation.box((0.2, 0.2, 0.7))
    shaft.apply_translation((0, 0, 0.1))
    return arrays(trimesh.boolean.difference([outside, shaft], engine="manifold"))


@pytest.fixture(scope="module")
def pot_texels(pot):
    return baked(*pot, pictures(in_one_colour(*pot, BLUE), first_only=RED))


def test_the_front_is_the_photographs_the_back_the_views_and_a_hidden_pocket_the_fields(pot_texels):
    points, _, colours, sources = pot_texels
    inside = (np.abs(points[:, :2]).max(axis=1) < 0.15) & (points[:, 2] < 0.2)
    outside = np.abs(points[:, :2]).max(axis=1) > 0.39
    middle = outside & (np.abs(points).max(axis=1) < 0.41) & (np.sort(np.abs(points), axis=1)[:, 1] < 0.3)
    front = middle & (points[:, 0] > 0.39)
    back = middle & (np.abs(points[:, 2]) < 0.3) & (points[:, 0] < 0)
    for part, colour, source in ((front, RED, PHOTOGRAPH), (back, BLUE, VIEWS), (inside, GREEN, FIELD)):
        assert part.sum() > 100
        assert near(colours[part], colour).all() and (sources[part] == source).all()


def test_no_texel_has_the_colour_of_the_background(pot_texels):
    _, _, colours, _ = pot_texels
    # Mixtures of red, blue and green have sums of the channels between theirs, 260 to 300; white has 765.
    assert colours.sum(axis=1).min() > 255 and colours.sum(axis=1).max() < 305


@pytest.mark.parametrize("background", [0, 255])
def test_a_sphere_that_is_a_little_too_large_does_not_take_the_background(background):
    """The mesh reaches one pixel past the silhouette in the pictures, as an imperfect reconstruction does."""
    true = arrays(trimesh.creation.icosphere(4, radius=0.4))
    views = pictures(in_one_colour(*true, RED), background=background)
    pixel = 2 * np.tan(np.radians(49.13 / 2)) * 1.9 / RESOLUTION
    vertices, faces = arrays(trimesh.creation.icosphere(3, radius=0.4 + pixel))
    _, _, colours, sources = baked(vertices, faces, views)
    seen = sources != FIELD
    assert seen.mean() > 0.65
    # Between red and green there is no brightness of a white and none of a black background.
    weight = np.clip((colours - RED) @ (GREEN - RED) / ((GREEN - RED) ** 2).sum(), 0, 1)
    assert np.abs(colours - (RED + weight[:, None] * (GREEN - RED))).max() <= 6


def test_a_part_does_not_take_the_colour_of_another_one_before_it():
    near_ball, far_ball = (arrays(trimesh.creation.icosphere(3, radius=r)) for r in (0.08, 0.3))
    vertices = np.concatenate([near_ball[0] + [0.4, 0, 0], far_ball[0] - [0.25, 0, 0]])
    faces = np.concatenate([near_ball[1], far_ball[1] + len(near_ball[0])])
    colours = np.where(np.arange(len(vertices))[:, None] < len(near_ball[0]), RED, BLUE).astype(np.uint8)
    mesh = replace(in_one_colour(vertices, faces, 255), vertex_colours=colours)
    views = pictures(mesh, orbit(1, np.pi / 2, 1.9))
    _, face, colours, sources = baked(vertices, faces, views)
    far = face >= len(near_ball[1])
    seen = sources == PHOTOGRAPH
    assert colours[far, 0].max() <= BLUE[0] + 2  # no red: between blue and green
    assert (far & seen).sum() > 100 and (~far & seen).sum() > 100
    assert colours[~far, 2].max() <= GREEN[2] + 2  # no blue: between red and green


def test_a_view_without_weight_is_not_used(pot):
    views = pictures(in_one_colour(*pot, BLUE), CAMERAS[::4], first_only=RED)
    _, _, colours, sources = baked(*pot, replace(views, weights=np.array([1, 0], dtype=np.float32)))
    assert not (sources == VIEWS).any() and not near(colours, BLUE).any()


def test_a_pattern_returns_where_the_views_see_it():
    """A sphere in the colours of its directions, from pictures of it alone: the texture is not shifted or mirrored."""
    vertices, faces = arrays(trimesh.creation.icosphere(5, radius=0.45))

    def paint(points):
        return 0.5 + 0.4 * np.sin(9 * points + [0, 1, 2])

    mesh = replace(in_one_colour(vertices, faces, 255), vertex_colours=np.uint8(np.round(255 * paint(vertices))))
    coarse = arrays(trimesh.creation.icosphere(4, radius=0.45))
    points, _, colours, sources = baked(*coarse, pictures(mesh), size=512)
    seen = sources != FIELD
    assert seen.mean() > 0.65 and set(sources) == {PHOTOGRAPH, VIEWS, FIELD}
    error = np.abs(colours / 255 - paint(points))[seen & (np.abs(points[:, 2]) < 0.2)]
    assert error.mean() < 0.01 and np.percentile(error, 95) < 0.03
    of_vertices, sources = vertex_colours(*coarse, pictures(mesh), green)
    equator = (np.abs(coarse[0][:, 2]) < 0.3) & (sources != FIELD)
    assert equator.sum() > 1000 and np.abs(of_vertices / 255 - paint(coarse[0]))[equator].mean() < 0.01


def test_trust_fades_without_a_seam():
    vertices, faces = arrays(trimesh.creation.icosphere(4, radius=0.45))
    views = pictures(in_one_colour(vertices, faces, BLUE), first_only=RED)
    colours, sources = vertex_colours(vertices, faces, views, green)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    assert {PHOTOGRAPH, VIEWS} <= set(sources)
    step = np.abs(colours[edges[:, 0]].astype(int) - colours[edges[:, 1]]).max(axis=1)
    assert step.max() < 120  # of 180 between red and blue, on edges of about two pixels


def test_a_map_of_sources_has_a_colour_for_each():
    colours = source_texture(np.array([[PHOTOGRAPH, VIEWS], [FIELD, 0]], dtype=np.uint8))
    assert colours.shape == (2, 2, 4) and (colours[..., 3] == 255).all()
    assert len(np.unique(colours.reshape(-1, 4), axis=0)) == 4
