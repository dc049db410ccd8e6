"""A run on a Ray cluster: Ray Train starts its processes, and starts them anew when some are lost.

Every start is the same command again: it continues from the newest checkpoint in `output`, which must be a folder
that all machines see. What the first process prints travels in a queue and comes out of the command as it is; Ray's
own words stay in Ray's logs.
"""

import io
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from conf.options import UserError
from pipeline.cluster import LOSSES, SHIPPED, connected
from pipeline.config import Cluster
from training.callbacks.checkpointing import Stopped, finished
from training.config import FinetuneConfig
from training.distributed.strategy import TIMEOUT
from training.distributed.topology import is_rank_zero

LOCAL = "local"
FRUITLESS = 5  # losses in a row, without a checkpoint in between, after which it is not the machines
PATIENCE = 1800.0  # seconds in which a cluster must have found the machines
REMIND = 60.0  # seconds between two words about waiting for them


def launch(config: FinetuneConfig) -> None:
    """Train on the cluster at `ray.address`.

    Raises:
        UserError: no cluster there, it was not said how many devices, it never has them, they are lost over and over,
            or what training itself refuses.
        KeyboardInterrupt: the command was told to end (SIGTERM, SIGINT); the state is saved. A second signal does not
            wait for that.
    """
    options, local = config.trainer, config.ray.address == LOCAL
    if not options.devices:
        raise UserError("ray.address: say how many processes: trainer.num_nodes=… trainer.devices=… (of each node)")
    size = (options.num_nodes or 1) * options.devices
    # Ray Train would otherwise print each word of a process a second time, and ask for the machines anew each minute.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(PATIENCE))
    scratch = Path(config.output).absolute() / "ray"
    cluster = Cluster(address=None if local else config.ray.address, workers=size if local else None)
    try:
        with connected(cluster, cpus_per_task=1, packages=(*SHIPPED, "training")), _told() as told:
            gpus = _gpus(config, local)
            words, stop = _queue(), _queue()
            ended = _fit(config, size, gpus > 0, scratch, {"words": words, "stop": stop})
            if (
                _listen(ended, words, stop, told, needs=f"{size} processes on {'GPUs' if gpus else 'CPUs'}")
                == "stopped"
            ):
                raise KeyboardInterrupt
    finally:
        shutil.rmtree(scratch, ignore_errors=True)  # what Ray Train remembers of itself; checkpoints are ours


def _gpus(config: FinetuneConfig, local: bool) -> int:
    """How many GPUs the processes take, which an autoscaler may still have to bring."""
    import ray

    if config.trainer.accelerator == "cpu":
        return 0
    size = (config.trainer.num_nodes or 1) * config.trainer.devices
    there = int(ray.cluster_resources().get("GPU", 0))
    if config.trainer.accelerator == "gpu":
        if local and there < size:
            raise UserError(f"trainer.accelerator=gpu: this machine has {there} GPUs, not {size}; use cpu or auto")
        return size
    return size if there else 0


def _queue() -> Any:
    """On this machine, which lives as long as the run."""
    import ray
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})


def _fit(config: FinetuneConfig, size: int, gpu: bool, scratch: Path, queues: dict[str, Any]) -> Future[Any]:
    import ray.train
    import ray.train.torch

    train: Any = ray.train  # its types are still those of the version before
    trainer = train.torch.TorchTrainer(
        _process,
        train_loop_config={"config": config, "folder": os.getcwd(), **queues},
        scaling_config=train.ScalingConfig(
            num_workers=size,
            use_gpu=gpu,
            resources_per_worker={"CPU": 1, "GPU": 1} if gpu else {"CPU": 1},
            placement_strategy="PACK",
        ),
        run_config=train.RunConfig(
            name=scratch.name,
            storage_path=str(scratch.parent),
            failure_config=train.FailureConfig(max_failures=LOSSES, controller_failure_limit=FRUITLESS),
        ),
        torch_config=train.torch.TorchConfig(backend="nccl" if gpu else "gloo", timeout_s=int(TIMEOUT.total_seconds())),
    )
    ended: Future[Any] = Future()

    def fit() -> None:
        try:
            ended.set_result(trainer.fit().return_value)
        except BaseException as error:
            ended.set_exception(error)

    # Not in the main thread, where Ray Train would take Ctrl-C for itself and end the processes with nothing saved.
    threading.Thread(target=fit, daemon=True).start()
    return ended


