"""A copy of a run in a store that outlives its machine, as spot machines need: checkpoints, models, figures.

`<mirror>/checkpoints/00000500/…` are the files of a checkpoint and `<mirror>/checkpoints/00000500.json` their sizes,
written last: a folder without it was not uploaded to its end. `best` and `model` lie there in the same way.
"""

import fcntl
import json
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

RECORDS = ("training.yaml", "validation.txt", "metrics.csv", "wandb.json")
MODELS = ("best", "model")


class RemoteCopy(L.Callback):
    """Uploads what is new beside the training, one checkpoint at a time; comes after the callbacks that write."""

    def __init__(self, output: Path, url: str, keep: int) -> None:
        self.output, self.url, self.keep = output, url, keep
        self._worker = ThreadPoolExecutor(1)
        self._running: Future[None] | None = None
        self._uploaded: dict[str, int] = {}  # name -> when it was written, ns

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *_: Any) -> None:
        if trainer.is_global_zero and self._new():
            self._wait()
            self._running = self._worker.submit(self._upload)

    def on_validation_start(self, trainer: L.Trainer, module: Any) -> None:
        self._wait()  # after it, `best` may be written anew

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        self._finish(trainer)

    def on_exception(self, trainer: L.Trainer, module: Any, exception: BaseException) -> None:
        self._finish(trainer)

    def _finish(self, trainer: L.Trainer) -> None:
        if trainer.is_global_zero:
            self._wait()
            self._upload()

    def _wait(self) -> None:
        if self._running:
            self._running.result()  # raises what went wrong
            self._running = None

    def _new(self) -> dict[str, int]:
        """What was written since, and when."""
        # The model first: a run whose last checkpoint was uploaded without it could not come to it any more.
        folders = [*(self.output / name for name in MODELS), *finished(self.output / "checkpoints")[-1:]]
        times = {str(f.relative_to(self.output)): f.stat().st_mtime_ns for f in folders if f.exists()}
        return {name: time for name, time in times.items() if self._uploaded.get(name) != time}

    def _upload(self) -> None:
        for name in RECORDS:  # training.yaml first: it says whose the folder is
            if (self.output / name).exists():
                put_atomically(str(self.output / name), f"{self.url}/{name}")
        for name, time in self._new().items():
            upload(self.output / name, f"{self.url}/{name}")
            self._uploaded[name] = time
        for old in uploaded(f"{self.url}/checkpoints")[: -self.keep]:
            _remove(f"{self.url}/checkpoints/{old}")


def restore(output: Path, url: str) -> None:
    """Bring the newest checkpoint of the mirror to `output`, where none is as new; every process may call it.

    Raises:
        UserError: the mirror cannot be read, or what lies there is not what was uploaded.
    """
    output.mkdir(parents=True, exist_ok=True)
    with _alone(output / ".restore.lock"):
        names = uploaded(f"{url}/checkpoints")
        here = finished(output / "checkpoints")
        if not names or (here and here[-1].name >= names[-1]):
            return
        for name in RECORDS:
            if (contents := read_file(f"{url}/{name}")) is not None:
                write_atomically(str(output / name), contents)
        for name in MODELS:
            if read_file(f"{url}/{name}.json") is not None:
                download(f"{url}/{name}", output / name)
        download(f"{url}/checkpoints/{names[-1]}", output / "checkpoints" / names[-1])


def upload(folder: Path, url: str) -> None:
    """Copy a folder's files; those of an earlier one there are gone first."""
    _remove(url)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in files]
    for path, name in zip(files, names, strict=True):
        put_atomically(str(path), f"{url}/{name}")
    sizes = {name: path.stat().st_size for path, name in zip(files, names, strict=True)}
    write_atomically(f"{url}.json", json.dumps(sizes, indent=1).encode())


def download(url: str, folder: Path) -> None:
    """Copy an uploaded folder here, whole or not at all; what lies there makes way.

    Raises:
        UserError: a file is missing, has another size, or a name that leads elsewhere.
    """
    listed = read_file(f"{url}.json")
    assert listed is not None
    aside = folder.with_name(folder.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    fs, root = locate(url)
    for name, size in json.loads(listed).items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise UserError(f"{url}.json names {name}, which lies outside; it is not what a run uploaded")
        (aside / name).parent.mkdir(parents=True, exist_ok=True)
        if not fs.exists(f"{root}/{name}") or fs.size(f"{root}/{name}") != size:
            raise UserError(f"{url}/{name} is not the file of {size:,} bytes that was uploaded; remove {url}.json")
        fs.get_file(f"{root}/{name}", str(aside / name))
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)


def uploaded(url: str) -> list[str]:
    """The names of the checkpoints that were uploaded to their end, the newest last."""
    names = (path.rsplit("/", 1)[-1] for path in list_folder(url))
    return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))


def _remove(url: str) -> None:
    """The list first: without it there is no folder."""
    fs, path = locate(url)
    for old in (f"{path}.json", path):
        if fs.exists(old):
            fs.rm(old, recursive=True)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One process of a machine at a time."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
