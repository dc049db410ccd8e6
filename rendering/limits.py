"""What one object may take of a Blender process, and how long one process lives."""

from dataclasses import dataclass

from conf.options import UserError, option


@dataclass(frozen=True)
class Limits:
    """None of these changes a pixel."""

    seconds: float = option(300.0, "time an object may take before it is given up")
    gigabytes: float = option(8.0, "memory that Blender may take with one object before it is given up")
    objects: int = option(200, "after which a fresh Blender comes, sooner where a quarter of gigabytes stays taken")
    threads: int = option(1, "Cycles threads of one worker")

    def __post_init__(self) -> None:
        if self.gigabytes < 1:
            raise UserError(f"limits.gigabytes={self.gigabytes}: Blender alone takes half of one; give at least 1")
        for name, value in vars(self).items():
            if not value > 0:
                raise UserError(f"limits.{name}={value} must be positive")
