"""The parent's side of Blender: start it, give it one object at a time, stop it when it hangs or dies."""

import importlib.util
import json
import os
import platform
import selectors
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from conf.options import UserError
from rendering.failure import RenderFailure
from rendering.limits import Limits
from rendering.recipe import Recipe

START_LIMIT = 300.0  # seconds; importing bpy takes one, on a machine that is busy with everything else more
ROOT = Path(__file__).parents[1]  # this code, wherever it was shipped to


def require_blender() -> None:
    """Raise UserError where this Python has no Blender, before every single object fails for it."""
    if not importlib.util.find_spec("bpy"):
        raise UserError(
            "this Python has no Blender module; it exists for Python 3.11 alone: make install, "
            "or python3.11 -m pip install '.[render]'"
        )


@dataclass(frozen=True)
class Rendered:
    """`meta` follows from asset, recipe and seed; `phases`, the seconds that each phase took, do not."""

    meta: dict[str, Any]
    phases: dict[str, float]


class Renderer:
    """A supervised Blender process that renders many objects. A new one takes the place of one that fails.

    Use as a context manager; not shared between threads.
    """

    def __init__(self, limits: Limits = Limits()) -> None:
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr = tempfile.TemporaryFile("a+b")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        self._stderr.close()

    def render(self, asset: Path, recipe: Recipe, seed: int, folder: Path) -> Rendered:
        """Render `asset` into an existing empty `folder` (see `rendering.worker`).

        Raises:
            RenderFailure: this object has no views, and why. The renderer remains usable.
        """
        request = {"asset": str(asset), "recipe": asdict(recipe), "seed": seed, "folder": str(folder)}
        return Rendered(**self._ask({"render": request | {"threads": self._limits.threads}}, self._limits.seconds))

    def build(self, kind: str, seed: int, path: Path) -> None:
        """Build a procedural object and export it to `path`, a GLB."""
        self._ask({"build": {"kind": kind, "seed": seed, "path": str(path)}}, 60.0)

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _ask(self, request: dict[str, Any], limit: float) -> dict[str, Any]:
        """The answer. Where Blender dies, a fresh one tries once more: a neighbour may have been what killed it.

        The second attempt writes over all that the first has left.
        """
        try:
            return self._attempt(request, limit)
        except RenderFailure as failure:
            if failure.reason != "crashed":
                raise
            return self._attempt(request, limit)

    def _attempt(self, request: dict[str, Any], limit: float) -> dict[str, Any]:
        self._stderr.truncate(0)  # only the last words about this object are of interest
        if self._process is None:
            self._start()
        process = self._process
        assert process and process.stdin and process.stdout
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            line = _read_line(process.stdout, limit)
        except BrokenPipeError:
            line = b""
        except TimeoutError:
            self.stop()
            raise RenderFailure("timeout", f"it took longer than {limit:g} s") from None
        if not line:
            self.stop()
            raise RenderFailure("crashed", f"Blender died with code {process.returncode}: {self._last_words()}")
        answer = json.loads(line)
        if "reason" in answer:
            raise RenderFailure(answer["reason"], answer["detail"])
        return answer

    def _start(self) -> None:
        if not (self._started() or self._started()):  # once more, as for an object
            raise UserError(f"Blender cannot start on {platform.node()}: {self._last_words()}")

    def _started(self) -> bool:
        self._process = subprocess.Popen(
            # -P: this code, and not what happens to lie in the folder that a cluster's machine was started in
            [sys.executable, "-P", "-m", "rendering.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
                "OMP_NUM_THREADS": "1",  # more would fight over the cores with the workers beside it
            },
        )
        try:
            hello = _read_line(self._process.stdout, START_LIMIT)
        except TimeoutError:
            hello = b""
        if not hello:
            self.stop()
        return bool(hello)

    def _last_words(self) -> str:
        self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - 600))
        return " | ".join(self._stderr.read().decode(errors="replace").split("\n")[-4:]).strip(" |")


def _read_line(pipe: Any, limit: float) -> bytes:
    """One line, or what there is at the end of the stream; TimeoutError after `limit` seconds without."""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        if not selector.select(limit):
            raise TimeoutError
    return pipe.readline()
