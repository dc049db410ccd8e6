"""Fork the processes of `command` and `start`: read a job per line and answer it.

A job with `words` is forked; the answer is its process id. A job with `pid` waits for that process; the answer is its
exit code, or null after `timeout` seconds.
"""

import importlib
import json
import os
import runpy
import sys
import tempfile
import time
import traceback

# None of these starts a thread, which a fork would lose, or makes files, as wandb does, which a child's end removes.
LIBRARIES = (
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.models.unets.unet_2d_condition",
    "diffusers.schedulers.scheduling_ddim",
    "hydra",
    "lightning.pytorch",
    "matplotlib.figure",
    "torch",
    "transformers.models.clip.modeling_clip",
)


def be_command(job: dict) -> None:
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    out, err = (os.open(job[name], os.O_WRONLY | os.O_CREAT) for name in ("out", "err"))
    for source, target in ((null, 0), (out, 1), (err, 2)):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(job["env"])
    # huggingface_hub reads its variables when it is imported, which the parent has done.
    importlib.reload(sys.modules["huggingface_hub.constants"])
    tempfile.tempdir = None  # a library's import had it found, with another TMPDIR
    sys.path[0] = os.getcwd()
    sys.argv = ["", *job["words"][1:]]
    code = 0
    try:
        runpy.run_module(job["words"][0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    # As the interpreter's own end, with its exit handlers, which os._exit would skip.
    sys.exit(code)


def wait(pid: int, timeout: float) -> int | None:
    end = time.monotonic() + timeout
    while not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if time.monotonic() >= end:
            return None
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    for library in LIBRARIES:
        importlib.import_module(library)
    for line in sys.stdin:
        job = json.loads(line)
        if "pid" in job:
            answer = wait(job["pid"], job["timeout"])
        else:
            answer = os.fork()
            if not answer:
                be_command(job)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
