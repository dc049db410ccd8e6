"""Start the Blender process, send it one object at a time, and restart it after a crash, a timeout or a leak."""

import contextlib
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
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from conf.options import FieldError, UserError, first_line
from conf.scratch import scratch_folder
from rendering.asset_validation.references import asset_folders
from rendering.failure import RenderFailure
from rendering.limits import Limits
from rendering.settings import RenderSettings

START_TIMEOUT_S = 300.0  # importing bpy takes a second, on a busy machine much longer
BUILD_TIMEOUT_S = 60.0  # of a procedural object
MEMORY_CHECK_S = 0.1  # interval between two measurements of the child's memory
MAX_STDERR_BYTES = 600  # quoted in an error
MAX_EARLIER_ROOTS = 50  # folders of earlier assets that stay readable
CODE_ROOT = Path(__file__).parents[1]


def require_blender() -> None:
    """Raise `UserError` if this Python has no Blender module."""
    if not importlib.util.find_spec("bpy"):
        raise UserError(
            "this Python has no Blender module (bpy), which needs Python 3.11; run make install, "
            "or python3.11 -m pip install '.[render]'"
        )


@dataclass(frozen=True)
class Rendered:
    """Result of rendering one object.

    Attributes:
        meta: Content of `meta.json`; determined by asset, settings and seed.
        phases: Wall-clock seconds of each phase.
        cpu: CPU seconds of all phases together.
    """

    meta: dict[str, Any]
    phases: dict[str, float]
    cpu: float


