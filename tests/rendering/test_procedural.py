"""Procedural objects are deterministic, varied, closed and small."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh

from rendering.blender_process import BlenderProcess
from rendering.procedural import COMPOSITE, KINDS
from tests.support.environment import unmeasured

ROOT = Path(__file__).parents[2]
ALL = (*KINDS, COMPOSITE)


def document(path: Path) -> dict:
    """Return the JSON chunk of a GLB, after checking its header against the file."""
    raw = path.read_bytes()
    magic, version, size, length, chunk = struct.unpack("<4sIII4s", raw[:20])
    assert (magic, version, size, chunk) == (b"glTF", 2, len(raw), b"JSON")
    return json.loads(raw[20 : 20 + length])


@pytest.fixture(scope="module")
def objects(renderer: BlenderProcess, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build one object of every kind with seed 0, and a composite."""
    folder = tmp_path_factory.mktemp("objects")
    paths = {kind: folder / f"{kind}.glb" for kind in ALL}
    for kind, path in paths.items():
        renderer.build(kind, 0, path)
    return paths


def test_number_of_kinds() -> None:
    assert len(KINDS) >= 20
    assert len(set(KINDS)) == len(KINDS)


@pytest.mark.parametrize("kind", ALL[::4])
def test_equal_seeds_give_equal_bytes_after_other_objects(
    kind: str, objects: dict[str, Path], renderer: BlenderProcess, render, corner: Path, tmp_path: Path
) -> None:
    render(corner, views=1, samples=1)  # leaves a scene, materials and lights behind
    renderer.build(kind, 0, tmp_path / "again.glb")
    assert (tmp_path / "again.glb").read_bytes() == objects[kind].read_bytes()


def test_equal_seeds_give_equal_bytes_in_a_new_process_and_another_order(
    objects: dict[str, Path], tmp_path: Path
) -> None:
    script = (
        "import sys; from pathlib import Path; from rendering.procedural.build import BUILDERS, build\n"
        "for kind in reversed(BUILDERS): build(kind, 0, Path(sys.argv[1]) / f'{kind}.glb')\n"
        "(Path(sys.argv[1]) / 'kinds').write_text(' '.join(BUILDERS))"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=120, env=unmeasured())
    differing = [kind for kind, path in objects.items() if (tmp_path / path.name).read_bytes() != path.read_bytes()]
    assert differing == []
    assert (tmp_path / "kinds").read_text().split() == list(ALL)  # the names that need no Blender are the builders'


@pytest.mark.parametrize("kind", ALL)
def test_another_seed_gives_another_shape_and_other_colours(
    kind: str, objects: dict[str, Path], renderer: BlenderProcess, tmp_path: Path
) -> None:
    renderer.build(kind, 1, tmp_path / "other.glb")
    first, second = _extent(objects[kind]), _extent(tmp_path / "other.glb")
    assert not np.allclose(first / first.max(), second / second.max(), rtol=1e-3)
    assert _images(objects[kind]) != _images(tmp_path / "other.glb")


def _extent(path: Path) -> np.ndarray:
    """Return width, height and depth of the positions in the file."""
    gltf = document(path)
    spots = [
        gltf["accessors"][part["attributes"]["POSITION"]] for mesh in gltf["meshes"] for part in mesh["primitives"]
    ]
    return np.max([spot["max"] for spot in spots], axis=0) - np.min([spot["min"] for spot in spots], axis=0)


def _images(path: Path) -> list[bytes]:
    """Return the embedded image files."""
    raw, gltf = path.read_bytes(), document(path)
    binary = 20 + struct.unpack("<I", raw[12:16])[0] + 8
    views = [gltf["bufferViews"][image["bufferView"]] for image in gltf["images"]]
    starts = [binary + view.get("byteOffset", 0) for view in views]
    return [raw[start : start + view["byteLength"]] for start, view in zip(starts, views, strict=True)]


@pytest.mark.parametrize("kind", ALL)
def test_file_is_small_and_textured(kind: str, objects: dict[str, Path]) -> None:
    gltf = document(objects[kind])
    assert objects[kind].stat().st_size < 400_000
    assert "cameras" not in gltf
    assert "KHR_lights_punctual" not in gltf.get("extensionsUsed", [])
    painted = {
        index
        for index, material in enumerate(gltf["materials"])
        if "baseColorTexture" in material["pbrMetallicRoughness"]
    }
    parts = [part for mesh in gltf["meshes"] for part in mesh["primitives"] if part["material"] in painted]
    assert parts
    assert all("TEXCOORD_0" in part["attributes"] for part in parts)
    assert all(image[:4] in (b"\x89PNG", b"\xff\xd8\xff\xe0") for image in _images(objects[kind]))


@pytest.mark.parametrize("kind", ALL)
def test_the_surface_is_closed(kind: str, objects: dict[str, Path]) -> None:
    parts = list(trimesh.load_scene(objects[kind]).geometry.values())
    uvs = np.concatenate([part.visual.uv for part in parts if part.visual.uv is not None])
    offsets = np.cumsum([0, *(len(part.vertices) for part in parts)])
    points = np.concatenate([part.vertices for part in parts])
    triangles = np.concatenate([part.faces + offset for part, offset in zip(parts, offsets[:-1], strict=True)])
    assert 500 <= len(triangles) <= 9000
    assert np.isfinite(points).all()
    extent = np.ptp(points, axis=0)
    assert extent.min() > 0.15 * extent.max(), "flat object"
    assert 0.5 < extent.max() < 4.0
    assert np.isfinite(uvs).all()
    assert np.ptp(uvs, axis=0).min() > 0.1, "texture coordinates collapsed"
    a, b, c = (points[triangles[:, k]] for k in range(3))
    areas = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    assert np.mean(areas < 1e-9) < 0.01
    _assert_closed_and_outward(points, triangles)


def _assert_closed_and_outward(points: np.ndarray, triangles: np.ndarray) -> None:
    """Check that every edge occurs once in each direction and that the enclosed volume is positive."""
    _, welded = np.unique(np.round(points, 5), axis=0, return_inverse=True)
    corners = welded.reshape(-1)[triangles]
    corners = corners[(corners != np.roll(corners, 1, axis=1)).all(axis=1)]
    edges = np.stack([corners, np.roll(corners, -1, axis=1)], axis=-1).reshape(-1, 2)
    direction = np.where(edges[:, 0] < edges[:, 1], 1, -1)
    _, index = np.unique(np.sort(edges, axis=1), axis=0, return_inverse=True)
    balance = np.bincount(index.reshape(-1), weights=direction)
    assert np.mean(balance != 0) < 0.002, "holes or inverted faces"
    a, b, c = (points[triangles[:, k]] for k in range(3))
    assert np.sum(a * np.cross(b, c)) > 0, "inside out"
