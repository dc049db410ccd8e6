"""OBJ: faces with the vertices of an earlier face in opposite winding; Blender's importer keeps only the first."""

import re
from collections.abc import Iterable, Iterator

import numpy as np

from rendering.faces import scramble

FACES = re.compile(rb"^[ \t]*f[ \t]+([^\r\n]*\S)", re.MULTILINE)
AFTER_VERTEX = re.compile(rb"/[^ \t]*")
FACE = re.compile(rb"[ \t]*f[ \t]")
VERTEX = re.compile(rb"[ \t]*v[ \t]")
TEXTURE = re.compile(rb"[ \t]*vt[ \t]")
NORMAL = re.compile(rb"[ \t]*vn[ \t]")
STATE = re.compile(rb"[ \t]*(usemtl|s)[ \t]")

Corner = tuple[int, ...]  # indices of vertex, texture coordinate and normal from 1 on, 0 for none


def has_reversed(data: bytes) -> bool:
    """Return whether any face in the text of an OBJ reverses an earlier one."""
    return _may_repeat(data) and any(face for _, face, _ in _read(data.splitlines(keepends=True), []))


def _may_repeat(data: bytes) -> bool:
    """Return whether two faces may have equal vertices; four times as fast as `_read`."""
    faces = FACES.findall(data)
    text = b" ".join(faces)
    if not faces or b"-" in text or b"\\" in text:
        return bool(faces)
    vertices = np.fromstring(AFTER_VERTEX.sub(b"", text), dtype=np.int64, sep=" ")
    starts = np.cumsum([0, *(len(face.split()) for face in faces[:-1])])
    if starts[-1] >= len(vertices):  # some are not numbers
        return True
    keys = np.add.reduceat(scramble(vertices.astype(np.uint64)), starts)
    return len(np.unique(keys)) < len(keys)


def split_reversed(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the `lines` of an OBJ, with faces that reverse an earlier one moved to the end, with separate vertices."""
    vertices: list[bytes] = []
    moved: list[tuple[list[bytes], list[Corner]]] = []
    for line, face, state in _read(lines, vertices):
        if face:
            moved.append((list(state.values()), face))
        else:
            yield line
    yield b"\n"
    yield from _moved_faces(moved, vertices)


def _read(
    lines: Iterable[bytes], vertices: list[bytes]
) -> Iterator[tuple[bytes, list[Corner] | None, dict[bytes, bytes]]]:
    """Yield each line, its face if it reverses an earlier one, and the current lines of material and smoothing.

    Lines of vertices are appended to `vertices`.
    """
    counts = [0, 0, 0]
    state = {b"usemtl": b"", b"s": b""}
    windings: dict[tuple[int, ...], bool] = {}
    for line in lines:
        reversed_ = None
        if FACE.match(line) and (face := _face(line, counts)):
            numbers = [corner[0] for corner in face]
            start = numbers.index(min(numbers))
            forward = numbers[(start + 1) % len(numbers)] < numbers[start - 1]
            if windings.setdefault(tuple(sorted(numbers)), forward) != forward:
                reversed_ = face
        elif VERTEX.match(line):
            vertices.append(line)
            counts[0] += 1
        elif match := STATE.match(line):
            state[match[1]] = line
        else:
            counts[1] += bool(TEXTURE.match(line))
            counts[2] += bool(NORMAL.match(line))
        yield line, reversed_, state


def _moved_faces(moved: list[tuple[list[bytes], list[Corner]]], vertices: list[bytes]) -> Iterator[bytes]:
    numbers: dict[int, int] = {}
    for _, face in moved:
        for vertex, *_ in face:
            if vertex not in numbers:
                numbers[vertex] = len(vertices) + len(numbers) + 1
                yield vertices[vertex - 1].rstrip(b"\r\n") + b"\n"
    before: list[bytes] = []
    for state, face in moved:
        if state != before:
            yield from (line.rstrip(b"\r\n") + b"\n" for line in state if line)
            before = state
        corners = ["/".join(str(n or "") for n in (numbers[vertex], *rest)) for vertex, *rest in face]
        yield f"f {' '.join(corners)}\n".encode()


def _face(line: bytes, counts: list[int]) -> list[Corner] | None:
    """Return the corners of a face; None if the line is continued or not valid."""
    try:
        corners = [
            tuple(_absolute(int(text or 0), count) for text, count in zip(corner.split(b"/"), counts, strict=False))
            for corner in line.split()[1:]
        ]
    except ValueError:
        return None
    valid = len(corners) > 2 and all(0 < corner[0] <= counts[0] for corner in corners)
    return corners if valid else None


def _absolute(number: int, count: int) -> int:
    return number if number >= 0 else count + number + 1
