"""The parent's side of Blender: start it, give it one object at a time, stop it when it hangs or dies."""

import importlib.util
import json
import os
import platform
import selectors
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from conf.options import FieldError, UserError
from rendering.asset_validation.references import asset_folders
from rendering.failure import RenderFailure
from rendering.limits import Limits
from rendering.settings import RenderSettings

START_LIMIT = 300.0  # seconds; importing bpy takes one, on a machine that is busy with everything else more
MEMORY_CHECK = 0.1  # seconds between two looks at the memory of the child
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
    """`meta` follows from asset, recipe and seed; what it took does not."""

    meta: dict[str, Any]
    phases: dict[str, float]  # seconds by phase of the work
    cpu: float  # CPU seconds of all of them


class BlenderProcess:
    """A supervised Blender process that renders many objects. A new one takes the place of one that fails.

    Use as a context manager; not shared between threads.
    """

    def __init__(self, limits: Limits = Limits()) -> None:
        self._limits = limits
        self._objects = 0  # that the present process has rendered
        self._bare = 0.0  # gigabytes that it held before the first
        self._roots = [Path(tempfile.gettempdir()).resolve()]  # that it may read assets from
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr = tempfile.TemporaryFile("a+b")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        self._stderr.close()

    def render(
        self, asset: Path, settings: RenderSettings, seed: int, folder: Path, root: Path | None = None
    ) -> Rendered:
        """Render `asset` into an existing empty `folder` (see `rendering.worker`).

        `root`, by default the asset's folder, is the folder of the source: the asset may refer to files below it, and
        Blender can read them.

        Raises:
            RenderFailure: the object has no views. The process remains usable.
            FieldError: the machine has no GPU of the kind `settings.device`.
        """
        root = root or asset.parent
        for readable in asset_folders(asset, root):
            self._admit(readable)
        request = {
            "asset": str(asset), "root": str(root), "settings": asdict(settings), "seed": seed, "folder": str(folder)
        }  # fmt: skip
        answer = self._ask({"render": request | {"threads": self._limits.threads}}, self._limits.seconds)
        if "no_device" in answer:
            raise FieldError(settings, "device", answer["no_device"])
        return Rendered(**answer)

    def build(self, kind: str, seed: int, path: Path) -> None:
        """Build a procedural object and export it to `path`, a GLB."""
        self._ask({"build": {"kind": kind, "seed": seed, "path": str(path)}}, 60.0)

    def _admit(self, folder: Path) -> None:
        """Let Blender read below `folder`. No process gets more than it was started with, so a fresh one is."""
        if not any(folder.is_relative_to(root) for root in self._roots):
            self._roots.append(folder)
            self.stop()

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
            line = self._read_line(process, limit)
        except BrokenPipeError:
            line = b""
        except TimeoutError:
            self.stop()
            raise RenderFailure("timeout", f"it took longer than {limit:g} s") from None
        except MemoryError:
            self.stop()
            raise RenderFailure("memory", f"it took more than {self._limits.gigabytes:g} GB of memory") from None
        if not line:
            self.stop()
            raise RenderFailure("crashed", f"Blender died with code {process.returncode}: {self._last_words()}")
        self._objects += 1
        if self._objects >= self._limits.objects or _gigabytes(process) - self._bare > self._limits.gigabytes / 4:
            self.stop()  # what objects leave behind in Blender adds up
        answer = json.loads(line)
        if "reason" in answer:
            raise RenderFailure(answer["reason"], answer["detail"])
        return answer

    def _start(self) -> None:
        if not (self._started() or self._started()):  # once more, as for an object
            raise UserError(f"Blender cannot start on {platform.node()}: {self._last_words()}")

    def _started(self) -> bool:
        self._objects = 0
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, _some(allowed, self._limits.threads))
        try:
            self._process = subprocess.Popen(
                # -P: this code, and not what happens to lie in the folder that a cluster's machine was started in
                [sys.executable, "-P", "-m", "rendering.worker", *map(str, self._roots)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
                    "OMP_NUM_THREADS": "1",  # more would fight over the cores with the workers beside it
                },
            )
        finally:
            os.sched_setaffinity(0, allowed)
        try:
            hello = self._read_line(self._process, START_LIMIT)
        except (TimeoutError, MemoryError):
            hello = b""
        if not hello:
            self.stop()
            return False
        for task in os.listdir(f"/proc/{self._process.pid}/task"):
            os.sched_setaffinity(int(task), allowed)
        self._bare = _gigabytes(self._process)
        if not json.loads(hello)["confined"]:
            warnings.warn(f"{platform.node()} has no Landlock: Blender can read what you can", stacklevel=2)
        return True

    def _last_words(self) -> str:
        self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - 600))
        return " | ".join(self._stderr.read().decode(errors="replace").split("\n")[-4:]).strip(" |")

    def _read_line(self, process: subprocess.Popen[bytes], limit: float) -> bytes:
        """The child's next line, or what there is at its end.

        Raises:
            TimeoutError: `limit` seconds went by. MemoryError: it holds more than it may.
        """
        assert process.stdout
        end = time.monotonic() + limit
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not selector.select(MEMORY_CHECK):
                if time.monotonic() > end:
                    raise TimeoutError
                if _gigabytes(process) > self._limits.gigabytes:
                    raise MemoryError
        return process.stdout.readline()


def _some(cores: set[int], count: int) -> set[int]:
    """Where Blender starts: TBB counts the cores then, and a thread for each of them spins where Cycles may use fewer.

    Once it has counted, it may run on all. Not everybody starts on the first core.
    """
    order = sorted(cores)
    first = os.getpid() % len(order)
    return set((order[first:] + order[:first])[:count])


def _gigabytes(process: subprocess.Popen[bytes]) -> float:
    """Resident memory, 0 once the process has ended."""
    try:
        return psutil.Process(process.pid).memory_info().rss / 1e9
    except psutil.NoSuchProcess:
        return 0.0