class BlenderProcess:
    """A supervised Blender process that renders many objects; it is restarted after a failure.

    Use it as a context manager, in one thread.

    Args:
        limits: Time and memory of one object, and how many objects a process renders before it is restarted.
    """

    def __init__(self, limits: Limits = Limits()) -> None:
        self._limits = limits
        self._objects = 0  # rendered by the current process
        self._initial_gigabytes = 0.0  # memory of the current process before its first object
        # Folders with assets, readable in the sandbox. The first is writable too.
        self._roots = [Path(tempfile.gettempdir()).resolve()]
        self._temporary = tempfile.TemporaryDirectory(prefix="blender-", dir=scratch_folder())  # Blender leaves files
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr = tempfile.TemporaryFile("a+b")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        self._stderr.close()
        self._temporary.cleanup()

    def render(
        self, asset: Path, settings: RenderSettings, seed: int, folder: Path, root: Path | None = None
    ) -> Rendered:
        """Render `asset` (see `rendering.worker`).

        Args:
            asset: The file.
            settings: Cameras, lights and sampling.
            seed: Determines the random cameras and the lights.
            folder: Existing, empty folder for the views.
            root: The folder of the source, by default that of the asset. The asset may refer to files below it.

        Raises:
            RenderFailure: The object has no views. The process remains usable.
            FieldError: The machine has no GPU of the kind `settings.device`.
        """
        root = root or asset.parent
        try:
            folders = asset_folders(asset, root)
        except (OSError, RuntimeError, ValueError) as error:  # a link to itself, or a name that no file can have
            raise RenderFailure("missing", f"{asset.name}: {first_line(error)}") from error
        self._make_readable(folders)
        request = {
            "asset": str(asset), "root": str(root), "settings": asdict(settings), "seed": seed, "folder": str(folder)
        }  # fmt: skip
        response = self._request({"render": request | {"threads": self._limits.threads}}, self._limits.seconds)
        if "no_device" in response:
            raise FieldError(settings, "device", response["no_device"])
        return Rendered(**response)

    def build(self, kind: str, seed: int, path: Path) -> None:
        """Build a procedural object and export it to `path`, a GLB."""
        self._request({"build": {"kind": kind, "seed": seed, "path": str(path)}}, BUILD_TIMEOUT_S)

    def _make_readable(self, folders: Sequence[Path]) -> None:
        """Let Blender read below `folders`; this needs a restart, since a sandbox cannot be widened.

        Of the folders of earlier assets, the last `MAX_EARLIER_ROOTS` stay readable: links may lead to a folder for
        each object, and the command line of a process has a maximum length.
        """
        temporary, *roots = self._roots
        earlier = [root for root in roots if not any(folder.is_relative_to(root) for folder in folders)]
        readable = [temporary, *(root for root in roots if root not in earlier)]
        known = len(readable)
        for folder in folders:
            if not any(folder.is_relative_to(root) for root in readable):
                readable.append(folder)
        if len(readable) > known:
            self._roots = [*readable[:1], *earlier[-MAX_EARLIER_ROOTS:], *readable[1:]]
            self.stop()

    def stop(self) -> None:
        """Kill the process, if there is one. The next request starts another."""
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _request(self, request: dict[str, Any], limit: float) -> dict[str, Any]:
        """Return the response to `request`, with a second attempt if Blender crashes.

        Another process on the machine may have caused the crash. The second attempt overwrites the files of the first.
        """
        try:
            return self._attempt(request, limit)
        except RenderFailure as failure:
            if failure.reason != "crashed":
                raise
            return self._attempt(request, limit)

    def _attempt(self, request: dict[str, Any], limit: float) -> dict[str, Any]:
        self._stderr.truncate(0)  # keep the messages about this object only
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
            raise RenderFailure("timeout", f"rendering took longer than {limit:g} s") from None
        except MemoryError:
            self.stop()
            raise RenderFailure("memory", f"Blender used more than {self._limits.gigabytes:g} GB of memory") from None
        if not line:
            self.stop()
            raise RenderFailure("crashed", f"Blender ended with code {process.returncode}: {self._stderr_tail()}")
        self._objects += 1
        if (
            self._objects >= self._limits.objects
            or _gigabytes(process) - self._initial_gigabytes > self._limits.gigabytes / 4
        ):
            self.stop()  # Blender does not free all memory between objects
        response = json.loads(line)
        if "reason" in response:
            raise RenderFailure(response["reason"], response["detail"])
        return response

    def _start(self) -> None:
        if not (self._try_start() or self._try_start()):  # a second attempt, as for an object
            raise UserError(f"Blender cannot start on {platform.node()}: {self._stderr_tail()}")

    def _try_start(self) -> bool:
        self._objects = 0
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, _first_cores(allowed, self._limits.threads))
        try:
            self._process = subprocess.Popen(
                # -P keeps modules of the working folder from shadowing this code.
                [sys.executable, "-P", "-m", "rendering.worker", *map(str, self._roots)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join([str(CODE_ROOT), os.environ.get("PYTHONPATH", "")]),
                    "TMPDIR": self._temporary.name,
                    "OMP_NUM_THREADS": "1",  # more threads would compete with the other workers for the cores
                },
            )
        finally:
            os.sched_setaffinity(0, allowed)
        try:
            greeting = self._read_line(self._process, START_TIMEOUT_S)
        except (TimeoutError, MemoryError):
            greeting = b""
        if not greeting:
            self.stop()
            return False
        for task in os.listdir(f"/proc/{self._process.pid}/task"):
            with contextlib.suppress(ProcessLookupError):  # the thread has ended
                os.sched_setaffinity(int(task), allowed)
        self._initial_gigabytes = _gigabytes(self._process)
        if not json.loads(greeting)["sandboxed"]:
            warnings.warn(f"{platform.node()} has no Landlock: Blender can read every file that you can", stacklevel=2)
        return True

    def _stderr_tail(self) -> str:
        self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - MAX_STDERR_BYTES))
        return " | ".join(self._stderr.read().decode(errors="replace").split("\n")[-4:]).strip(" |")

    def _read_line(self, process: subprocess.Popen[bytes], limit: float) -> bytes:
        """Return the next line of the process's output, or b"" at its end.

        Raises:
            TimeoutError: There was no line within `limit` seconds.
            MemoryError: The process exceeds its memory limit.
        """
        assert process.stdout
        end = time.monotonic() + limit
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not selector.select(MEMORY_CHECK_S):
                if time.monotonic() > end:
                    raise TimeoutError
                if _gigabytes(process) > self._limits.gigabytes:
                    raise MemoryError
        return process.stdout.readline()


def _first_cores(cores: set[int], count: int) -> set[int]:
    """Return the `count` cores that Blender starts on.

    TBB counts the allowed cores at start and spins a thread on each, also if Cycles has fewer threads. Afterwards the
    process is allowed on all cores. The first core depends on the process id, so that workers start on different ones.
    """
    order = sorted(cores)
    first = os.getpid() % len(order)
    return set((order[first:] + order[:first])[:count])


def _gigabytes(process: subprocess.Popen[bytes]) -> float:
    """Return the resident memory of `process` in gigabytes, 0 if it has ended."""
    try:
        return psutil.Process(process.pid).memory_info().rss / 1e9
    except psutil.NoSuchProcess:
        return 0.0
