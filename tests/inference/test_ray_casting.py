"""Rays hit the surfaces, colours and shadows that follow by hand."""

import math

import numpy as np
import pytest
import trimesh

from inference.meshes.ray_casting import RayCaster, pixel_rays
from inference.meshes.textured_mesh import TexturedMesh
from rendering.cameras import FOV_DEGREES, camera_centre, look_at_origin, orbit, project

WHITE = np.full((1, 1, 4), 255, dtype=np.uint8)
CORNERS = np.array([[0, -0.5, -0.5], [0, 0.5, -0.5], [0, 0.5, 0.5], [0, -0.5, 0.5]])  # of a square that faces +x
SQUARE_UV = np.array([[[0, 0], [1, 0], [1, 1]], [[0, 0], [1, 1], [0, 1]]], dtype=float)
FROM_X = look_at_origin([2.0, 0, 0])


def squares(*textures: np.ndarray, spacing: float = 0.1, uv: np.ndarray = SQUARE_UV) -> TexturedMesh:
    """Return squares at x = 0, -spacing, …, one for each texture."""
    count = len(textures)
    return TexturedMesh(
        vertices=np.concatenate([CORNERS - (spacing * number, 0, 0) for number in range(count)]),
        faces=np.concatenate([np.array([[0, 1, 2], [0, 2, 3]]) + 4 * number for number in range(count)]),
        uv=np.tile(uv, (count, 1, 1)),
        material=np.repeat(np.arange(count), 2),
        textures=textures,
    )


def plain(solid: trimesh.Trimesh) -> TexturedMesh:
    faces = len(solid.faces)
    return TexturedMesh(
        np.array(solid.vertices), np.array(solid.faces), np.zeros((faces, 3, 2)), np.zeros(faces, dtype=int), (WHITE,)
    )


def test_first_hits_have_the_distance_face_and_weights_of_the_point():
    caster = RayCaster(squares(WHITE, WHITE))
    directions = [[-1, 0, 0], [-5, 0, 0], [1, 0, 0], [1, 0, 0]]
    hits = caster.first_hits([[1, 0.2, -0.3], [1, -0.2, 0.3], [-1, 0.2, -0.3], [1, 0, 0]], directions)
    np.testing.assert_allclose(hits.distance, [1, 1, 0.9, np.inf], atol=1e-6)  # from behind the second is first
    assert hits.face.tolist() == [0, 1, 2, -1]
    np.testing.assert_allclose(hits.barycentric[0], (0.3, 0.5, 0.2), atol=1e-6)
    corners = caster.mesh.vertices[caster.mesh.faces[hits.face[:3]]]
    points = np.einsum("nk,nkc->nc", hits.barycentric[:3], corners)
    np.testing.assert_allclose(points, [[0, 0.2, -0.3], [0, -0.2, 0.3], [-0.1, 0.2, -0.3]], atol=1e-6)
    assert not hits.barycentric[3].any() and not caster.colours(hits)[3].any()


def test_textures_are_interpolated_and_repeat():
    texture = np.zeros((2, 2, 4), dtype=np.uint8)
    texture[..., 0], texture[..., 3] = [[0, 100], [200, 40]], 255  # the row 0 is the upper one
    for uv in (SQUARE_UV, SQUARE_UV - 3, SQUARE_UV + 5):
        caster = RayCaster(squares(texture, uv=uv))
        places = [[1, -0.25, 0.25], [1, 0.25, 0.25], [1, 0.25, -0.25], [1, 0, 0.25], [1, 0, 0], [1, 0.4999, 0.25]]
        red = 255 * caster.colours(caster.first_hits(places, np.tile([-1.0, 0, 0], (6, 1))))[:, 0]
        # At centres of texels, between two, between four, and at the edge between the last and the first.
        np.testing.assert_allclose(red, [0, 100, 40, 50, 85, 50], atol=0.1)


def test_vertex_colours_multiply_the_texture():
    mesh = squares(np.full((1, 1, 4), (200, 100, 50, 255), dtype=np.uint8))
    colours = np.array([[255, 0, 0], [255, 255, 0], [255, 255, 0], [255, 0, 0]], dtype=np.uint8)  # green grows along y
    caster = RayCaster(TexturedMesh(**{**vars(mesh), "vertex_colours": colours}))
    rgba = caster.colours(caster.first_hits([[1, 0.25, 0.1]], [[-1, 0, 0]]))
    # 3/4 of the linear green: 100 is 0.1274, and 0.0956 is 87.
    np.testing.assert_allclose(255 * rgba[0], (200, 87.3, 0, 255), atol=0.3)


