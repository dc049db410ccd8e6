"""Fixtures: small generated assets, and views of them from a real Blender process."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from rendering.blender_process import BlenderProcess
from rendering.settings import RenderSettings
from tests.support.environment import unmeasured


@dataclass(frozen=True)
class Views:
    pixels: np.ndarray  # uint8 [views, height, width, 4]
    cameras: np.ndarray  # [views, 3, 4]
    meta: dict[str, Any]
    files: dict[str, bytes]


@pytest.fixture(scope="session")
def renderer() -> Iterator[BlenderProcess]:
    if not importlib.util.find_spec("bpy"):
        pytest.skip("needs Blender, the `render` extra")
    with BlenderProcess() as renderer:
        yield renderer


@pytest.fixture
def render(renderer: BlenderProcess, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Views]:
    def render(asset: Path, seed: int = 0, renderer: BlenderProcess = renderer, **changes: Any) -> Views:
        folder = tmp_path_factory.mktemp("views")
        settings = {"resolution": 128, "views": 4, "samples": 4, **changes}
        meta = renderer.render(asset, RenderSettings(**settings), seed, folder).meta
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        pictures = [np.asarray(Image.open(path)) for path in sorted(folder.glob("*.webp"))]
        return Views(np.stack(pictures), np.load(folder / "cameras.npy"), meta, files)

    return render


@pytest.fixture(scope="session")
def corner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return three boxes without a common parent, asymmetric, of arbitrary sizes and positions (y up)."""
    path = tmp_path_factory.mktemp("assets") / "corner.glb"
    scene = trimesh.Scene()
    for name, size, place, turn, colour in (
        ("floor", (40, 4, 20), (100, 50, -30), 0.0, (200, 60, 40, 255)),
        ("tower", (6, 30, 6), (110, 65, -34), 0.4, (40, 160, 60, 255)),
        ("arm", (3, 3, 18), (90, 56, -20), 0.9, (60, 80, 220, 255)),
    ):
        box = trimesh.creation.box(size)
        material = trimesh.visual.material.PBRMaterial(baseColorFactor=colour, roughnessFactor=0.9, metallicFactor=0)
        box.visual = trimesh.visual.TextureVisuals(material=material)
        pose = trimesh.transformations.rotation_matrix(turn, [0, 1, 1])
        pose[:3, 3] = place
        scene.add_geometry(box, node_name=name, transform=pose)
    scene.export(path)
    return path


@pytest.fixture(scope="session")
def blender_script(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], None]:
    """Run bpy code in a separate process, to make files that only Blender can write."""

    def run(script: str) -> None:
        words = [sys.executable, "-c", "import bpy\n" + script]
        subprocess.run(words, check=True, capture_output=True, timeout=300, env=unmeasured())

    return run
