"""Fork server for the commands under test: read one JSON request per line of stdin and answer on stdout.

A request with `words` forks a process that runs them; the answer is its process id. A request with `pid` waits for
that process; the answer is its exit code, or null after `timeout` seconds.
"""

import importlib
import json
import os
import runpy
import sys
import tempfile
import time
import traceback

# No library that starts threads, which a fork loses, or creates files that a child removes at exit, as wandb does.
PRELOADED = (
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.models.unets.unet_2d_condition",
    "diffusers.schedulers.scheduling_ddim",
    "hydra",
    "lightning.pytorch",
    "matplotlib.figure",
    "torch",
    "transformers.models.clip.modeling_clip",
)


def run_command(request: dict) -> None:
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    out, err = (os.open(request[name], os.O_WRONLY | os.O_CREAT) for name in ("out", "err"))
    for source, target in ((null, 0), (out, 1), (err, 2)):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(request["env"])
    # huggingface_hub reads the environment on import, which happened in the parent.
    importlib.reload(sys.modules["huggingface_hub.constants"])
    tempfile.tempdir = None  # cached by the parent, whose TMPDIR may differ
    sys.path[0] = os.getcwd()
    sys.argv = ["", *request["words"][1:]]
    code = 0
    try:
        runpy.run_module(request["words"][0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    # Unlike os._exit, this runs the exit handlers.
    sys.exit(code)


def wait(pid: int, timeout: float) -> int | None:
    end = time.monotonic() + timeout
    while not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if time.monotonic() >= end:
            return None
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    for library in PRELOADED:
        importlib.import_module(library)
    for line in sys.stdin:
        request = json.loads(line)
        if "pid" in request:
            answer = wait(request["pid"], request["timeout"])
        else:
            answer = os.fork()
            if not answer:
                run_command(request)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
