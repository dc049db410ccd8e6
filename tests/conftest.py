"""What all tests share: the real assets, where they are at hand."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

# Two test files run at a time, and OpenMP's threads spin where others work too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts background jobs with SIGINT ignored, which every process that a test starts would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Files of a minute or so. They run first, so that at the end no process waits for a long file of the other.
LONG = ("test_finetune", "test_distributed", "test_render", "test_hub", "test_s3", "test_path", "test_gpu_share")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture(scope="session")
def scans() -> Path:
    """The folder of Google Scanned Objects that lies beside the project on the build machines."""
    folder = Path(__file__).parents[2] / "shared/assets/gso"
    if not folder.is_dir():
        pytest.skip(f"needs the scanned objects in {folder}")
    return folder


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """A file system on an S3 endpoint of this machine; the environment leads everything that speaks S3 to it."""
    from moto.server import ThreadedMotoServer  # some seconds, which most tests need not wait for
    from s3fs import S3FileSystem

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        S3FileSystem.clear_instance_cache()  # one that another module used has the address of its own server
        yield fsspec.filesystem("s3", skip_instance_cache=True)
    server.stop()


@pytest.fixture(autouse=True, scope="module")
def no_shared_wandb() -> Iterator[None]:
    """W&B's service of this process would otherwise be that of every command that a later test starts."""
    yield
    if "WANDB_SERVICE" in os.environ:
        import wandb

        wandb.teardown()
        os.environ.pop("WANDB_SERVICE", None)