def _listen(ended: Future[Any], words: Any, stop: Any, told: threading.Event, needs: str) -> Any:
    """Print what the processes say until they have ended; what the first one returned."""
    from ray.util.queue import Empty

    asked, lost, step, since = False, 0, -1, time.monotonic()
    reminded = since
    while True:
        if told.is_set() and not asked:
            if step < 0:
                raise KeyboardInterrupt  # there is no process yet
            stop.put(True)
            asked = True
        over = ended.done()
        try:
            kind, value = words.get(timeout=0.5)
        except Empty:
            if over:
                return ended.result()
            if step < 0 and (now := time.monotonic()) - reminded > REMIND:
                reminded = now
                print(f"Ray is starting {needs}; its cluster has {_resources()}", file=sys.stderr)
                if now - since > PATIENCE:
                    raise UserError(f"Ray has not started {needs} in {PATIENCE / 60:.0f} min; ask for fewer") from None
            continue
        match kind:
            case "out" | "err":
                print(value, end="", file=sys.stdout if kind == "out" else sys.stderr, flush=True)
            case "refused":
                raise UserError(value)
            case "begun":
                lost = lost + 1 if value == step else 0
                if lost > FRUITLESS:
                    raise UserError(f"the processes were lost {lost} times at step {step}; see above and Ray's logs")
                if step >= 0:
                    print(f"processes were lost; all start again from step {value}", file=sys.stderr)
                step = value


def _resources() -> str:
    import ray

    there = ray.cluster_resources()
    return f"{there.get('CPU', 0):.0f} CPUs, {there.get('GPU', 0):.0f} GPUs"


@contextmanager
def _told() -> Iterator[threading.Event]:
    """Set by SIGTERM and SIGINT."""
    told = threading.Event()

    def handle(number: int, _: FrameType | None) -> None:
        if told.is_set():
            raise KeyboardInterrupt
        told.set()

    before = {name: signal.signal(name, handle) for name in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield told
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


class _Sent(io.TextIOBase):
    """A stream that ends in the driver's."""

    def __init__(self, words: Any, kind: str) -> None:
        self.words, self.kind = words, kind

    def write(self, text: str) -> int:
        self.words.put((self.kind, text))
        return len(text)


def _process(given: dict[str, Any]) -> str | None:
    """What each process does, in a thread of a Ray actor."""
    from training.train import train

    config, words = given["config"], given["words"]
    if Path(given["folder"]).is_dir():
        os.chdir(given["folder"])  # relative paths are those of the command
    told = threading.Event()
    threading.Thread(target=_await, args=(given["stop"], told), daemon=True).start()
    if is_rank_zero():
        saved = finished(Path(config.output) / "checkpoints")
        words.put(("begun", int(saved[-1].name) if saved else 0))
    options = replace(config.trainer, num_nodes=0, devices=0)  # where Ray placed them, it says itself
    try:
        with redirect_stdout(_Sent(words, "out")), redirect_stderr(_Sent(words, "err")):
            train(replace(config, trainer=options), told.is_set)
    except Stopped:
        return "stopped"
    except UserError as error:
        words.put(("refused", str(error)))
    except Exception as error:
        words.put(("err", f"process {os.environ['RANK']}: {type(error).__name__}: {error}".splitlines()[0] + "\n"))
        raise
    return None


def _await(stop: Any, told: threading.Event) -> None:
    while stop.empty():
        time.sleep(0.2)
    told.set()
