"""Run training on a Ray cluster with Ray Train, which starts the processes and restarts them when some are lost.

Every start is equivalent to the same command again: it continues from the newest checkpoint in `output`, which must be
a folder that all machines share. Rank zero's stdout and stderr travel through a queue to the driver, which prints
them; Ray's own messages go to Ray's logs.
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
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from conf.options import UserError, first_line
from pipeline.cluster import MAX_LOSSES, SHIPPED, connected
from pipeline.config import Cluster
from training.callbacks.checkpointing import Stopped, finished
from training.config import FinetuneConfig
from training.distributed.strategy import COLLECTIVE_TIMEOUT
from training.distributed.topology import is_rank_zero

LOCAL = "local"
STOPPED = "stopped"  # returned by a process that saved its state on request
MAX_LOSSES_PER_STEP = 5  # losses of processes without a new checkpoint in between
MAX_START_S = 1800.0  # until the cluster must have the machines
START_REMINDER_S = 60.0  # between messages while the cluster starts them


class Kind(StrEnum):
    """Kinds of messages from the processes to the driver."""

    stdout = "stdout"
    stderr = "stderr"
    user_error = "user_error"
    begun = "begun"  # rank zero starts, from the step in the text


class Message(NamedTuple):
    """A message from a process to the driver."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class Queues:
    """Ray queues between the driver and the processes."""

    messages: Any  # kind and text, to the driver
    stop: Any  # not empty: save the state and stop


def launch(config: FinetuneConfig) -> None:
    """Train on the Ray cluster at `ray.address`.

    Raises:
        UserError: There is no cluster, `trainer.devices` is missing, the cluster never has the devices, processes are
            lost repeatedly, or training raised it.
        KeyboardInterrupt: The driver got SIGTERM or SIGINT and the state is saved. A second signal does not wait.
    """
    options, local = config.trainer, config.ray.address == LOCAL
    if not options.devices:
        raise UserError(
            f"ray.address={config.ray.address}: the number of processes is unknown; "
            "set trainer.num_nodes=… and trainer.devices=… (of each node)"
        )
    size = (options.num_nodes or 1) * options.devices
    # Ray Train would otherwise print every line of a process twice, and request the machines again every minute.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(MAX_START_S))
    scratch = Path(config.output).absolute() / "ray"
    cluster = Cluster(address=None if local else config.ray.address, workers=size if local else None)
    try:
        with connected(cluster, cpus_per_task=1, packages=(*SHIPPED, "training")), _stop_signals() as should_stop:
            gpus = _gpus(config, local)
            queues = Queues(_queue(), _queue())
            result = _fit(config, size, gpus > 0, scratch, queues)
            request = f"{size} processes on {'GPUs' if gpus else 'CPUs'}"
            if _forward_messages(result, queues, should_stop, request) == STOPPED:
                raise KeyboardInterrupt
    finally:
        shutil.rmtree(scratch, ignore_errors=True)  # Ray Train's own state; `output/checkpoints` is ours


def _gpus(config: FinetuneConfig, local: bool) -> int:
    """Return the number of GPUs for the processes, which an autoscaling cluster may not have yet."""
    import ray

    if config.trainer.device == "cpu":
        return 0
    size = (config.trainer.num_nodes or 1) * config.trainer.devices
    available = int(ray.cluster_resources().get("GPU", 0))
    if config.trainer.device == "cuda":
        if local and available < size:
            option = f"trainer.accelerator={config.trainer.accelerator}"
            raise UserError(f"{option}: this machine has {available} GPUs, not {size}; use cpu or auto")
        return size
    return size if available else 0


def _queue() -> Any:
    """Return a queue on the driver's machine, which lives as long as the run."""
    import ray
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    driver_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Queue(actor_options={"num_cpus": 0, "scheduling_strategy": driver_node})


def _fit(config: FinetuneConfig, size: int, gpu: bool, scratch: Path, queues: Queues) -> Future[Any]:
    """Start Ray Train in a thread; return the future of the value that rank zero returns."""
    import ray.train
    import ray.train.torch

    train: Any = ray.train  # its type stubs describe an earlier version
    trainer = train.torch.TorchTrainer(
        _process,
        train_loop_config={"config": config, "folder": os.getcwd(), "queues": queues},
        scaling_config=train.ScalingConfig(
            num_workers=size,
            use_gpu=gpu,
            resources_per_worker={"CPU": 1, "GPU": 1} if gpu else {"CPU": 1},
            placement_strategy="PACK",
        ),
        run_config=train.RunConfig(
            name=scratch.name,
            storage_path=str(scratch.parent),
            failure_config=train.FailureConfig(max_failures=MAX_LOSSES, controller_failure_limit=MAX_LOSSES_PER_STEP),
        ),
        torch_config=train.torch.TorchConfig(
            backend="nccl" if gpu else "gloo", timeout_s=int(COLLECTIVE_TIMEOUT.total_seconds())
        ),
    )
    result: Future[Any] = Future()

    def fit() -> None:
        try:
            result.set_result(trainer.fit().return_value)
        except BaseException as error:
            result.set_exception(error)

    # In the main thread, Ray Train would handle SIGINT itself and end the processes without saving.
    threading.Thread(target=fit, daemon=True).start()
    return result


