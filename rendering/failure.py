"""Define the reasons for which an object has no views, as typed values that a run counts and retries."""

from typing import Literal, get_args

Reason = Literal[
    "missing",  # the file does not exist
    "download",  # the download failed
    "unreadable",  # not a valid file of its format, or a texture's encoding is not supported
    "external",  # refers to a file outside the folder of the source, or to a network address
    "incomplete",  # a texture or buffer that it refers to is missing or damaged
    "too_large",  # exceeds a limit of size or count
    "no_mesh",  # has no faces
    "degenerate",  # the extent is zero or not finite
    "blank",  # every view is empty
    "timeout",  # exceeds limits.seconds
    "memory",  # exceeds limits.gigabytes
    "crashed",  # Blender crashed
]
REASONS: tuple[Reason, ...] = get_args(Reason)


class RenderFailure(Exception):
    """Failure to render an object; the run continues.

    Attributes:
        reason: Value of `Reason`.
        detail: A sentence for the user.
    """

    def __init__(self, reason: Reason, detail: str):
        detail = detail.encode(errors="backslashreplace").decode()  # file names may not be UTF-8
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail
