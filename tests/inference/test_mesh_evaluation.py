"""Folders of meshes are scored under each alignment; missing meshes are rows with a reason; values follow by hand."""

import csv
import json
from itertools import islice

import numpy as np
import pytest
import trimesh

from conf.options import UserError
from inference.evaluation.meshes.alignment import Cloud, best_yaw_degrees, icp_transform
from inference.evaluation.meshes.comparison import compare, predicted_shape, true_object
from inference.evaluation.meshes.definitions import PROTOCOLS, SCORES
from inference.evaluation.meshes.mesh_evaluation import evaluate_meshes, tasks
from inference.evaluation.meshes.mesh_folder import mesh_folder
from inference.evaluation.meshes.mesh_results import comparable, notes
from inference.evaluation.meshes.object_scores import MeshFile, ObjectTask, score_object, true_mesh
from inference.evaluation.meshes.visible_surface import visible_points, voxel_means
from inference.meshes.read_mesh import read_mesh
from inference.meshes.scores import chamfer, surface_points, volume_iou
from inference.meshes.textured_mesh import plain_mesh


def plain(solid: trimesh.Trimesh):
    return plain_mesh(np.array(solid.vertices, dtype=float), np.array(solid.faces))


def sphere(radius: float, subdivisions: int = 4):
    return plain(trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius))


def wedge() -> trimesh.Trimesh:
    """A solid without any symmetry, its bounding box centred, its longest side 1."""
    parts = [
        trimesh.creation.box((1, 0.3, 0.2)).apply_translation((0, 0, -0.2)),
        trimesh.creation.box((0.2, 0.6, 0.2)).apply_translation((0.4, 0.1, -0.1)),
        trimesh.creation.box((0.15, 0.15, 0.5)).apply_translation((-0.3, 0.05, 0.1)),
    ]
    solid = trimesh.util.concatenate(parts)
    low, high = solid.bounds
    return solid.apply_translation(-(low + high) / 2).apply_scale(1 / (high - low).max())


def turned(solid: trimesh.Trimesh, degrees: float) -> trimesh.Trimesh:
    return solid.copy().apply_transform(trimesh.transformations.rotation_matrix(np.radians(degrees), (0, 0, 1)))


def scores_of(prediction, truth) -> dict:
    return {one.alignment: one for one in compare(predicted_shape(prediction), true_object(truth))}


def unaligned(prediction, truth) -> dict:
    return next(compare(predicted_shape(prediction), true_object(truth))).scores


def test_concentric_spheres_score_the_difference_of_their_radii():
    none, yaw = (one.scores for one in islice(compare(predicted_shape(sphere(0.4)), true_object(sphere(0.5))), 2))
    assert none["chamfer"] == pytest.approx(0.1, rel=0.02)
    assert none["chamfer_squared"] == pytest.approx(0.01, rel=0.03)
    assert none["chamfer_visible"] == pytest.approx(0.1, rel=0.03)
    assert none["iou"] == pytest.approx(0.8**3, rel=0.03)
    assert none["iou_parity"] == pytest.approx(0.8**3, rel=0.08)  # 32 nodes along the diameter
    assert none["f_0.05"] == 0 and none["f_0.2"] == none["f_0.5"] == 1
    assert none["chamfer_vertices"] < 1e-9  # both are scaled to longest side 1
    assert yaw["chamfer"] < 0.006 and yaw["iou"] > 0.98 and yaw["f_0.01"] > 0.97
    assert set(none) == {score.name for score in SCORES}


def test_shifted_cubes_have_the_iou_of_their_overlap():
    cube = trimesh.creation.box((1, 1, 1))
    shifted = plain(cube.copy().apply_translation((0.125, 0, 0)))
    found = unaligned(shifted, plain(cube))
    assert found["chamfer"] == pytest.approx(chamfer(shifted, plain(cube)))  # as inference.reconstruct
    assert found["iou"] == volume_iou(shifted, plain(cube))
    for name in ("iou", "iou_parity"):  # the shift is four nodes of the grid of 64 on [-1, 1]
        assert found[name] == pytest.approx(0.875 / 1.125, rel=0.03)


def test_a_turned_shape_is_found_by_the_yaw_search():
    solid = wedge()
    prediction = turned(solid, -73.4).apply_scale(3).apply_translation((5, -2, 1))
    found = scores_of(plain(prediction), plain(solid))
    assert found["none"].scores["chamfer"] > 1 and found["none"].yaw_degrees is None
    assert found["yaw"].yaw_degrees == pytest.approx(73.4, abs=1)
    assert found["yaw"].scores["chamfer"] < 0.008 and found["yaw"].scores["iou"] > 0.93
    assert found["icp"].scores["chamfer"] <= found["yaw"].scores["chamfer"]
    assert np.linalg.norm(found["icp"].transform[0, :3]) == pytest.approx(1 / 3, rel=0.02)