def _forward_messages(result: Future[Any], queues: Queues, should_stop: threading.Event, request: str) -> Any:
    """Print the messages of the processes until they end; return the value of `result`."""
    from ray.util.queue import Empty

    losses, step = 0, -1
    stop_sent = False
    start = last_reminder = time.monotonic()
    while True:
        if should_stop.is_set() and not stop_sent:
            if step < 0:
                raise KeyboardInterrupt  # no process has started
            queues.stop.put(True)
            stop_sent = True
        ended = result.done()  # before the queue is read, so that no last message is lost
        try:
            message = Message(*queues.messages.get(timeout=0.5))
        except Empty:
            if ended:
                return result.result()
            if step < 0 and (now := time.monotonic()) - last_reminder > START_REMINDER_S:
                last_reminder = now
                print(f"Ray is starting {request}; its cluster has {_resources()}", file=sys.stderr)
                if now - start > MAX_START_S:
                    raise UserError(
                        f"trainer.devices: Ray has not started {request} in {MAX_START_S / 60:.0f} min; use fewer"
                    ) from None
            continue
        match message.kind:
            case Kind.stdout:
                print(message.text, end="", flush=True)
            case Kind.stderr:
                print(message.text, end="", file=sys.stderr, flush=True)
            case Kind.user_error:
                raise UserError(message.text)
            case Kind.begun:
                resumed = int(message.text)
                losses = losses + 1 if resumed == step else 0
                if losses > MAX_LOSSES_PER_STEP:
                    raise UserError(
                        f"ray.address: processes were lost {losses} times at step {resumed}; see above and Ray's logs"
                    )
                if step >= 0:
                    print(f"processes were lost; all start again from step {resumed}", file=sys.stderr)
                step = resumed


def _resources() -> str:
    import ray

    resources = ray.cluster_resources()
    return f"{resources.get('CPU', 0):.0f} CPUs, {resources.get('GPU', 0):.0f} GPUs"


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM and SIGINT set; a second signal raises KeyboardInterrupt."""
    signalled = threading.Event()

    def handle(number: int, _: FrameType | None) -> None:
        if signalled.is_set():
            raise KeyboardInterrupt
        signalled.set()

    before = {name: signal.signal(name, handle) for name in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield signalled
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


class _QueueStream(io.TextIOBase):
    """A text stream whose contents the driver prints."""

    def __init__(self, messages: Any, kind: Kind) -> None:
        self.messages, self.kind = messages, kind

    def write(self, text: str) -> int:
        _send(self.messages, self.kind, text)
        return len(text)


def _process(arguments: dict[str, Any]) -> str | None:
    """Train in one process of the run, in a thread of a Ray actor; return `STOPPED` or None."""
    from training.train import train

    config: FinetuneConfig = arguments["config"]
    queues: Queues = arguments["queues"]
    messages = queues.messages
    if Path(arguments["folder"]).is_dir():
        os.chdir(arguments["folder"])  # relative paths refer to the driver's folder
    should_stop = threading.Event()
    threading.Thread(target=_await_stop, args=(queues.stop, should_stop), daemon=True).start()
    if is_rank_zero():
        checkpoints = finished(Path(config.output) / "checkpoints")
        _send(messages, Kind.begun, checkpoints[-1].name if checkpoints else "0")
    options = replace(config.trainer, num_nodes=0, devices=0)  # the environment states where Ray placed the processes
    stdout, stderr = _QueueStream(messages, Kind.stdout), _QueueStream(messages, Kind.stderr)
    try:
        with redirect_stdout(stdout), redirect_stderr(stderr):
            train(replace(config, trainer=options), should_stop.is_set)
    except Stopped:
        return STOPPED
    except UserError as error:
        _send(messages, Kind.user_error, str(error))
    except Exception as error:
        summary = f"rank {os.environ['RANK']}: {type(error).__name__}: {first_line(error)}"
        _send(messages, Kind.stderr, f"{summary}\n")
        raise
    return None


def _send(messages: Any, kind: Kind, text: str) -> None:
    # As plain strings, because the actor that holds the queue may not be able to import this module.
    messages.put((kind.value, text))


def _await_stop(stop: Any, should_stop: threading.Event) -> None:
    while stop.empty():
        time.sleep(0.2)
    should_stop.set()
