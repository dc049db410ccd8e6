"""Objects of Objaverse 1.0, through the `objaverse` package and its cache in ~/.objaverse."""

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import ClassVar

import numpy as np

from conf.options import UserError, option
from pipeline.objects.source import Asset
from rendering.failure import RenderFailure
from rendering.renderer import Renderer


@dataclass(frozen=True)
class ObjaverseObjects:
    """The catalogue's objects, in a seeded order so that any `limit` is a fair sample."""

    downloads: ClassVar[bool] = True
    limit: int | None = option(None, "take only the first so many objects (all: about 800,000)")
    seed: int = option(0, "of the order in which objects are taken")

    def find(self) -> list[Asset]:
        import objaverse  # an import of half a second that only this source needs

        if self.limit is not None and self.limit < 1:
            raise UserError(f"objects.limit={self.limit}: ask for at least one object")
        try:
            paths = objaverse._load_object_paths()
            uids = sorted(paths)
            np.random.default_rng(self.seed).shuffle(uids)
            chosen = {uid: paths[uid] for uid in uids[: self.limit]}
            licenses = _licenses(chosen)
        except OSError as error:
            raise UserError(
                f"the Objaverse catalogue cannot be reached ({error}); check the network, "
                "or render your own objects with objects=folder objects.path=…"
            ) from error
        return [Asset(uid, path, licenses.get(uid, "")) for uid, path in chosen.items()]

    def fetch(self, asset: Asset, folder: Path, renderer: Renderer) -> Path:
        import objaverse

        cached = Path(objaverse.BASE_PATH) / "hf-objaverse-v1" / asset.origin
        if not cached.is_file():
            try:
                objaverse.load_objects([asset.uid])
            except OSError as error:
                raise RenderFailure("download", str(error)) from error
        return cached


def _licenses(paths: dict[str, str]) -> dict[str, str]:
    """Licence by uid. The annotations come in one file per folder: one at a time, since all fill the memory."""
    import objaverse

    licenses: dict[str, str] = {}

    def folder(uid: str) -> str:
        return paths[uid].split("/")[1]

    for _, uids in groupby(sorted(paths, key=folder), key=folder):
        notes = objaverse.load_annotations(list(uids))
        licenses.update({uid: str(note.get("license") or "") for uid, note in notes.items()})
    return licenses
