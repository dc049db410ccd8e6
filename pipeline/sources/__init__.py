"""Sources of 3D objects. Each source is a dataclass that is also its configuration (`objects=<name>`)."""

from pipeline.sources.folder import FolderObjects
from pipeline.sources.objaverse import ObjaverseObjects
from pipeline.sources.procedural import ProceduralObjects

SOURCES: dict[str, type] = {
    "objects/folder": FolderObjects,
    "objects/objaverse": ObjaverseObjects,
    "objects/procedural": ProceduralObjects,
}
