"""Run the command `inference.reconstruct`: one picture, one prompt, one mesh, or a folder of meshes as oracles."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from conf.options import UserError
from inference.meshes.untrusted_scene import SUFFIXES
from inference.novel_view import NovelView
from inference.poses import given_elevation
from inference.reconstruction.config import GuideKind, ReconstructConfig, ViewsSettings
from inference.reconstruction.output_folder import LAYOUT, require_kept
from inference.reconstruction.reconstruction import mesh_name, reconstruct_object
from inference.reconstruction.sources import oracle_source, picture_source, prompt_source
from inference.views.text_to_image import require_own_picture
from pipeline.csv_file import csv_file
from pipeline.output import require_apart, require_own_file, require_own_folder
from pipeline.storage import write_atomically
from pipeline.uid import as_uid
from training.model.hardware.cpu_threads import use_free_cores
from training.model.hardware.device import resolve_device

TRUE_SMOOTHNESS = 0.02  # views.smoothness for an oracle's views
TABLE = "objects.csv"
COLUMNS = (
    "object", "iou", "chamfer", "seconds", "faces", "watertight", "hull_iou", "hull_chamfer", "sphere_iou",
    "sphere_chamfer", "reason",
)  # fmt: skip


def reconstruct(config: ReconstructConfig) -> int:
    """Reconstruct what the options name; return the exit code.

    Raises:
        UserError: An input cannot be read, or the output holds files of others.
    """
    given_elevation(config.elevation)
    if resolve_device(config.device).type == "cpu":
        use_free_cores()
    if config.oracle and config.guide is GuideKind.oracle:
        config = replace(config, views=oracle_views(config.views))
    output = Path(config.output)
    if config.oracle and Path(config.oracle).is_dir():
        return reconstruct_folder(Path(config.oracle), output, config)
    require_own_folder(str(output), LAYOUT)
    if given := config.oracle or config.image:
        require_kept(Path(given), output, "oracle" if config.oracle else "image")
    if config.oracle:
        source = oracle_source(Path(config.oracle), config, load_guide(config))
    elif config.prompt:
        require_own_picture(output)
        source = prompt_source(output, config, load(config))
    else:
        source = picture_source(Path(config.image), config, lambda: load(config))
    record = reconstruct_object(output, source, config)
    print(summary(record))
    print(f"mesh: {output / mesh_name(config)}, report: {output / 'report.html'}")
    return 0


def oracle_views(views: ViewsSettings) -> ViewsSettings:
    """Return the settings for the views of an oracle: all guesses are equal, and no views contradict each other."""
    smoothness = TRUE_SMOOTHNESS if views.smoothness is None else views.smoothness
    return replace(views, guesses=1, rounds=0, strength=1.0, tolerated=0.0, smoothness=smoothness)


def load(config: ReconstructConfig) -> NovelView:
    """Load the checkpoint that the options name."""
    return NovelView.load(config.checkpoint, config.device, config.precision, config.compile)


def load_guide(config: ReconstructConfig) -> NovelView | None:
    """Load the checkpoint if it draws the views of an oracle's object."""
    return load(config) if config.guide is GuideKind.model else None


def summary(record: dict[str, Any]) -> str:
    """Return a line about a finished reconstruction."""
    mesh, truth = record["mesh"], record["truth"]
    solid = "watertight" if mesh["watertight"] else "not watertight"
    scores = f", IoU {truth['iou']:.3f}, Chamfer distance {truth['chamfer']:.4f}" if truth else ""
    return f"{mesh['faces']} faces, {solid}{scores}, {sum(record['seconds'].values()):.0f} s"


def reconstruct_folder(folder: Path, output: Path, config: ReconstructConfig) -> int:
    """Reconstruct each mesh of a folder as its own oracle, and end with a table; return 1 if one has no result."""
    meshes = meshes_in(folder)
    require_apart(str(output), str(folder), "oracle")
    require_own_file(str(output / TABLE), lambda edges: edges.startswith(",".join(COLUMNS[:3]).encode()))
    novel_view = load_guide(config)
    rows = list[tuple[object, ...]]()
    for name, path in tqdm(meshes.items(), desc="objects", unit=" objects"):
        try:
            record = reconstruct_object(output / name, oracle_source(path, config, novel_view), config)
        except UserError as error:
            rows.append((name, *[""] * (len(COLUMNS) - 2), str(error)))
            tqdm.write(f"{name}: {error}", sys.stderr)
            continue
        truth, mesh, seconds = record["truth"], record["mesh"], sum(record["seconds"].values())
        baselines = (truth.get(column, "") for column in COLUMNS[6:10])
        scores = (truth["iou"], truth["chamfer"], round(seconds, 1), mesh["faces"], mesh["watertight"])
        rows.append((name, *scores, *baselines, ""))
    write_atomically(str(output / TABLE), csv_file(COLUMNS, rows))
    print(text_table(rows))
    print(f"table: {output / TABLE}")
    return int(any(row[-1] for row in rows))


def meshes_in(folder: Path) -> dict[str, Path]:
    """Return the meshes of a folder, without hidden files, by the name of their folder in the output.

    Raises:
        UserError: There is none, or two have the same name.
    """
    visible = (path for path in folder.iterdir() if not path.name.startswith("."))  # macOS writes ._box.glb
    paths = sorted(path for path in visible if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise UserError(f"oracle={folder}: there is no mesh in this folder; give {', '.join(SUFFIXES)} files")
    meshes: dict[str, Path] = {}
    for path in paths:
        if (name := as_uid(path.stem)) in meshes:
            raise UserError(f"oracle={folder}: {meshes[name]} and {path} both are object {name}; rename one")
        meshes[name] = path
    return meshes


def text_table(rows: Sequence[tuple[object, ...]]) -> str:
    """Return rows of `COLUMNS` as text, with the mean and the worst of the objects that have a result."""
    done = [row for row in rows if not row[-1]]
    lines = [f"{'object':<40} {'IoU':>6} {'Chamfer':>8} {'seconds':>8}"]
    for name, iou, distance, seconds, *_ in done:
        lines.append(f"{str(name)[:40]:<40} {iou:6.3f} {distance:8.4f} {seconds:8.1f}")
    if done:
        numbers = np.array([row[1:4] for row in done], dtype=np.float64)
        worst = (numbers[:, 0].min(), numbers[:, 1].max(), numbers[:, 2].max())
        for name, values in (("mean", numbers.mean(axis=0)), ("worst", worst)):
            lines.append(f"{f'{name} of {len(done)}':<40} {values[0]:6.3f} {values[1]:8.4f} {values[2]:8.1f}")
    if failed := len(rows) - len(done):
        lines.append(f"{failed} of {len(rows)} objects have no result; see the reasons in the table")
    return "\n".join(lines)
