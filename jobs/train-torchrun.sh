#!/bin/bash
# Train on machines without a scheduler. Run this script on each machine, at about the same time, from the project's
# folder. Arguments are those of python -m training.finetune:
#
#   jobs/train-torchrun.sh data.path=/shared/views output=/shared/run                         # one machine
#   NODES=2 HEAD=10.0.0.1 jobs/train-torchrun.sh data.path=/shared/views output=/shared/run   # each of two machines
#
# HEAD is the address of one machine, which the others must reach on PORT (default: 29400). PROCESSES is the number of
# processes per machine (default: one per GPU). data.path and output must be accessible from every machine. Ctrl-C or
# SIGTERM on any machine saves the state and ends the run on all machines; the same commands resume the run.
set -euo pipefail

[ $# -gt 0 ] || { echo "usage: [NODES=2 HEAD=10.0.0.1] jobs/train-torchrun.sh data.path=… output=… (as python -m training.finetune)" >&2; exit 2; }
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin=${BIN:-$PWD/.venv/bin}
[ -x "$bin/torchrun" ] || { echo "error: $bin/torchrun: no such file; run make install, or set BIN=… to the folder of another installation" >&2; exit 2; }
nodes=${NODES:-1}
[ "$nodes" = 1 ] || [ -n "${HEAD:-}" ] || { echo "error: NODES=$nodes: set HEAD to the address of one machine" >&2; exit 2; }

# Disable torchrun's error file, because the first process prints the error of the run itself.
export TORCHELASTIC_ERROR_FILE=/dev/null
# After a signal the processes finish their step and save the state, which may take longer than torchrun's 30 s.
exec "$bin/torchrun" --nnodes="$nodes" --nproc-per-node="${PROCESSES:-gpu}" \
    --rdzv-backend=c10d --rdzv-endpoint="${HEAD:-localhost}:${PORT:-29400}" --rdzv-id="${RUN:-zero123}" \
    --shutdown-timeout=600 \
    -m training.finetune +cluster=torchrun "$@"
