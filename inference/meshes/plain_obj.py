"""Rewrite an OBJ in the part of the format that trimesh reads as other programs do."""

import re

import numpy as np

from inference.meshes.polygons import triangulate

KEYWORD = rb"(v|vt|vn|f|o|g|s|usemtl|mtllib)"
INDENTED_OR_TABBED = re.compile(rb"^(?:[ \t]+" + KEYWORD + rb"[ \t]+|" + KEYWORD + rb" *\t[ \t]*)", re.MULTILINE)
COMMENT = re.compile(rb"^((?:v|vt|vn|f) [^#\n]*)#[^\n]*", re.MULTILINE)
TABBED = re.compile(rb"^(?:v|vt|vn|f) [^\n]*\t[^\n]*", re.MULTILINE)
POLYGON_OR_RELATIVE = re.compile(rb"^f [^\n]*-|^f (?:[^ \n]+ +){3}[^ \n]", re.MULTILINE)
COUNTED = (b"v", b"vt", b"vn")  # the lines that the indices of a corner count, in the order of a corner


def plain_obj(data: bytes) -> bytes:
    """Return an OBJ of triangles with absolute indices, without comments, tabs and continued lines in its numbers.

    trimesh counts a relative index from the last vertex of the file, not from the last one above the face, and divides
    each polygon into a fan, which leaves a concave one.

    Raises:
        ValueError: A face names a vertex that does not exist, or a point is not three numbers.
    """
    text = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\\\n", b" ")
    text = INDENTED_OR_TABBED.sub(lambda start: (start[1] or start[2]) + b" ", text)
    if b"#" in text:
        text = COMMENT.sub(rb"\1", text)
    if b"\t" in text:
        text = TABBED.sub(lambda line: line[0].replace(b"\t", b" "), text)
    return _triangles(text) if POLYGON_OR_RELATIVE.search(text) else text


def _triangles(text: bytes) -> bytes:
    """Return a text in which faces are replaced by triangles with absolute indices."""
    lines, counts = text.split(b"\n"), dict.fromkeys(COUNTED, 0)
    points, faces = list[list[bytes]](), dict[int, list[bytes]]()
    for number, line in enumerate(lines):
        keyword, _, rest = line.partition(b" ")
        if keyword in counts:
            counts[keyword] += 1
            if keyword == b"v":
                points.append(rest.split()[:3])
        elif keyword == b"f" and (len(corners := rest.split()) != 3 or b"-" in rest):
            totals = [counts[name] for name in COUNTED]
            faces[number] = [_absolute(corner, totals) for corner in corners]
    polygons = [[int(corner.partition(b"/")[0]) - 1 for corner in corners] for corners in faces.values()]
    vertices = np.array(points, dtype=np.float64).reshape(-1, 3)
    triangles: dict[int, list[bytes]] = {number: [] for number in faces}
    numbers = list(faces)
    _, of_polygons, of_corners = triangulate(polygons, vertices)
    for polygon, corners in zip(of_polygons.tolist(), of_corners.tolist(), strict=True):
        names = faces[numbers[polygon]]
        triangles[numbers[polygon]].append(b"f " + b" ".join(names[corner] for corner in corners))
    for number, replacement in triangles.items():
        lines[number] = b"\n".join(replacement)
    return b"\n".join(lines)


def _absolute(corner: bytes, totals: list[int]) -> bytes:
    """Return a corner such as `-1/-1` with its indices counted from the first line of the file."""
    if b"-" not in corner:
        return corner
    indices = corner.split(b"/")
    return b"/".join(
        b"%d" % (total + int(index) + 1) if index.startswith(b"-") else index
        for index, total in zip(indices, totals, strict=False)
    )
