"""Why an object has no views: typed, so that a run can count and select by it."""

from typing import Literal, get_args

Reason = Literal["unreadable", "no_mesh", "degenerate", "blank", "timeout", "crashed", "missing", "download"]
REASONS: tuple[Reason, ...] = get_args(Reason)


class RenderFailure(Exception):
    """One object could not be rendered; the run goes on. `detail` is a sentence for people."""

    def __init__(self, reason: Reason, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail
