#!/bin/bash
# A Ray cluster over the nodes of one Slurm job, and the rendering on it. From the project's folder, which all nodes
# see (with its .venv), words as for python -m pipeline.render:
#
#   sbatch --nodes=8 --cpus-per-task=32 jobs/ray-slurm.sh objects=objaverse output="$SCRATCH/views"
#
# All paths must be ones that every node sees. When the time is up, submit the same line again: it continues.
#SBATCH --job-name=zero123-render
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
set -euo pipefail

[ $# -gt 0 ] || { echo "usage: sbatch jobs/ray-slurm.sh objects=… output=… (as python -m pipeline.render)" >&2; exit 2; }
# The batch script itself is copied elsewhere by Slurm: the project is where sbatch was called.
cd "${SLURM_SUBMIT_DIR:-.}"
bin=${BIN:-$PWD/.venv/bin}
[ -x "$bin/ray" ] || { echo "error: there is no $bin/ray; make install, or name another folder: BIN=…" >&2; exit 2; }
export RAY_USAGE_STATS_ENABLED=0
# Other people's jobs reach this network: only who has this job's token may join.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN

cpus=${SLURM_CPUS_PER_TASK:-1}
port=$((20000 + SLURM_JOB_ID % 20000)) # two jobs may share the first node
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}'):$port

# Each step ends with its Ray, and Ray with its step.
steps=()
stop() {
    trap - EXIT TERM INT
    kill "${steps[@]}" 2>/dev/null || true
    wait || true
}
trap stop EXIT
trap 'exit 143' TERM INT

# --overlap, since the rendering command needs a step of its own on the first node.
srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
    "$bin/ray" start --head --node-ip-address="${address%:*}" --port="$port" --num-cpus="$cpus" \
    --include-dashboard=false --block &
steps+=($!)
for node in "${nodes[@]:1}"; do
    # A worker asks for the head until that is up.
    srun --overlap --nodes=1 --ntasks=1 --nodelist="$node" \
        "$bin/ray" start --address="$address" --num-cpus="$cpus" --block &
    steps+=($!)
done

for _ in {1..60}; do
    "$bin/ray" health-check --address="$address" >/dev/null 2>&1 && break
    kill -0 "${steps[0]}" 2>/dev/null || { echo "error: Ray's head ended on $head, see above" >&2; exit 1; }
    sleep 2
done
"$bin/python" -m pipeline.render "$@" cluster.address="$address" &
render=$!
steps+=("$render")
wait "$render"
