"""Generate objects with Blender (furniture, vessels, vehicles, creatures), under CC0 and without a download."""

from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import ClassVar

from conf.options import UserError, option
from pipeline.sources.source import Asset
from pipeline.sources.uid_list import UIDS_HELP, among_listed
from rendering.blender_process import BlenderProcess
from rendering.procedural import COMPOSITE, KINDS


@dataclass(frozen=True)
class ProceduralObjects:
    """Source of `count` seeded procedural objects that cycle through the kinds."""

    downloads: ClassVar[bool] = False
    count: int = option(96, "number of objects")
    seed: int = option(0, "seed of the first object; each further object has the next integer")
    uids: str | None = option(None, UIDS_HELP)
    kinds: list[str] = option(
        [], f"kinds of objects to cycle through, e.g. [chair,car]; []: all {len(KINDS)}; [composite]: random parts"
    )

    def find(self) -> list[Asset]:
        """Return the objects; the seed and the kind of each follow from its index.

        Raises:
            UserError: `count` is below 1, `seed` is negative, or a kind is unknown.
        """
        if self.count < 1:
            raise UserError(f"objects.count={self.count}: must be at least 1")
        if self.seed < 0:
            raise UserError(f"objects.seed={self.seed}: must not be negative")
        if unknown := set(self.kinds) - {*KINDS, COMPOSITE}:
            raise UserError(f"objects.kinds={min(unknown)}: unknown kind; choose from {', '.join(KINDS)}, {COMPOSITE}")
        kinds = islice(cycle(self.kinds or KINDS), self.count)
        numbered = list(enumerate(kinds))
        assets = [Asset(f"{kind}-{i:05d}", f"procedural:{kind}:{self.seed + i}", "cc0") for i, kind in numbered]
        return among_listed(assets, self.uids)

    def folder(self) -> None:
        """Return None, because all files are made in the scratch folder."""
        return None

    def fetch(self, asset: Asset, folder: Path, renderer: BlenderProcess) -> Path:
        """Build the object in Blender and return its GLB file in the scratch `folder`."""
        _, kind, seed = asset.origin.split(":")
        path = folder / f"{asset.uid}.glb"
        renderer.build(kind, int(seed), path)
        return path
