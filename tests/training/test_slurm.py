"""A Slurm of two nodes on this machine, started here, and jobs/train-slurm.sh on it."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import PROJECT
from tests.support.distributed import GLOBAL, assert_same, one_process
from tests.support.small_run import SMALL, losses

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol")
MISSING = [name for name in PROGRAMS if not shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)} (slurm-wlm and munge)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="munged and slurmd take their jobs' users from root alone"),
]
# Two nodes, both this machine in /etc/hosts; the first is the rendezvous.
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthInfo=socket={root}/munge,cred_expire=5
SlurmctldPort={ports[0]}
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmdSpoolDir={root}/spool-%n
StateSaveLocation={root}/state
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MailProg=/bin/true
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 State=UNKNOWN
NodeName={host}-2 NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
"""


class Slurm:
    def __init__(self, root: Path) -> None:
        self.root = root
        paths = f"{os.environ['PATH']}:/usr/sbin"
        self.env = {**os.environ, "PATH": paths, "SLURM_CONF": str(root / "slurm.conf"), "OMP_NUM_THREADS": "1"}
        self.env |= {"BIN": str(Path(sys.executable).parent), "MASTER_ADDR": "127.0.0.1"}

    def __call__(self, *words: str) -> str:
        done = subprocess.run(words, env=self.env, cwd=PROJECT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def submit(self, *words: str, options: tuple[str, ...] = ()) -> str:
        shape = ["--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=0", "--cpus-per-task=1", "--parsable"]
        log = f"--output={self.root}/%j.out"
        return self("sbatch", *shape, log, *options, "jobs/train-slurm.sh", *words).strip()

    def output_of(self, job: str) -> str:
        log = self.root / f"{job}.out"
        return log.read_text() if log.exists() else ""

    def job(self, job: str) -> dict[str, str]:
        return dict(word.split("=", 1) for word in self("scontrol", "show", "job", job).split() if "=" in word)

    def wait(self, job: str, *states: str) -> dict[str, str]:
        return self.until(job, lambda: (now := self.job(job))["JobState"] in states and now)

    def until(self, job: str, condition):
        deadline = time.monotonic() + 300
        while not (found := condition()):
            assert time.monotonic() < deadline, self.output_of(job)
            time.sleep(0.2)
        return found


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    root = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # a socket's path has 107 letters at most
    root.chmod(0o755)
    sockets = [socket.socket() for _ in range(3)]
    for free in sockets:
        free.bind(("127.0.0.1", 0))
    ports = [free.getsockname()[1] for free in sockets]
    for free in sockets:
        free.close()
    host = socket.gethostname().split(".")[0]
    (root / "slurm.conf").write_text(CONF.format(root=root, host=host, ports=ports))
    (root / "key").write_bytes(os.urandom(128))
    (root / "key").chmod(0o600)
    slurm = Slurm(root)
    files = [f"--{name}-file={root}/{name}" for name in ("key", "pid", "log", "seed")]
    daemons = (
        ["munged", "--foreground", "--force", f"--socket={root}/munge", *files],
        ["slurmctld", "-D", "-c"],
        ["slurmd", "-D", "-N", host],
        ["slurmd", "-D", "-N", f"{host}-2"],
    )
    with open(root / "daemons.log", "wb") as log:
        started = []
        for daemon in daemons:
            started.append(subprocess.Popen(daemon, env=slurm.env, stdout=log, stderr=log))
            time.sleep(1)
    try:
        deadline = time.monotonic() + 60
        while (
            "idle"
            not in subprocess.run(
                ["sinfo", "--noheader", "--format=%T"], env=slurm.env, capture_output=True, text=True
            ).stdout.split()
        ):
            if time.monotonic() > deadline:
                pytest.skip(f"Slurm does not start here: {(root / 'daemons.log').read_text()[-500:]}")
            time.sleep(0.5)
        yield slurm
        subprocess.run(["scancel", "--state=RUNNING"], env=slurm.env)
        subprocess.run(["scancel", "--state=PENDING"], env=slurm.env)
        deadline = time.monotonic() + 40
        while slurm("squeue", "--noheader") and time.monotonic() < deadline:
            time.sleep(0.5)
    finally:
        for process in reversed(started):
            process.terminate()
        for process in reversed(started):
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:  # a slurmd whose controller has gone
                process.kill()
                process.wait()
        shutil.rmtree(root)


@pytest.fixture(scope="module")
def alone(dots, tmp_path_factory) -> Path:
    return one_process(dots, tmp_path_factory.mktemp("alone") / "run")


def test_two_slurm_nodes_stop_resume_and_match_one_process(slurm, dots, tmp_path):
    output, passes = tmp_path / "run", "data.batch_size=1"  # four passes, so that a step takes longer
    alone = one_process(dots, tmp_path / "alone", passes)
    words = [f"data.path={dots}", f"output={output}", *SMALL, *GLOBAL, "data.workers=1", passes]
    words += ["trainer.checkpoint_every=1000"]
    stopped = slurm.submit(*words, options=("--no-requeue",))
    slurm.until(stopped, lambda: "step 1/10" in slurm.output_of(stopped))
    slurm("scancel", "--signal=TERM", stopped)
    assert slurm.wait(stopped, "FAILED")["ExitCode"] == "130:0", slurm.output_of(stopped)
    assert "stopped; repeat the command to continue" in slurm.output_of(stopped)
    assert "Traceback" not in slurm.output_of(stopped)
    (saved,) = (output / "checkpoints").iterdir()
    assert 1 <= int(saved.name) < 10
    again = slurm.submit(*words, options=("--no-requeue",))
    slurm.wait(again, "COMPLETED")
    assert f"step {int(saved.name) + 1}/10" in slurm.output_of(again) and "step 1/" not in slurm.output_of(again)
    assert slurm.output_of(again).count("step 10/10") == 1, "one process speaks for all"
    assert (output / "checkpoints/00000010/state/checkpoint").is_dir(), "ZeRO-2 is what +cluster=slurm asks for"
    assert_same(output, alone)


def test_ddp_on_two_slurm_nodes_matches_one_process(slurm, dots, alone, tmp_path):
    words = [f"data.path={dots}", f"output={tmp_path}/run", *SMALL, *GLOBAL, "data.workers=1", "trainer=ddp"]
    job = slurm.submit(*words)
    slurm.wait(job, "COMPLETED")
    assert (tmp_path / "run/checkpoints/00000010/state").is_file()
    assert_same(tmp_path / "run", alone)


def test_a_run_at_its_time_limit_is_requeued_and_resumes(slurm, dots, tmp_path):
    output = tmp_path / "run"
    words = [f"data.path={dots}", f"output={output}", *SMALL, *GLOBAL, "data.workers=1", "trainer.validate_every=0"]
    words += ["trainer.checkpoint_every=100000", "trainer.max_steps=100000"]
    # Slurm sends the signal up to a minute too early.
    job = slurm.submit(*words, options=("--time=2", "--signal=TERM@20"))
    slurm.until(job, lambda: slurm.job(job)["Restarts"] == "1")
    (saved,) = (output / "checkpoints").iterdir()
    assert "stopped; repeat the command to continue" in slurm.output_of(job) and len(losses(output)) == int(saved.name)
    slurm.until(job, lambda: f"step {int(saved.name) + 2}/" in slurm.output_of(job))
    slurm("scancel", job)
    slurm.wait(job, "CANCELLED")
    slurm.until(job, lambda: len(list((output / "checkpoints").glob("0*[0-9]"))) == 2)
