#!/bin/bash
# Training on machines without a scheduler: this on each of them, at about the same time, from the project's folder.
# Words as for python -m training.finetune:
#
#   jobs/train-torchrun.sh data.path=/shared/views output=/shared/run                               # one machine
#   NODES=2 HEAD=10.0.0.1 jobs/train-torchrun.sh data.path=/shared/views output=/shared/run         # on each of two
#
# HEAD is the address of one of them, where the others can reach it on PORT (29400); PROCESSES (one for each GPU) is how
# many every machine starts. data.path and output must be what every machine sees. Ctrl-C or SIGTERM on any of them saves
# the state and ends the run on all; the same lines continue it.
set -euo pipefail

[ $# -gt 0 ] || { echo "usage: [NODES=2 HEAD=10.0.0.1] jobs/train-torchrun.sh data.path=… output=… (as python -m training.finetune)" >&2; exit 2; }
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin=${BIN:-$PWD/.venv/bin}
[ -x "$bin/torchrun" ] || { echo "error: there is no $bin/torchrun; make install, or name another folder: BIN=…" >&2; exit 2; }
nodes=${NODES:-1}
[ "$nodes" = 1 ] || [ -n "${HEAD:-}" ] || { echo "error: NODES=$nodes: say which machine the others meet at: HEAD=address" >&2; exit 2; }

# What the processes say is printed by them, the first alone; torchrun's own is about them, not from them.
export TORCHELASTIC_ERROR_FILE=/dev/null
exec "$bin/torchrun" --nnodes="$nodes" --nproc-per-node="${PROCESSES:-gpu}" \
    --rdzv-backend=c10d --rdzv-endpoint="${HEAD:-localhost}:${PORT:-29400}" --rdzv-id="${RUN:-zero123}" \
    -m training.finetune +cluster=torchrun "$@"