def test_transparent_texels_show_the_surface_behind():
    leaf = np.full((64, 64, 4), (0, 255, 0, 255), dtype=np.uint8)
    leaf[:, :32] = (255, 255, 255, 0)  # the half at negative y
    red = np.full((1, 1, 4), (255, 0, 0, 255), dtype=np.uint8)
    picture = RayCaster(squares(leaf, leaf, red)).render([FROM_X], 64)[0]
    assert picture[32, 24].tolist() == [255, 0, 0, 255] and picture[32, 40].tolist() == [0, 255, 0, 255]
    alone = RayCaster(squares(leaf)).render([FROM_X], 64)[0]
    assert alone[32, 24].tolist() == [0, 0, 0, 0] and alone[32, 40].tolist() == [0, 255, 0, 255]
    edge = alone[alone[..., 3] > 0]
    assert (edge[:, :3] == (0, 255, 0)).all()  # neither background nor hidden colours bleed into the edge


def test_many_transparent_layers_end():
    clear = np.zeros((1, 1, 4), dtype=np.uint8)
    caster = RayCaster(squares(*[clear] * 70, WHITE, spacing=0.01))
    assert caster.first_hits([[1, 0, 0.1]], [[-1, 0, 0]]).face[0] // 2 == 64


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_the_picture_of_a_cube_has_the_size_of_its_projection(samples):
    caster = RayCaster(plain(trimesh.creation.box((0.4, 0.4, 0.4))))
    picture = caster.render([FROM_X], 90, samples_per_axis=samples)[0]
    side = 90 * 0.4 / 1.8 / (2 * math.tan(math.radians(FOV_DEGREES) / 2))
    assert picture[..., 3].sum() / 255 == pytest.approx(side**2, rel=0.1 / samples)
    assert (picture[picture[..., 3] > 0][:, :3] == 255).all()
    np.testing.assert_array_equal(picture, picture[::-1, ::-1])


def test_pixels_lie_where_the_projection_puts_them():
    point = np.array([0.1, -0.25, 0.3])
    small = trimesh.creation.box((0.06, 0.06, 0.06))
    small.apply_translation(point)
    caster = RayCaster(plain(small))
    cameras = orbit(5, 1.0, 1.8)
    for camera, alpha in zip(cameras, caster.render(cameras, 96)[..., 3].astype(float), strict=True):
        rows, columns = np.mgrid[:96, :96] + 0.5
        centroid = np.array([(alpha * columns).sum(), (alpha * rows).sum()]) / alpha.sum()
        np.testing.assert_allclose(centroid, project(point[None], camera, 96)[0], atol=0.2)


@pytest.mark.parametrize("place", [(0.3, -0.4, 0.2), (0.2, 0.9, 0.1), (0, 3, 0), (1.7, 0.1, 0), (5, 0, 0)])
def test_no_ray_outside_of_the_drawn_pixels_hits(place):
    """A sphere within the picture, across its edge, beside it, around the camera and behind it."""
    sphere = trimesh.creation.icosphere(subdivisions=2, radius=0.35)
    sphere.apply_translation(place)
    caster, camera, side = RayCaster(plain(sphere)), look_at_origin([1.8, 0, 0]), 40
    directions = pixel_rays(camera, side, FOV_DEGREES)
    hits = caster.first_hits(np.broadcast_to(camera_centre(camera), directions.shape), directions)
    hit = (hits.face >= 0).reshape(side, side)
    drawn = caster.render([camera], side, samples_per_axis=1)[0, ..., 3] > 0
    np.testing.assert_array_equal(drawn, hit)
    assert hit.any() == (place[1] < 3 and place[0] < 5)


def test_a_sphere_is_visible_where_it_faces_the_camera():
    sphere = trimesh.creation.icosphere(subdivisions=4, radius=0.5)
    centre = camera_centre(look_at_origin([1.2, 0.5, 0.8]))
    facing = np.einsum("nk,nk->n", sphere.face_normals, centre - sphere.triangles_center) > 0
    visible = RayCaster(plain(sphere)).visible(sphere.triangles_center, sphere.face_normals, centre)
    np.testing.assert_array_equal(visible, facing)
    assert 0.1 < visible.mean() < 0.5


def test_visibility_ends_at_the_camera_and_at_surfaces_between():
    caster = RayCaster(squares(WHITE, WHITE))
    back = np.array([[-0.1, 0.1, 0.2], [-0.1, 0.1, 0.2]])
    assert caster.visible(back, [[1, 0, 0], [-1, 0, 0]], [2, 0, 0]).tolist() == [False, False]
    assert caster.visible(back, [[1, 0, 0], [-1, 0, 0]], [-2, 0, 0]).tolist() == [False, True]
    assert caster.visible(back[:1], [[1, 0, 0]], [-0.05, 0, 0]).tolist() == [True]  # the camera is between both


def test_hits_do_not_depend_on_the_number_of_rays_at_once(monkeypatch):
    caster = RayCaster(plain(trimesh.creation.icosphere(subdivisions=2, radius=0.4)))
    whole = caster.render(orbit(2, 1.0, 1.8), 32)
    monkeypatch.setattr("inference.meshes.ray_casting.RAYS_AT_ONCE", 500)
    np.testing.assert_array_equal(whole, caster.render(orbit(2, 1.0, 1.8), 32))
