"""Reconstruction from drawn views: cameras, silhouettes, visual hull, fit, consistency and redrawing."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from conf.options import UserError
from inference.config import Sampling
from inference.meshes.ray_casting import RayCaster
from inference.meshes.textured_mesh import TexturedMesh
from inference.poses import cameras_after
from inference.reconstruction.config import ViewsSettings
from inference.reconstruction.guidance.guide import DrawnViews
from inference.reconstruction.guidance.oracle_guide import OracleGuide
from inference.reconstruction.guidance.silhouette import silhouette
from inference.reconstruction.monitor import Monitor
from inference.reconstruction.posed_views import PosedViews
from inference.reconstruction.views.fit import fit_views, refined, start, to_tensors
from inference.reconstruction.views.guesses import consistency, draw_guesses, posed
from inference.reconstruction.views.method import reconstruct_from_views, redrawn
from inference.reconstruction.views.render_views import render_views, seen_by_first
from inference.reconstruction.views.ring import ring_cameras
from inference.reconstruction.views.visual_hull import visual_hull
from rendering.cameras import camera_centre, cartesian_to_spherical

SETTINGS = ViewsSettings(
    elevations=[-30.0, 10.0, 50.0],
    count=6,
    nodes=[32, 48],
    epochs=[10, 4],
    guesses=1,
    rounds=0,
    tolerated=0.0,
    smoothness=0.02,
)
CPU = torch.device("cpu")
CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / 2
# Faces of the box by side, counter-clockwise as seen from outside: -x, +x, -y, +y, -z, +z.
SIDES = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
COLOURS = np.array([[40, 40, 200], [200, 40, 40], [40, 180, 40], [190, 180, 40], [120, 60, 20], [60, 190, 190]])


def box(size: tuple[float, float, float] = (0.6, 1.0, 0.4)) -> TexturedMesh:
    faces = np.concatenate([SIDES[:, [0, 1, 2]], SIDES[:, [0, 2, 3]]])
    textures = tuple(np.append(colour, 255).astype(np.uint8)[None, None] for colour in COLOURS)
    material = np.tile(np.arange(6), 2)
    return TexturedMesh(CORNERS * size, faces, np.zeros((12, 3, 2)), material, textures)


def oracle(mesh: TexturedMesh, resolution: int = 48) -> OracleGuide:
    return OracleGuide(RayCaster(mesh), cameras_after([(0, 0, 0)], 20.0)[0], resolution)


def ignore(done: int, total: int) -> None:
    pass


def views_of(guide: OracleGuide, settings: ViewsSettings = SETTINGS) -> PosedViews:
    cameras = ring_cameras(guide.input_camera, settings.elevations, settings.count)
    photograph = guide.draw(guide.input_camera[None], 0, ignore)
    return posed(guide.input_camera, photograph, cameras, guide.draw(cameras, 0, ignore), settings)


def test_rings_keep_the_distance_and_start_at_the_input():
    cameras = ring_cameras(cameras_after([(0, 0, 0)], 20.0, radius=1.7)[0], [0.0, 45.0], 4)
    places = np.array([cartesian_to_spherical(camera_centre(camera)) for camera in cameras])
    np.testing.assert_allclose(places[:, 2], 1.7)
    np.testing.assert_allclose(np.degrees(places[:, 0]), [90] * 4 + [45] * 4)
    np.testing.assert_allclose(np.degrees(places[:, 1]) % 360, [0, 90, 180, 270, 45, 135, 225, 315])


def test_the_silhouette_fills_white_parts_and_drops_specks():
    picture = np.full((20, 20, 3), 255, dtype=np.uint8)
    picture[5:15, 5:15] = 60
    picture[9:11, 9:11] = 255  # a white button
    picture[1, 1] = 0  # noise
    mask = silhouette(picture)
    assert mask[5:15, 5:15].min() == 1
    assert mask.sum() == 100


def test_the_hull_is_where_all_silhouettes_are_but_the_tolerated_ones():
    views = to_tensors(views_of(oracle(box())), CPU)
    points = torch.tensor([[0.0, 0, 0], [0.25, 0.4, 0.15], [0, 0, 0.45], [0.45, 0, 0]])
    assert (visual_hull(points, views.cameras_N34, views.masks_NRR) > 0.5).tolist() == [True, True, False, False]
    blank = views.masks_NRR.clone()
    blank[3] = 0  # one drawn view is empty
    assert visual_hull(points, views.cameras_N34, blank).max() == 0
    assert (visual_hull(points, views.cameras_N34, blank, tolerated=1) > 0.5).tolist()[:2] == [True, True]
    blank[0] = 0  # the photograph is never tolerated
    assert visual_hull(points, views.cameras_N34, blank, tolerated=1).max() == 0


def test_a_fit_to_the_true_views_has_the_box_and_its_colours():
    guide = oracle(box())
    guess = draw_guesses(guide, guide.draw(guide.input_camera[None], 0, ignore), SETTINGS, 0, Monitor())[0]
    field = reconstruct_from_views(guide, guess, SETTINGS, 0, Monitor())
    nodes = np.linspace(-field.half_side, field.half_side, len(field.density))
    x, y, z = np.meshgrid(nodes, nodes, nodes, indexing="ij")
    truth = (abs(x) < 0.3) & (abs(y) < 0.5) & (abs(z) < 0.2)
    solid = field.density * (nodes[1] - nodes[0]) > 0.3
    filled = solid.copy()
    for axis in range(3):  # the inside is not seen, and may be empty
        between = np.maximum.accumulate(solid, axis) & np.flip(np.maximum.accumulate(np.flip(solid, axis), axis), axis)
        filled |= between
    assert (filled & truth).sum() / (filled | truth).sum() > 0.8
    sides = np.array([[0.29, 0, 0], [-0.29, 0, 0], [0, 0.49, 0], [0, 0, 0.19]])
    np.testing.assert_allclose(field.colour_at(sides) * 255, COLOURS[[1, 0, 3, 5]], atol=40)
    assert field.scores["photograph_db"] > 20
    assert field.scores["consistency_db"] > 12


def test_equal_seeds_give_equal_fits():
    views = to_tensors(views_of(oracle(box(), 32)), CPU)
    quick = replace(SETTINGS, nodes=[24], epochs=[2])
    one, two, other = (fit_views(views, quick, seed).raw for seed in (3, 3, 4))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_a_fit_that_leaves_nothing_opaque_is_an_error_of_the_user():
    grid = start(to_tensors(views_of(oracle(box())), CPU), 32, SETTINGS)
    assert refined(grid, 48).active.any()
    with torch.no_grad():
        grid.raw[:, 0] = -5.0
    with pytest.raises(UserError, match="contradict each other"):
        refined(grid, 48)


def test_views_that_contradict_each_other_are_less_consistent():
    right, turned = views_of(oracle(box())), views_of(oracle(box()))
    order = np.r_[0, np.roll(np.arange(1, len(turned.cameras)), 2)]
    wrong = PosedViews(turned.cameras, turned.pictures[order], turned.masks[order], turned.weights)
    tolerant = replace(SETTINGS, tolerated=0.3)
    assert consistency(right, tolerant, 0, CPU) > consistency(wrong, tolerant, 0, CPU) + 2


def test_views_without_a_common_point_are_an_error():
    guide = oracle(box(), 32)
    views = views_of(guide)
    empty = DrawnViews(np.full_like(views.pictures[:1], 255), np.zeros_like(views.masks[:1]))
    with pytest.raises(UserError, match="silhouette is empty"):
        draw_guesses(guide, empty, SETTINGS, 0, Monitor())
    views.masks[1:] = 0
    with pytest.raises(UserError, match="contradict each other"):
        fit_views(to_tensors(views, CPU), SETTINGS, 0)


@pytest.mark.parametrize("width", [0.02, 0.03])
def test_a_thin_object_has_a_hull(width):
    views = to_tensors(views_of(oracle(box((width, width, 1.0)), 96)), CPU)
    grid = start(views, 64, SETTINGS)
    places = grid.positions()  # of the active nodes: those in the hull and beside it
    assert places[:, 2].min() < -0.4 and places[:, 2].max() > 0.4
    assert places[:, :2].abs().max() < width / 2 + 0.05


def test_drawn_views_are_kept_when_drawing_is_interrupted(tmp_path, monkeypatch):
    guide, settings, state = (
        oracle(box(), 32),
        replace(SETTINGS, nodes=[24], epochs=[1], guesses=2),
        tmp_path / "state.npz",
    )
    photograph, draw, seeds = guide.draw(guide.input_camera[None], 0, ignore), guide.draw, []

    def interrupted(cameras, seed, on_step):
        seeds.append(seed)
        if seeds == [5, 6]:
            raise KeyboardInterrupt
        return draw(cameras, seed, on_step)

    monkeypatch.setattr(guide, "draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw_guesses(guide, photograph, settings, 5, Monitor(), state)
    guesses = draw_guesses(guide, photograph, settings, 5, Monitor(), state)
    assert seeds == [5, 6, 6]
    whole = draw_guesses(guide, photograph, settings, 5, Monitor())
    for one, two in zip(guesses, whole, strict=True):
        assert (one.seed, one.consistency_db) == (two.seed, two.consistency_db)
        assert np.array_equal(one.views.masks, two.views.masks)
    state.write_bytes(state.read_bytes()[:200])
    with pytest.raises(UserError, match=r"state\.npz"):
        draw_guesses(guide, photograph, settings, 5, Monitor(), state)


def test_the_seed_after_the_last_is_the_first():
    class Drawing(OracleGuide):
        def draw(self, cameras, seed, on_step):
            Sampling(seed=seed)  # as a checkpoint's guide, which refuses seeds out of range
            return super().draw(cameras, seed, on_step)

    guide = Drawing(RayCaster(box()), cameras_after([(0, 0, 0)], 20.0)[0], 32)
    photograph = guide.draw(guide.input_camera[None], 0, ignore)
    settings = replace(SETTINGS, nodes=[24], epochs=[1], guesses=2)
    guesses = draw_guesses(guide, photograph, settings, 2**32 - 1, Monitor())
    assert {guess.seed for guess in guesses} == {2**32 - 1, 0}


def test_the_input_sees_its_side_only():
    guide = oracle(box())
    views = views_of(guide)
    grid = fit_views(to_tensors(views, CPU), SETTINGS, 0)
    cameras = np.concatenate([guide.input_camera[None], cameras_after([(0, 180, 0), (0, 40, 0)], 20.0)])
    seen = seen_by_first(render_views(grid, cameras, 48), cameras)
    covered = render_views(grid, cameras, 48).opacity > 0.5
    share = [seen[i].sum() / covered[i].sum() for i in range(3)]
    assert share[0] > 0.95  # itself
    assert share[1] < 0.5  # the back: nothing but the top
    assert 0.5 < share[2] < 0.95


def test_redrawing_keeps_what_the_photograph_sees():
    guide = oracle(box())
    views = views_of(guide)
    grid = fit_views(to_tensors(views, CPU), SETTINGS, 0)

    class Red(OracleGuide):
        def redraw(self, cameras, pictures, strength, seed, on_step):
            red = np.zeros_like(pictures)
            red[..., 0] = 255
            return DrawnViews(red, np.ones(red.shape[:3], np.float32))

    red = Red(guide.caster, guide.input_camera, guide.resolution)
    new = redrawn(red, grid, views, 0.5, 0, Monitor(), "round")
    assert np.array_equal(new.pictures[0], views.pictures[0])  # the photograph itself
    front, back = (np.abs(views.pictures[1:].astype(int) - COLOURS[side]).max(axis=3) < 4 for side in (1, 0))
    assert np.median(np.abs(new.pictures[1:][front].astype(int) - COLOURS[1]).max(axis=1)) < 20
    assert np.median(np.abs(new.pictures[1:][back].astype(int) - [255, 0, 0]).max(axis=1)) < 20


def test_angles_of_rings_are_angles_above_the_horizon():
    low, high = ring_cameras(cameras_after([(0, 0, 0)], 0.0)[0], [-30.0, 60.0], 1)
    assert camera_centre(low)[2] == pytest.approx(-1.85 / 2)
    assert camera_centre(high)[2] == pytest.approx(1.85 * math.sin(math.radians(60)))
