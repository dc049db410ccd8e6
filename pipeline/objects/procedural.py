"""Objects that Blender builds on the spot: furniture, vessels, vehicles, creatures. No download, no licence."""

from dataclasses import dataclass
from pathlib import Path

from conf.options import UserError, option
from pipeline.objects.source import Asset
from rendering.procedural import KINDS
from rendering.renderer import Renderer


@dataclass(frozen=True)
class ProceduralObjects:
    """`count` seeded objects that take the kinds in turn."""

    count: int = option(96, "how many objects")
    seed: int = option(0, "another seed, other objects")

    def find(self) -> list[Asset]:
        if self.count < 1:
            raise UserError(f"objects.count={self.count}: ask for at least one object")
        return [
            Asset(f"{KINDS[i % len(KINDS)]}-{i:05d}", f"procedural:{KINDS[i % len(KINDS)]}:{self.seed + i}", "cc0")
            for i in range(self.count)
        ]

    def fetch(self, asset: Asset, folder: Path, renderer: Renderer) -> Path:
        _, kind, seed = asset.origin.split(":")
        path = folder / f"{asset.uid}.glb"
        renderer.build(kind, int(seed), path)
        return path
