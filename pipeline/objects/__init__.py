"""Where objects come from. Each source is a dataclass that is also its configuration (`objects=<name>`)."""

from pipeline.objects.folder import FolderObjects
from pipeline.objects.objaverse import ObjaverseObjects
from pipeline.objects.procedural import ProceduralObjects

SOURCES: dict[str, type] = {
    "objects/folder": FolderObjects,
    "objects/objaverse": ObjaverseObjects,
    "objects/procedural": ProceduralObjects,
}
