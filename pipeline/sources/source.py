"""Interface of a source of 3D objects: a list of assets, each of which can be fetched as a local file."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from pipeline.uid import require_uid
from rendering.blender_process import BlenderProcess


@dataclass(frozen=True)
class Asset:
    """3D object of a source.

    Attributes:
        uid: Key of the object in the shards.
        origin: Path inside the source, URL, or parameters of a procedural object.
        license: Licence, empty if unknown.
        author: Author, empty if unknown.
        fault: Reason why the source cannot provide the object, empty if it can.

    Raises:
        UserError: The uid cannot name files of a shard.
    """

    uid: str
    origin: str
    license: str = ""
    author: str = ""
    fault: str = ""

    def __post_init__(self) -> None:
        require_uid(self.uid)


class Source(Protocol):
    """Source of 3D objects: a frozen dataclass that is its own configuration and is sent to the Ray workers.

    Attributes:
        downloads: Whether `fetch` uses the network. Such a source does not use the renderer, and its `fetch` is called
            from several threads concurrently.
    """

    downloads: ClassVar[bool]

    def find(self) -> list[Asset]:
        """Return all objects in a deterministic order.

        Raises:
            UserError: The source has no objects, or its options are invalid.
        """
        ...

    def folder(self) -> Path | None:
        """Return the folder of the files that `fetch` returns in place, or None if all are in the scratch folder.

        Blender can read this folder and the scratch folder only.
        """
        ...

    def fetch(self, asset: Asset, folder: Path, renderer: BlenderProcess) -> Path:
        """Return a local file of `asset`.

        Args:
            asset: Object to fetch.
            folder: Scratch folder for a file that is made or downloaded.
            renderer: Blender process, for sources that build their objects.

        Returns:
            Path of the file, in the scratch folder or in `folder()` of the source.

        Raises:
            RenderFailure: The object cannot be fetched.
        """
        ...
