"""Copy a run to remote storage that outlives its machine, such as a spot instance, and restore it from there.

`<mirror>/checkpoints/00000500/…` are the files of a checkpoint. `<mirror>/checkpoints/00000500.json` holds their sizes
and is written last: a folder without it is incomplete. `best` and `model` are stored in the same form.
"""

import fcntl
import json
import logging
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import lightning as L

from conf.options import UserError
from pipeline.storage import list_folder, locate, put_atomically, read_file, write_atomically
from training.callbacks.checkpointing import finished

log = logging.getLogger(__name__)

RECORDS = ("training.yaml", "validation.txt", "metrics.csv", "wandb.json")
MODELS = ("best", "model")


class RemoteCopy(L.Callback):
    """Upload new checkpoints and models in a thread beside training. Add it after the callbacks that write them.

    Args:
        output: Folder of the run.
        url: URL of the remote copy.
        keep: Number of checkpoints to keep there.
    """

    def __init__(self, output: Path, url: str, keep: int) -> None:
        self.output, self.url, self.keep = output, url, keep
        self._executor = ThreadPoolExecutor(1)
        self._running: Future[None] | None = None
        self._uploaded_mtimes_ns: dict[str, int] = {}

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *_: Any) -> None:
        """Start an upload if there is a new folder."""
        if trainer.is_global_zero and self._new_folders():
            self._wait()
            self._running = self._executor.submit(self._upload)

    def on_validation_start(self, trainer: L.Trainer, module: Any) -> None:
        """Wait for the upload, because `best` may be replaced after validation."""
        self._wait()

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        """Upload everything new."""
        self._finish(trainer)

    def on_exception(self, trainer: L.Trainer, module: Any, exception: BaseException) -> None:
        """Upload everything new."""
        self._finish(trainer)

    def _finish(self, trainer: L.Trainer) -> None:
        if trainer.is_global_zero:
            self._wait()
            self._upload()

    def _wait(self) -> None:
        """Wait for the running upload and raise its error."""
        if self._running:
            self._running.result()
            self._running = None

    def _new_folders(self) -> dict[str, int]:
        """Return the modification times of the folders that were written since they were uploaded."""
        # Models come first: a run restored from a checkpoint of the last step could not write its model again.
        folders = [*(self.output / name for name in MODELS), *finished(self.output / "checkpoints")[-1:]]
        times = {str(f.relative_to(self.output)): f.stat().st_mtime_ns for f in folders if f.exists()}
        return {name: time for name, time in times.items() if self._uploaded_mtimes_ns.get(name) != time}

    def _upload(self) -> None:
        for name in RECORDS:  # training.yaml first, because it identifies the run
            if (self.output / name).exists():
                put_atomically(str(self.output / name), f"{self.url}/{name}")
        for name, time in self._new_folders().items():
            upload(self.output / name, f"{self.url}/{name}")
            self._uploaded_mtimes_ns[name] = time
            log.info("uploaded %s to %s", name, self.url)
        for old in uploaded(f"{self.url}/checkpoints")[: -self.keep]:
            _remove(f"{self.url}/checkpoints/{old}")


def restore(output: Path, url: str) -> None:
    """Download the newest remote checkpoint and the models to `output`, unless `output` is as new.

    Every process of a run may call it.

    Raises:
        UserError: The remote copy cannot be read, or differs from the upload.
    """
    output.mkdir(parents=True, exist_ok=True)
    with _locked(output / ".restore.lock"):
        remote = uploaded(f"{url}/checkpoints")
        local = finished(output / "checkpoints")
        if not remote or (local and local[-1].name >= remote[-1]):
            return
        for name in RECORDS:
            if (contents := read_file(f"{url}/{name}")) is not None:
                write_atomically(str(output / name), contents)
        for name in MODELS:
            if read_file(f"{url}/{name}.json") is not None:
                download(f"{url}/{name}", output / name)
        download(f"{url}/checkpoints/{remote[-1]}", output / "checkpoints" / remote[-1])


def upload(folder: Path, url: str) -> None:
    """Upload the files of a folder, and their sizes last. An earlier upload to `url` is removed first."""
    _remove(url)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in files]
    for path, name in zip(files, names, strict=True):
        put_atomically(str(path), f"{url}/{name}")
    sizes = {name: path.stat().st_size for path, name in zip(files, names, strict=True)}
    write_atomically(f"{url}.json", json.dumps(sizes, indent=1).encode())


def download(url: str, folder: Path) -> None:
    """Download an uploaded folder, completely or not at all, and replace `folder` by it.

    Raises:
        UserError: A file is missing, has another size, or has a path outside the folder.
    """
    sizes = read_file(f"{url}.json")
    assert sizes is not None
    partial = folder.with_name(folder.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    fs, root = locate(url)
    for name, size in json.loads(sizes).items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise UserError(f"{url}.json: {name} is outside the folder, so no run uploaded it; use another mirror")
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        if not fs.exists(f"{root}/{name}") or fs.size(f"{root}/{name}") != size:
            raise UserError(f"{url}/{name}: not the uploaded file of {size:,} bytes; remove {url}.json")
        fs.get_file(f"{root}/{name}", str(partial / name))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def uploaded(url: str) -> list[str]:
    """Return the names of the complete checkpoints at a URL, oldest first."""
    names = (path.rsplit("/", 1)[-1] for path in list_folder(url))
    return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))


def _remove(url: str) -> None:
    """Remove an uploaded folder; its sizes go first, which marks it as incomplete."""
    fs, path = locate(url)
    for old in (f"{path}.json", path):
        if fs.exists(old):
            fs.rm(old, recursive=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a file lock, which one process of a machine can have at a time."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
