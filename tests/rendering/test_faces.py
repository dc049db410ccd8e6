"""Coincident faces and parts turned inside out, on meshes of a few faces."""

import numpy as np
import pytest

from rendering import faces
from rendering.asset_validation.obj_faces import has_reversed, split_reversed
from tests.support.parts import BOX, QUADS, TRIANGLES

OTHER_DIAGONALS = np.concatenate([QUADS[:, [1, 2, 3]], QUADS[:, [1, 3, 0]]])


def mesh(*parts):
    """Return corners and starts of polygons, given as one array for each size of polygon."""
    corners = np.concatenate([part.ravel() for part in parts])
    sizes = np.concatenate([np.full(len(part), part.shape[1]) for part in parts])
    return corners, np.r_[0, np.cumsum(sizes)[:-1]]


def test_a_closed_mesh_has_no_coincident_faces():
    for polygons in (TRIANGLES, QUADS):
        assert not faces.overlaps(BOX.astype(float), *mesh(polygons)).any.any()


@pytest.mark.parametrize("copy", [TRIANGLES, OTHER_DIAGONALS, QUADS], ids=["same", "other diagonals", "quads"])
def test_a_copy_of_opposite_orientation_is_found(copy):
    found = faces.overlaps(BOX.astype(float), *mesh(TRIANGLES, copy[:, ::-1]))
    assert found.any.all() and found.reversed.all() and not found.repeated.any()
    assert found.later.tolist() == [False] * 12 + [True] * len(copy)


@pytest.mark.parametrize("copy", [TRIANGLES, OTHER_DIAGONALS], ids=["same", "other diagonals"])
def test_a_copy_of_equal_orientation_is_found(copy):
    found = faces.overlaps(BOX.astype(float), *mesh(TRIANGLES, copy))
    assert found.any.all() and not found.reversed.any()
    assert found.repeated.tolist() == [False] * 12 + [True] * 12


def test_the_two_sides_of_a_box_are_two_layers():
    """The faces are interleaved and have separate vertices."""
    both = np.stack([TRIANGLES, TRIANGLES[:, ::-1]], axis=1).reshape(-1, 3)
    points, corners = BOX.astype(float)[both].reshape(-1, 3), np.arange(both.size)
    layer = faces.overlaps(points, corners, np.arange(0, both.size, 3)).layer
    assert len(set(layer[::2])) == len(set(layer[1::2])) == 1 and layer[0] != layer[1]


def test_layers_move_apart_without_gaps():
    """Vertices of one layer in one place stay in one place."""
    both = np.concatenate([TRIANGLES, TRIANGLES[:, ::-1]])
    points, corners, starts = BOX.astype(float)[both].reshape(-1, 3), np.arange(both.size), np.arange(0, both.size, 3)
    found = faces.overlaps(points, corners, starts)
    moved = points + faces.vertex_shifts(points, corners, starts, np.full(24, 1e-3), found.layer)
    front, back = moved[:36], moved[36:]
    assert len(np.unique(front.round(9), axis=0)) == len(np.unique(back.round(9), axis=0)) == 8
    assert np.abs(front).min() > 0.5 > np.abs(back).max()


def test_reversed_triangles_get_separate_vertices():
    triangles = np.array([[0, 1, 2], [1, 2, 3], [2, 1, 0], [1, 2, 0], [2, 1, 3]])
    split, sources = faces.split_reversed(triangles, 4)
    np.testing.assert_array_equal(split[:2], triangles[:2])
    assert split[[2, 4]].min() >= 4
    np.testing.assert_array_equal(np.r_[np.arange(4), sources][split[[2, 4]]], triangles[[2, 4]])
    assert len(set(split[3])) == 1  # [1, 2, 0] is [0, 1, 2] once more


def test_parts_that_are_turned_inside_out_are_found():
    """A box, a hull around it that is turned inside out, and an open sheet; faces have separate vertices."""
    triangles = np.concatenate([TRIANGLES, TRIANGLES[:, ::-1] + 8, np.array([[16, 17, 18]])])
    points = np.concatenate([BOX, 1.1 * BOX + 5, BOX[:3] + 9]).astype(float)[triangles].reshape(-1, 3)
    inward = faces.inward(points, np.arange(len(points)), np.arange(0, len(points), 3))
    assert inward.tolist() == [False] * 12 + [True] * 12 + [False]


def test_components_join_over_long_chains():
    order = np.random.default_rng(0).permutation(1000)
    chain = order[order != 500]  # 500 stays alone
    labels = faces.components(1000, chain[:-1], chain[1:])
    assert len(set(labels[chain])) == 1 and labels[500] == 500 != labels[chain[0]]


OBJ = b"""v 0 0 0
v 1 0 0
v 1 1 0
vt 0 0
usemtl front
f 1/1 2/1 3/1
usemtl back
s 1
f -1/-1 -2/-1 -3/-1
v 0 0 1
vn 0 0 1
f 1//1 2//1 4//1
"""


def test_a_reversed_face_of_an_obj_gets_separate_vertices():
    lines = OBJ.splitlines(keepends=True)
    split = list(split_reversed(lines))
    assert b"".join(split[:11]) == OBJ.replace(b"f -1/-1 -2/-1 -3/-1\n", b"")
    assert [line.split() for line in split[12:]] == [
        [b"v", b"1", b"1", b"0"], [b"v", b"1", b"0", b"0"], [b"v", b"0", b"0", b"0"],
        [b"usemtl", b"back"], [b"s", b"1"], [b"f", b"5/1", b"6/1", b"7/1"],
    ]  # fmt: skip
    assert has_reversed(OBJ) and not has_reversed(b"".join(split))
    assert has_reversed(OBJ.replace(b"f -1/-1 -2/-1 -3/-1", b"f 3/1 2/1 1/1"))
