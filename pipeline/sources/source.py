"""What a source of 3D objects is: a list of assets, each of which can be brought to a local file."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from rendering.blender_process import BlenderProcess


@dataclass(frozen=True)
class Asset:
    """One object.

    Attributes:
        uid: Its key in the shards.
        origin: Its path inside the source, its URL or its recipe.
        license: Its licence, empty if unknown.
        author: Its author, empty if unknown.
        fault: Why the source cannot provide it; empty for most.
    """

    uid: str
    origin: str
    license: str = ""
    author: str = ""
    fault: str = ""


class Source(Protocol):
    """A frozen dataclass that is its own configuration; it travels to the Ray workers.

    Where it `downloads`, `fetch` waits for a network, uses no renderer, and is called from several threads at a time.
    """

    downloads: ClassVar[bool]

    def find(self) -> list[Asset]:
        """All objects, in an order that is always the same.

        Raises:
            UserError: there are none, and why.
        """
        ...

    def folder(self) -> Path | None:
        """Where the files lie that `fetch` hands out without bringing them to its scratch folder, if there are such.

        Blender can read nothing else.
        """
        ...

    def fetch(self, asset: Asset, folder: Path, renderer: BlenderProcess) -> Path:
        """A local file of `asset`, in the scratch `folder` where it has to be made or downloaded.

        Raises:
            RenderFailure: it cannot be had.
        """
        ...
