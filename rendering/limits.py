"""Limits of the Blender process: time and memory of one object, number of objects, threads."""

from dataclasses import dataclass

from conf.options import FieldError, option


@dataclass(frozen=True)
class Limits:
    """Limits of one Blender process. They change no pixel."""

    seconds: float = option(300.0, "time limit of one object; a slower one fails with the reason `timeout`")
    gigabytes: float = option(8.0, "memory limit of Blender; an object that exceeds it fails with the reason `memory`")
    objects: int = option(200, "objects per Blender process; it restarts earlier if it keeps a quarter of gigabytes")
    threads: int = option(1, "Cycles threads of one worker")

    def __post_init__(self) -> None:
        if self.gigabytes < 1:
            raise FieldError(self, "gigabytes", "must be at least 1; Blender alone takes half a gigabyte")
        for name, value in vars(self).items():
            if not value > 0:
                raise FieldError(self, name, "must be positive")
