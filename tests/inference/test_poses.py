import json
import math

import numpy as np
import pytest

from conf.options import UserError
from inference.poses import (
    camera_elevation,
    camera_turns,
    cameras_after,
    grid_turns,
    input_position,
    orbit_turns,
    parse_turns,
    pose_vectors,
    read_cameras,
)
from rendering.cameras import look_at_origin, relative_pose, spherical_to_cartesian
from training.model.conditioning import PoseVector


def test_an_orbit_starts_at_the_input_camera():
    assert orbit_turns(4) == [(0, 0, 0), (0, 90, 0), (0, 180, 0), (0, 270, 0)]


def test_a_grid_goes_from_above_to_below():
    turns = grid_turns("3x2")
    assert turns == [(-30, 0, 0), (-30, 180, 0), (0, 0, 0), (0, 180, 0), (30, 0, 0), (30, 180, 0)]
    assert grid_turns("1x2") == [(0, 0, 0), (0, 180, 0)]


def test_cameras_become_the_relative_poses_of_training():
    """The vector of a turn between two cameras is the relative pose that training computes from them."""
    rng = np.random.default_rng(0)
    cameras = np.stack([look_at_origin(c) for c in rng.normal(size=(6, 3))])
    turns = camera_turns(cameras, 2, "")
    others = [camera for i, camera in enumerate(cameras) if i != 2]
    expected = [relative_pose(camera, cameras[2]) for camera in others]
    np.testing.assert_allclose(pose_vectors(turns, PoseVector.zero123, None), expected, atol=1e-12)
    assert all(-180 <= azimuth < 180 for _, azimuth, _ in turns)


def test_turns_to_cameras_and_back():
    turns = [(20.0, 45.0, 0.1), (-30.0, -90.0, 0.0), (0.0, 0.0, 0.0)]
    cameras = cameras_after(turns, elevation_degrees=10)
    # The last is the input's own: 10° above the horizon, at azimuth 0, looking at the origin.
    centre = 1.85 * np.array([math.cos(math.radians(10)), 0, math.sin(math.radians(10))])
    np.testing.assert_allclose(cameras[2], look_at_origin(centre), atol=1e-12)
    np.testing.assert_allclose(camera_turns(cameras, 2, ""), turns[:2], atol=1e-9)


def test_elevation_of_the_input_camera_is_read_from_a_file(tmp_path):
    up = math.radians(35)
    cameras = np.stack([look_at_origin(2 * np.array(c)) for c in ([1, 0, 0], [0, math.cos(up), math.sin(up)])])
    np.save(tmp_path / "cameras.npy", cameras)
    assert camera_elevation(str(tmp_path / "cameras.npy"), 0) == pytest.approx(0, abs=1e-9)
    assert camera_elevation(str(tmp_path / "cameras.npy"), 1) == pytest.approx(35, abs=1e-9)


def test_pose_vector_of_stable_zero123_holds_the_polar_angle_of_the_input():
    turns = [(10.0, 90.0, 0.5)]
    np.testing.assert_allclose(
        pose_vectors(turns, PoseVector.stable_zero123, 30.0), [[math.radians(10), 1, 0, math.radians(60)]], atol=1e-12
    )
    with pytest.raises(UserError, match=r"give elevation=20"):
        pose_vectors(turns, PoseVector.stable_zero123, None)


def test_cameras_are_read_from_files(tmp_path):
    cameras = np.stack([look_at_origin(spherical_to_cartesian(1.0, azimuth, 1.5)) for azimuth in (0, 1, 2)])
    np.save(tmp_path / "cameras.npy", cameras)
    (tmp_path / "cameras.json").write_text(json.dumps(cameras.tolist()))
    for name in ("cameras.npy", "cameras.json"):
        np.testing.assert_array_equal(read_cameras(str(tmp_path / name)), cameras)


def write(path, contents):
    if isinstance(contents, np.ndarray):
        np.save(path.with_suffix(".npy"), contents)
        return str(path.with_suffix(".npy"))
    path.with_suffix(".json").write_text(contents)
    return str(path.with_suffix(".json"))