def test_icp_undoes_a_small_motion_with_scale():
    solid = wedge()
    motion = trimesh.transformations.rotation_matrix(np.radians(6), (1, 2, 3)) * 1.05
    motion[:3, 3], motion[3, 3] = (0.03, -0.02, 0.02), 1
    moved = plain(solid.copy().apply_transform(motion))
    clouds = Cloud.of(surface_points(moved, 10_000, 1)), Cloud.of(surface_points(plain(solid), 10_000, 2))
    found = icp_transform(*clouds, np.eye(4))
    np.testing.assert_allclose(found, np.linalg.inv(motion), atol=0.01)


def test_the_yaw_of_a_copy_is_zero():
    mesh = plain(wedge())
    cloud = Cloud.of(surface_points(mesh, 5_000, 1)), Cloud.of(surface_points(mesh, 5_000, 2))
    assert (best_yaw_degrees(mesh.vertices, *cloud) + 180) % 360 == pytest.approx(180, abs=0.3)


def test_the_visible_surface_leaves_out_what_no_camera_sees():
    box, inner = trimesh.creation.box((1, 0.8, 0.6)), trimesh.creation.icosphere(subdivisions=3, radius=0.25)
    outside, filled = plain(box), plain(trimesh.util.concatenate([box, inner]))
    seen = visible_points(filled)
    np.testing.assert_array_equal(seen, visible_points(outside))
    assert np.abs(seen[:, 2]).min() < 0.3 and seen[:, 2].min() > -0.305
    top = seen[seen[:, 2] > 0.29]
    assert len(top) > 5_000  # of 8,000 voxels
    assert not (np.abs(seen[:, :2]) < (0.45, 0.35)).all(axis=1)[seen[:, 2] < 0].any()  # nothing is seen from below
    found = unaligned(filled, outside)
    assert found["chamfer_visible"] == 0 and found["chamfer"] > 0.015 and found["iou"] == 1
    assert found["iou_parity"] < 0.9  # the crossings of the inner sphere count


def test_visible_points_lie_half_a_pixel_above_the_surface():
    # Every camera moves its points half a pixel up and to the left in its picture, by 0.5 · 1.5 / 280. The shifts to
    # the left cancel over the circle of cameras; up has the vertical part cos 30°.
    square = plain_mesh(
        np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * 0.02, np.array([[0, 1, 2], [0, 2, 3]])
    )
    points = visible_points(square)
    assert points[:, 2].mean() == pytest.approx(0.5 * 1.5 / 280 * np.cos(np.radians(30)), rel=0.05)


def test_voxel_means_by_hand():
    points = np.array([[0, 0, 0], [0.4, 0, 0], [0.6, 0, 0], [2, 0, 0]])  # voxels from -0.5, 0.5 and 1.5
    np.testing.assert_allclose(voxel_means(points, 1.0), [[0.2, 0, 0], [0.6, 0, 0], [2, 0, 0]])


def test_the_vertices_depend_on_the_tessellation():
    coarse, fine = trimesh.creation.box((1, 1, 1)), trimesh.creation.box((1, 1, 1)).subdivide()
    found = unaligned(plain(coarse), plain(fine))
    assert found["chamfer"] < 0.006 and found["iou"] == found["iou_parity"] == 1
    # The cube has 8 corners; the fine one 12 + 6 more, at edges (1/2 from a corner) and in faces (√2/2).
    assert found["chamfer_vertices"] == pytest.approx((12 * 0.5 + 6 * 0.5**0.5) / 26 / 2)


def test_a_sheet_has_no_volume_to_compare():
    corners = np.array([[-0.5, -0.5, 0.1], [0.5, -0.5, 0.1], [0.5, 0.5, 0.1], [-0.5, 0.5, 0.1]])
    sheet = plain_mesh(corners, np.array([[0, 1, 2], [0, 2, 3]]))
    found = next(compare(predicted_shape(sheet), true_object(sheet)))
    assert found.scores["chamfer_visible"] == 0 and not {"iou", "iou_parity"} & found.scores.keys()
    assert "iou:" in found.reason and "iou_parity:" in found.reason


