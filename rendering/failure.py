"""Why an object has no views: typed, so that a run can count and select by it."""

from typing import Literal, get_args

Reason = Literal[
    "missing",  # the file is not there
    "download",  # it could not be had
    "unreadable",  # it is not what its name says, or broken, or it draws with a picture of a kind that nothing decodes
    "external",  # it refers to a file outside the folder of the source, or to an address
    "incomplete",  # a texture or buffer that it refers to is not there or broken
    "too_large",  # it declares more than any limit allows
    "no_mesh",  # nothing in it has faces
    "degenerate",  # no extent, or none that is finite
    "blank",  # nothing is seen in any view
    "timeout",
    "memory",
    "crashed",
]
REASONS: tuple[Reason, ...] = get_args(Reason)


class RenderFailure(Exception):
    """One object could not be rendered; the run goes on. `detail` is a sentence for people."""

    def __init__(self, reason: Reason, detail: str):
        detail = detail.encode(errors="backslashreplace").decode()  # names in it may not be UTF-8
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail
