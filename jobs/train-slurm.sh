#!/bin/bash
# Training on the nodes of one Slurm job, a process for each GPU. From the project's folder, which all nodes see (with
# its .venv), words as for python -m training.finetune:
#
#   sbatch --nodes=2 jobs/train-slurm.sh data.path="$SCRATCH/views" output="$SCRATCH/run" model.pretrained=…
#   sbatch --ntasks-per-node=4 --gpus-per-node=4 jobs/train-slurm.sh …      # nodes of four GPUs
#
# All paths must be ones that every node sees. Two minutes before its time is up the run saves its state, and the job
# goes back to the queue and continues, time after time until the model is there; --no-requeue leaves that to you: submit
# the same line again. `scancel --signal=TERM JOB` saves and requeues at once; `scancel JOB` ends it for good, with its
# state saved where the cluster's KillWait leaves time to (30 s by default).
#SBATCH --job-name=zero123-train
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
# To the steps, that is to every process of the training, not to this shell, which has to live on.
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

[ $# -gt 0 ] || { echo "usage: sbatch jobs/train-slurm.sh data.path=… output=… (as python -m training.finetune)" >&2; exit 2; }
[ -n "${SLURM_JOB_ID:-}" ] || { echo "error: this is for sbatch; on machines without Slurm: jobs/train-torchrun.sh" >&2; exit 2; }
# The batch script itself is copied elsewhere by Slurm: the project is where sbatch was called.
cd "$SLURM_SUBMIT_DIR"
bin=${BIN:-$PWD/.venv/bin}
[ -x "$bin/python" ] || { echo "error: there is no $bin/python; make install, or name another folder: BIN=…" >&2; exit 2; }

# srun does not take the CPUs over from sbatch (Slurm 22.05 and later). When one process has died, the others, which
# may wait for it in an exchange, have five minutes; --kill-on-bad-exit would not leave them the time to stop together.
code=0
srun --kill-on-bad-exit=0 --wait=300 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
    "$bin/python" -m training.finetune +cluster=slurm "$@" || code=$?
# 130: stopped with the state saved, at least a step further than before, so this comes to an end.
if [ "$code" = 130 ] && scontrol requeue "$SLURM_JOB_ID" 2>/dev/null; then
    echo "requeued; it continues by itself" >&2
    sleep 60 # Slurm ends this shell meanwhile
fi
exit "$code"
