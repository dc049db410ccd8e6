"""Copy a run to remote storage that outlives its machine, such as a spot instance, and restore it from there.

`<mirror>/checkpoints/00000500/…` are the files of a checkpoint. `<mirror>/checkpoints/00000500.json` holds their sizes
and is written last: a folder without it is incomplete. `best` and `model` are stored in the same form, under the step
of their weights: `<mirror>/best/00000300/…`. A complete folder never changes, and it is removed only when a newer one
is complete.
"""

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import lightning as L

from conf.options import UserError
from pipeline.storage import clear_errors, list_folder, locate, put_atomically, read_file, write_atomically
from training.callbacks.checkpointing import finished
from training.run_config import read_record

log = logging.getLogger(__name__)

RECORDS = ("training.yaml", "validation.txt", "metrics.csv", "wandb.json")  # training.yaml identifies the run
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
        self._snapshot = output / ".upload"
        self._executor = ThreadPoolExecutor(1)
        self._running: Future[None] | None = None
        self._step = 0
        self._tried: dict[str, int] = {}

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *_: Any) -> None:
        """Start an upload if a folder is new and no upload is running. After a failure the next new folder does."""
        if not trainer.is_global_zero or trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        if self._running and self._running.done():
            if error := self._running.exception():
                log.warning("the upload to %s failed and is repeated after the next save: %s", self.url, error)
            self._running = None
        folders = self._modification_times()
        if not self._running and folders != self._tried:
            self._tried = folders
            self._running = self._executor.submit(self._upload, self._take_snapshot())

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        """Upload everything new.

        Raises:
            UserError: The store denies access or does not respond.
        """
        if trainer.is_global_zero:
            self._finish()

    def on_exception(self, trainer: L.Trainer, module: Any, exception: BaseException) -> None:
        """Upload everything new; a failure does not replace the exception."""
        if trainer.is_global_zero:
            try:
                self._finish()
            except Exception as error:
                log.warning("the upload to %s failed: %s", self.url, error)

    def _finish(self) -> None:
        if self._running:
            wait([self._running])
        self._upload(self._take_snapshot())

    def _folders(self) -> list[Path]:
        # Models come first: a run restored from a checkpoint of the last step could not write its model again.
        models = [self.output / name for name in MODELS if (self.output / name / "training.yaml").exists()]
        return [*models, *finished(self.output / "checkpoints")[-1:]]

    def _modification_times(self) -> dict[str, int]:
        return {str(folder): folder.stat().st_mtime_ns for folder in self._folders()}

    def _take_snapshot(self) -> list[str]:
        """Link the current files in the layout of the remote copy; return the names of the folders.

        Training replaces models and removes old checkpoints while they are uploaded.
        """
        shutil.rmtree(self._snapshot, ignore_errors=True)  # of a killed process
        self._snapshot.mkdir()
        for name in RECORDS:
            if (self.output / name).exists():
                shutil.copyfile(self.output / name, self._snapshot / name)
        names = [remote_name(folder) for folder in self._folders()]
        for folder, name in zip(self._folders(), names, strict=True):
            shutil.copytree(folder, self._snapshot / name, copy_function=_link)
        return names

    def _upload(self, names: list[str]) -> None:
        """Upload the snapshot and remove what it replaces."""
        for name in RECORDS:
            if (self._snapshot / name).exists():
                put_atomically(str(self._snapshot / name), f"{self.url}/{name}")
        for name in names:
            upload(self._snapshot / name, f"{self.url}/{name}")
        for kind, keep in {"checkpoints": self.keep, **dict.fromkeys(MODELS, 1)}.items():
            _remove_older(f"{self.url}/{kind}", keep)
        shutil.rmtree(self._snapshot)


def remote_name(folder: Path) -> str:
    """Return where a checkpoint or model is stored, as `best/00000300`; `best` was written by that step."""
    if folder.name not in MODELS:
        return f"checkpoints/{folder.name}"
    record = read_record(folder / "training.yaml")
    step = record.get("validation", {}).get("step", record["trainer"]["max_steps"])
    return f"{folder.name}/{step:08d}"


def _link(source: str, target: str) -> None:
    """Link a file, or copy it where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


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
            for step in uploaded(f"{url}/{name}")[-1:]:
                download(f"{url}/{name}/{step}", output / name)
        download(f"{url}/checkpoints/{remote[-1]}", output / "checkpoints" / remote[-1])


def upload(folder: Path, url: str) -> None:
    """Upload the files of a folder, and their sizes last, unless an earlier upload to `url` is complete.

    Files of an incomplete upload that the folder does not have are left there; the listing of sizes does not name them.
    """
    if read_file(f"{url}.json") is not None:
        return
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in files]
    for path, name in zip(files, names, strict=True):
        put_atomically(str(path), f"{url}/{name}")
    sizes = {name: path.stat().st_size for path, name in zip(files, names, strict=True)}
    write_atomically(f"{url}.json", json.dumps(sizes, indent=1).encode())
    log.info("uploaded %s", url)


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
    """Return the names of the complete folders at a URL, oldest first."""
    names = (path.rsplit("/", 1)[-1] for path in list_folder(url) if path.endswith(".json"))
    return sorted(name.removesuffix(".json") for name in names if name.removesuffix(".json").isdigit())


def _remove_older(url: str, keep: int) -> None:
    """Remove the folders at a URL that are older than the newest `keep` complete ones, incomplete ones included."""
    kept = uploaded(url)[-keep:]
    fs, root = locate(url)
    for name in {path.rsplit("/", 1)[-1].removesuffix(".json") for path in list_folder(url)}:
        if name.isdigit() and kept and name < kept[0]:
            with clear_errors(fs, url):
                for old in (f"{root}/{name}.json", f"{root}/{name}"):  # without its sizes a folder is incomplete
                    if fs.exists(old):
                        fs.rm(old, recursive=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a file lock, which one process of a machine can have at a time."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
