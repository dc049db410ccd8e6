#!/bin/bash
# Train on the nodes of one Slurm job, with one process per GPU. Submit from the project's folder, which must be on a
# file system shared by all nodes, with its .venv. Arguments are those of python -m training.finetune:
#
#   sbatch --nodes=2 jobs/train-slurm.sh data.path="$SCRATCH/views" output="$SCRATCH/run" model.pretrained=…
#   sbatch --ntasks-per-node=4 --gpus-per-node=4 jobs/train-slurm.sh …      # nodes with four GPUs
#
# All paths must be accessible from every node. Two minutes before the time limit, the run saves its state and the job
# is requeued to resume, until training is complete. With --no-requeue, submit the same command again to resume.
# `scancel --signal=TERM JOB` saves the state and requeues at once. `scancel JOB` ends the job without requeueing; the
# state is saved if that takes less than the cluster's KillWait (30 s by default).
#SBATCH --job-name=zero123-train
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
# Without the prefix B:, Slurm sends the signal to the training processes only; this shell must survive to requeue.
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

[ $# -gt 0 ] || { echo "usage: sbatch jobs/train-slurm.sh data.path=… output=… (as python -m training.finetune)" >&2; exit 2; }
[ -n "${SLURM_JOB_ID:-}" ] || { echo "error: this is for sbatch; on machines without Slurm: jobs/train-torchrun.sh" >&2; exit 2; }
# Slurm runs a copy of this script, so the project's folder is the one where sbatch was called.
cd "$SLURM_SUBMIT_DIR"
bin=${BIN:-$PWD/.venv/bin}
[ -x "$bin/python" ] || { echo "error: $bin/python: no such file; run make install, or set BIN=… to the folder of another installation" >&2; exit 2; }

# srun does not inherit --cpus-per-task from sbatch (Slurm 22.05 and later). After the first process exits, the others
# have 300 s to stop, since they may be waiting in a collective operation; --kill-on-bad-exit would end them at once.
code=0
srun --kill-on-bad-exit=0 --wait=300 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
    "$bin/python" -m training.finetune +cluster=slurm "$@" || code=$?
# Exit code 130 means stopped with the state saved after at least one new step, so requeueing cannot repeat forever.
if [ "$code" = 130 ] && scontrol requeue "$SLURM_JOB_ID" 2>/dev/null; then
    echo "requeued; it continues by itself" >&2
    sleep 60 # Slurm ends this shell during the wait
fi
exit "$code"