def test_a_damaged_truth_is_the_reason(tmp_path):
    (tmp_path / "a.ply").write_text("ply\nformat")
    file = MeshFile(str(tmp_path / "a.ply"), "", str(tmp_path))
    rows = score_object(ObjectTask("a", file, 0.0, {"ours": file}, str(tmp_path / "out")))
    assert [row.alignment for row in rows] == ["none", "yaw", "icp"]
    assert all("true mesh" in row.reason and "a.ply" in row.reason and not row.scores for row in rows)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Folder with `truth`, and a method `a` of one good mesh; the others are damaged, missing or without a surface."""
    root = tmp_path_factory.mktemp("shapes")
    for name in ("truth", "a", "b/box"):
        (root / name).mkdir(parents=True)
    box = trimesh.creation.box((1, 0.6, 0.4))
    for name in ("box", "damaged", "missing", "nan", "line"):
        box.export(root / "truth" / f"{name}.ply")
    box.copy().apply_scale(0.9).export(root / "a/box.ply")
    (root / "a/damaged.glb").write_bytes(b"glTF, but not really")
    (root / "a/nan.off").write_text("OFF\n3 1 0\n0 0 0\n1 0 0\nnan 1 0\n3 0 1 2\n")
    (root / "a/line.off").write_text("OFF\n2 2 0\n0 0 0\n1 0 0\n3 0 1 0\n3 1 1 1\n")
    (root / "a/unknown.stl").write_bytes((root / "a/damaged.glb").read_bytes())
    turned(box, 90).export(root / "b/box/mesh.glb")
    return root


@pytest.fixture(scope="module")
def scored(shapes):
    folders = {"ours": str(shapes / "a"), "b": str(shapes / "b")}
    metrics = evaluate_meshes(folders, str(shapes / "truth"), str(shapes / "out"), up=["auto", "z"], workers=1)
    with open(shapes / "out/per_object.csv", newline="", encoding="utf-8") as file:
        return metrics, {(row["method"], row["uid"], row["alignment"]): row for row in csv.DictReader(file)}


def test_missing_and_damaged_meshes_are_rows_with_a_reason(shapes, scored):
    metrics, rows = scored
    assert len(rows) == 2 * 5 * 3
    for uid, word in {"damaged": "damaged.glb", "missing": "no mesh", "nan": "not finite", "line": "no area"}.items():
        row = rows["ours", uid, "none"]
        assert word in row["reason"] and row["chamfer"] == row["iou"] == ""
        assert metrics["missing"]["ours"][uid] == row["reason"]
    assert set(metrics["missing"]["b"]) == {"damaged", "missing", "nan", "line"}
    assert rows["ours", "box", "none"]["reason"] == ""
    chamfers = [one for one in metrics["figures"] if one["score"] == "chamfer" and one["method"] == "ours"]
    assert {(one["objects"], one["missing"]) for one in chamfers} == {(1, 4)}
    assert any("1 of 5 objects" in note for note in metrics["notes"])
    assert any("unknown" in note for note in metrics["notes"])
    report = (shapes / "out/report.html").read_text()
    assert "damaged.glb" in report and "data:image/webp" in report
    assert json.loads((shapes / "out/metrics.json").read_text()) == json.loads(json.dumps(metrics))


def test_scores_of_the_folder(scored):
    metrics, rows = scored
    first = rows["ours", "box", "none"]
    assert float(first["iou"]) == pytest.approx(0.9**3, rel=0.08)  # 25 nodes along the shortest side
    assert float(rows["ours", "box", "icp"]["scale"]) == pytest.approx(1 / 0.9, rel=0.01)
    # The file of b was written as z up and turned by 90 degrees; a turn by 90 or 270 degrees undoes it.
    assert float(rows["b", "box", "yaw"]["yaw_degrees"]) % 180 == pytest.approx(90, abs=1)
    assert float(rows["b", "box", "yaw"]["iou"]) > 0.95
    difference = next(one for one in metrics["figures"] if one["minus"] and one["score"] == "iou")
    expected = float(rows["b", "box", "none"]["iou"]) - float(first["iou"])
    assert difference["value"] == pytest.approx(expected, abs=1e-5) and difference["objects"] == 1


def test_the_same_command_scores_only_what_changed(shapes, scored):
    folders = {"ours": str(shapes / "a"), "b": str(shapes / "b")}
    box, damaged = shapes / "out/objects/ours/box.json", shapes / "out/objects/ours/damaged.json"
    names = ("per_object.csv", "metrics.json", "report.html")
    before = box.stat().st_mtime_ns, [(shapes / "out" / name).read_bytes() for name in names]
    evaluate_meshes(folders, str(shapes / "truth"), str(shapes / "out"), up=["auto", "z"], workers=1)
    assert before == (box.stat().st_mtime_ns, [(shapes / "out" / name).read_bytes() for name in names])
    (shapes / "a/damaged.glb").unlink()
    metrics = evaluate_meshes(folders, str(shapes / "truth"), str(shapes / "out"), up=["auto", "z"], workers=1)
    assert box.stat().st_mtime_ns == before[0] and "no mesh" in damaged.read_text()
    assert "no mesh" in metrics["missing"]["ours"]["damaged"]
    with pytest.raises(UserError, match="benchmark"):
        evaluate_meshes(folders, str(shapes / "truth"), str(shapes / "out"), up=["auto", "z"], protocol="syncdreamer")


@pytest.mark.parametrize(
    ("meshes", "truth", "others", "word"),
    [
        (["nowhere"], "truth", {}, "nowhere"),
        (["a"], "empty", {}, "empty"),
        (["a"], "truth", {"up": ["x"]}, "up=x"),
        (["a"], "truth", {"up": ["y", "z"]}, "up=y,z"),
        (["a"], "truth", {"protocol": "other"}, "benchmark=other"),
        (["a"], "a", {"output": "a"}, "output"),
        (["strange"], "truth", {}, "box"),
        (["a"], "twice", {}, "both are object box"),
        (["a/.."], "truth", {}, "name of a method"),
        ([".."], "truth", {}, "name of a method"),
    ],
)
def test_bad_options_are_one_sentence(shapes, meshes, truth, others, word):
    for name in ("empty", "strange", "twice"):
        (shapes / name).mkdir(exist_ok=True)
    box = (shapes / "truth/box.ply").read_bytes()
    (shapes / "strange/other.ply").write_bytes(box)
    (shapes / "twice/box.ply").write_bytes(box)
    (shapes / "twice/box.stl").write_bytes(box)
    output = str(shapes / others.pop("output", "refused"))
    with pytest.raises(UserError, match=word):
        evaluate_meshes({name: str(shapes / name) for name in meshes}, str(shapes / truth), output, workers=1, **others)
    assert not (shapes / "refused").exists()


def test_files_of_others_are_not_written_over(shapes, tmp_path):
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(UserError, match=r"metrics\.json"):
        evaluate_meshes({"a": str(shapes / "a")}, str(shapes / "truth"), str(tmp_path), workers=1)
    assert (tmp_path / "metrics.json").read_text() == "{}"


def test_published_figures_need_the_same_objects():
    protocol = PROTOCOLS["syncdreamer"]
    assert len(protocol.objects) == 30
    assert comparable(protocol, protocol.objects)[0]["method"] == "Zero123"
    assert comparable(protocol, protocol.objects[1:]) == [] == comparable(None, protocol.objects)


def test_the_true_objects_of_syncdreamer_are_turned_backwards(tmp_path):
    solid = wedge()
    solid.export(tmp_path / "mario.ply")
    folder = mesh_folder("truth", str(tmp_path), "auto", "truth")
    task = tasks(folder, [folder], PROTOCOLS["syncdreamer"], str(tmp_path / "out"))[0]
    truth = true_mesh(task.truth, task.truth_yaw_degrees)  # 270 degrees
    found = next(compare(predicted_shape(plain(turned(solid, -270))), truth)).scores
    assert found["chamfer_visible"] < 1e-4 and found["iou_parity"] == 1
    [lacking, unknown] = notes(folder, [folder], PROTOCOLS["syncdreamer"], [])
    assert "lacks 29" in lacking and "30 names" in unknown


def test_an_off_file_is_read_as_its_twin(tmp_path):
    solid = wedge()
    solid.export(tmp_path / "a.off")
    solid.export(tmp_path / "a.ply")
    off, ply = read_mesh(tmp_path / "a.off"), read_mesh(tmp_path / "a.ply")
    np.testing.assert_allclose(off.vertices[off.faces], ply.vertices[ply.faces], atol=1e-6)
    (tmp_path / "b.off").write_text("OFF\n1000000000000 1 0\n0 0 0\n")
    with pytest.raises(UserError, match=r"b\.off"):
        read_mesh(tmp_path / "b.off")


def test_the_up_axis_can_be_given(tmp_path):
    trimesh.creation.box((0.2, 0.4, 1)).export(tmp_path / "a.obj")
    np.testing.assert_allclose(np.ptp(read_mesh(tmp_path / "a.obj").vertices, axis=0), (0.2, 1, 0.4), atol=1e-6)
    upright = read_mesh(tmp_path / "a.obj", up="z", normalise=False)
    np.testing.assert_allclose(np.ptp(upright.vertices, axis=0), (0.2, 0.4, 1), atol=1e-6)