@pytest.mark.parametrize(
    ("contents", "sentence"),
    [
        (np.zeros((3, 4)), r"cameras=.*float64 \[3, 4\]"),
        (np.full((2, 3, 4), np.nan), "cameras=.*finite"),
        (np.ones((2, 3, 4)), "cameras=.*rotation"),
        (np.diag([1, 1, -1.0, 1])[None, :3] + [0, 0, 0, 2], "cameras=.*rotation"),  # mirrored
        (np.eye(4)[None, :3], "cameras=.*centre"),
        (np.array([{}], dtype=object), "neither an .npy file nor"),  # a pickle, which is not opened
        ("{", "neither an .npy file nor"),
        ("[" * 100_000, "neither an .npy file nor"),
        (f"[[[{10**400}]]]", "neither an .npy file nor"),
        ('{"a": 1}', "neither an .npy file nor"),
    ],
    ids=["flat", "nan", "no rotation", "mirror", "centre", "pickle", "half", "deep", "huge", "object"],
)
def test_invalid_camera_files_are_refused(tmp_path, contents, sentence):
    with pytest.raises(UserError, match=sentence):
        read_cameras(write(tmp_path / "x", contents))


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({}, "give one of poses, orbit, grid and cameras, not none"),
        ({"orbit": 3, "grid": "2x2"}, "not orbit and grid"),
        ({"poses": [[0, 0, 0]] * 10_000}, "poses: give 1 to 1000, not 10000"),
        ({"poses": [[0, float("nan"), 0]]}, r"poses: \[0, nan, 0\] "),
        ({"poses": [[0, True, "x"]]}, r"poses: \[0, True"),
        ({"poses": [[0, 10**400, 0]]}, r"poses: \[0, 10"),
        ({"poses": [[0, 0, 1e308]]}, r"poses: \[0, 0, 1e\+308"),
        ({"poses": [[0, 0, -1.85]]}, "through the object's centre"),
        ({"orbit": -1}, "orbit: give 1 to 1000, not -1"),
        ({"orbit": 10_000}, "orbit: give 1 to 1000, not 10000"),
        ({"grid": "3"}, "grid=3: "),
        ({"grid": "100x100"}, "grid: give 1 to 1000, not 10000"),
        ({"grid": "0x5"}, "grid: give 1 to 1000, not 0"),
        ({"cameras": "nothing.npy"}, "cameras=nothing.npy: "),
        ({"orbit": 3, "input_camera": 1}, "input_camera=1: .*; give cameras too"),
    ],
)
def test_invalid_turns_are_refused(asked, sentence):
    given = {"poses": [], "orbit": 0, "grid": "", "cameras": "", "input_camera": 0, **asked}
    with pytest.raises(UserError, match=sentence):
        parse_turns(**given)


@pytest.mark.parametrize("contents", [b"", np.lib.format.magic(1, 0)])
def test_a_truncated_camera_file_is_refused(tmp_path, contents):
    (tmp_path / "x.npy").write_bytes(contents)
    with pytest.raises(UserError, match="neither an .npy file nor"):
        read_cameras(str(tmp_path / "x.npy"))


def test_an_npy_header_larger_than_memory_is_refused(tmp_path):
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**14, 3, 4)})
    with pytest.raises(UserError, match="neither an .npy file nor"):
        read_cameras(str(tmp_path / "x.npy"))


def test_cameras_farther_away_than_in_training_may_come_nearer(tmp_path):
    cameras = [look_at_origin(spherical_to_cartesian(1.0, 0.0, radius)) for radius in (4, 2)]
    np.save(tmp_path / "cameras.npy", np.stack(cameras))
    ((polar, azimuth, radius),) = parse_turns([], 0, "", str(tmp_path / "cameras.npy"), 0)
    assert (polar, azimuth, radius) == pytest.approx((0, 0, -2))


def test_the_cameras_after_the_turns_of_a_file_are_those_of_the_file(tmp_path):
    degrees = [(60, 40, 1.5), (80, 100, 2.0), (30, -170, 4.0)]
    cameras = [look_at_origin(spherical_to_cartesian(math.radians(p), math.radians(a), r)) for p, a, r in degrees]
    np.save(tmp_path / "cameras.npy", np.stack(cameras))
    path = str(tmp_path / "cameras.npy")
    turns, position = parse_turns([], 0, "", path, 0), input_position(path, 0)
    again = cameras_after(turns, camera_elevation(path, 0), position.radius, position.azimuth_degrees)
    np.testing.assert_allclose(again, cameras[1:], atol=1e-8)
