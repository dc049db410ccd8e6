"""Read an offline W&B run from disk: a LevelDB log of protocol buffers."""

import json
import struct
import time
from pathlib import Path
from typing import Any

BLOCK, HEADER = 32768, 7


def tracked(folder: Path) -> tuple[str, dict[str, Any], list[dict[str, Any]]]:
    """Return id, configuration and history of the run in an `offline-run-…` folder; nested keys are joined with dots.

    The process of W&B writes the end of a run shortly after the command ends, or, on a busy machine, not at all.
    """
    run_id, config, history, ended, deadline = "", {}, [], False, time.monotonic() + 60
    while not ended and time.monotonic() < deadline:
        time.sleep(0.1)
        messages = _messages(folder)
        ended = any(message.HasField("exit") for message in messages)
    for message in messages:
        if message.HasField("run"):
            run_id = message.run.run_id
            config = {item.key: json.loads(item.value_json) for item in message.run.config.update}
        if message.HasField("history"):
            items = message.history.item
            history.append({".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items})
    return run_id, config, history


def artifacts(folder: Path) -> list[tuple[str, list[str], dict[str, Any]]]:
    """Return the name of each logged artifact, the paths or URLs in it, and its metadata."""
    found = [message.artifact for message in _messages(folder) if message.HasField("artifact")]
    return [
        (one.name, sorted(entry.ref or entry.path for entry in one.manifest.contents), json.loads(one.metadata))
        for one in found
    ]


def _messages(folder: Path) -> list[Any]:
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("*.wandb")
    data, position, record, messages = path.read_bytes(), HEADER, b"", []
    while position + HEADER <= len(data):
        if BLOCK - position % BLOCK < HEADER:
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + HEADER])
        record += data[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if kind in (1, 4) and position <= len(data):  # whole, or the last piece
            messages.append(Record.FromString(record))
            record = b""
    return messages
