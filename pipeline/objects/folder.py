"""Objects from a folder of any depth."""

import csv
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from conf.options import UserError, option
from pipeline.objects.source import Asset
from rendering.failure import RenderFailure
from rendering.formats import SUFFIXES
from rendering.renderer import Renderer

MANIFEST = "objects.csv"


@dataclass(frozen=True)
class FolderObjects:
    """Every file below `path` in a format that Blender reads, or those that its `objects.csv` lists.

    The manifest has the columns uid and path, and optionally license and author.
    """

    downloads: ClassVar[bool] = False
    path: str = option("???", "a folder of GLB, GLTF, OBJ, FBX, PLY, STL, DAE or USD files, any depth")
    limit: int | None = option(None, "take only the first so many objects")

    def find(self) -> list[Asset]:
        root = Path(self.path)
        if self.limit is not None and self.limit < 1:
            raise UserError(f"objects.limit={self.limit}: ask for at least one object")
        if not root.is_dir():
            raise UserError(f"objects.path: there is no folder {self.path}")
        assets = _listed(root) if (root / MANIFEST).is_file() else _walked(root)
        if not assets:
            raise UserError(f"objects.path: {self.path} holds no file ending in {', '.join(SUFFIXES)}")
        return assets[: self.limit]

    def folder(self) -> Path:
        return Path(self.path).absolute()

    def fetch(self, asset: Asset, folder: Path, renderer: Renderer) -> Path:
        # By name only: whoever put a link into the folder means what it points to.
        if Path(asset.origin).is_absolute() or ".." in Path(asset.origin).parts:
            raise RenderFailure("missing", f"{asset.origin} lies outside {self.path}")
        return self.folder() / asset.origin


def _walked(root: Path) -> list[Asset]:
    paths = sorted(p.relative_to(root) for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    plain = Counter(_uid(path.with_suffix("")) for path in paths)
    uids = [_uid(path if plain[_uid(path.with_suffix(""))] > 1 else path.with_suffix("")) for path in paths]
    if clashes := [uid for uid, count in Counter(uids).items() if count > 1]:
        raise UserError(f"objects.path: two files would be object {clashes[0]}; rename one, or list them in {MANIFEST}")
    return [Asset(uid, path.as_posix()) for uid, path in zip(uids, paths, strict=True)]


def _listed(root: Path) -> list[Asset]:
    with open(root / MANIFEST, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if rows and not {"uid", "path"} <= set(rows[0]):
        raise UserError(f"{root / MANIFEST} needs the columns uid and path")
    for number, row in enumerate(rows, start=2):
        if not (row["uid"] and row["path"]):
            raise UserError(f"{root / MANIFEST}, line {number}: uid or path is empty")
    assets = [
        Asset(_uid(Path(row["uid"])), row["path"], row.get("license") or "", row.get("author") or "") for row in rows
    ]
    if clashes := [uid for uid, count in Counter(asset.uid for asset in assets).items() if count > 1]:
        raise UserError(f"{root / MANIFEST} lists object {clashes[0]} twice")
    return assets


def _uid(path: Path) -> str:
    """A name that can be a shard's key: folders joined by a dash, anything unusual an underscore."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", "-".join(path.parts))[:200]
