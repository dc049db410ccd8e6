"""COLLADA: XML without entities, with possible counts and without recursive instances."""

import re
from collections import Counter
from pathlib import Path
from urllib.parse import quote, unquote
from xml.etree import ElementTree
from xml.parsers import expat

from rendering.asset_validation.references import Pictures, References, link_all
from rendering.failure import RenderFailure

MAX_ELEMENTS = 2_000_000
MAX_DEPTH = 400
MAX_NODES = 100_000  # including nested instances


def check(path: Path, references: References) -> None:
    """Check a COLLADA document and find its images.

    Raises:
        RenderFailure: `unreadable`, `external`, `incomplete` or `too_large`.
        ValueError: The document is not valid.
    """
    document = _Document(path.stat().st_size)
    with open(path, "rb") as file:
        document.parser.ParseFile(file)
    if document.root != "COLLADA":
        raise ValueError(f"the root element is <{document.root}>")
    pictures = Pictures()
    for reference in dict.fromkeys(document.pictures):
        pictures.add(references.find(unquote(reference), path), reference)
        # Blender ignores a path that is not a valid URI, without an error.
        references.redirected |= bool(re.search(r"[\s#?]", reference))
    for url in document.urls:
        if not url.startswith("#"):
            raise RenderFailure("external", f"the file refers to {url[:200]!r} in another document")
    document.check_instances()


class _Document:
    def __init__(self, size: int) -> None:
        self.size = size
        self.root, self.count, self.text = "", 0, ""
        self.path: list[str] = []
        self.nodes: list[str] = [""]  # ids of the nodes around the current element; "" is the document
        self.placed: dict[str, Counter[str]] = {"": Counter()}
        self.pictures: list[str] = []
        self.urls: list[str] = []
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartDoctypeDeclHandler = self._doctype
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters

    def _doctype(self, *_: object) -> None:
        raise RenderFailure("unreadable", "the file has a document type declaration, which can define entities")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        tag = tag.rpartition(":")[2]
        self.root, self.count, self.text = self.root or tag, self.count + 1, ""
        self.path.append(tag)
        if self.count > MAX_ELEMENTS or len(self.path) > MAX_DEPTH:
            raise RenderFailure("too_large", "the file has too many elements, or too deeply nested ones")
        if "count" in attributes and not 0 <= int(attributes["count"]) <= self.size:
            raise ValueError(f"<{tag}> declares {attributes['count']} elements in {self.size:,} bytes")
        if "url" in attributes:
            self.urls.append(attributes["url"])
        if tag == "node":
            name = attributes.get("id", f" {self.count}")
            self.placed[self.nodes[-1]][name] += 1
            self.placed.setdefault(name, Counter())
            self.nodes.append(name)
        elif tag == "instance_node":
            self.placed[self.nodes[-1]][attributes["url"].removeprefix("#")] += 1

    def _end(self, tag: str) -> None:
        tag = tag.rpartition(":")[2]
        self.path.pop()
        if tag == "node":
            self.nodes.pop()
        # COLLADA 1.4 has <image><init_from>path, 1.5 <init_from><ref>path; inside an effect the text is an id.
        if self.text.strip() and "image" in self.path and tag in ("init_from", "ref"):
            self.pictures.append(self.text)
        self.text = ""

    def _characters(self, text: str) -> None:
        if self.path and self.path[-1] in ("init_from", "ref"):
            self.text += text

    def check_instances(self) -> None:
        total: dict[str, int] = {}
        ancestors: set[str] = set()

        def count(name: str) -> int:
            if name in ancestors:
                raise ValueError(f"node {name!r} is an instance of itself")
            if name not in total:
                ancestors.add(name)
                total[name] = 1 + sum(n * count(part) for part, n in self.placed.get(name, Counter()).items())
                ancestors.remove(name)
            return total[name]

        if (nodes := count("")) > MAX_NODES:
            raise RenderFailure("too_large", f"the file places {nodes:,} nodes; the limit is {MAX_NODES:,}")


def copy(references: References, folder: Path) -> Path:
    """Write the document into `folder` with links to its images, and return its path."""
    resolved = references.resolved[references.asset]
    links = link_all(resolved.values(), folder)
    tree = ElementTree.parse(references.asset)
    ElementTree.register_namespace("", tree.getroot().tag.partition("}")[0].lstrip("{"))
    for element in tree.iter():
        if element.tag.endswith(("init_from", "ref")) and (target := resolved.get(unquote(element.text or ""))):
            element.text = quote(links[target])
    tree.write(folder / references.asset.name, encoding="utf-8", xml_declaration=True)
    return folder / references.asset.name
