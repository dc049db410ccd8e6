#!/bin/bash
# Start a Ray cluster on the nodes of one Slurm job and render on it. Submit from the project's folder, which must be on
# a file system shared by all nodes, with its .venv. Arguments are those of python -m pipeline.render:
#
#   sbatch --nodes=8 --cpus-per-task=32 jobs/ray-slurm.sh objects=objaverse output="$SCRATCH/views"
#
# All paths must be accessible from every node. After the time limit, submit the same command again to resume.
#SBATCH --job-name=zero123-render
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
set -euo pipefail

[ $# -gt 0 ] || { echo "usage: sbatch jobs/ray-slurm.sh objects=… output=… (as python -m pipeline.render)" >&2; exit 2; }
# Slurm runs a copy of this script, so the project's folder is the one where sbatch was called.
cd "${SLURM_SUBMIT_DIR:-.}"
bin=${BIN:-$PWD/.venv/bin}
[ -x "$bin/ray" ] || { echo "error: $bin/ray: no such file; run make install, or set BIN=… to the folder of another installation" >&2; exit 2; }
export RAY_USAGE_STATS_ENABLED=0
# Require a token, because jobs of other users can connect to this network.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN

cpus=${SLURM_CPUS_PER_TASK:-1}
port=$((20000 + SLURM_JOB_ID % 20000)) # derived from the job, since two jobs may share the first node
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}'):$port

# A job step and its Ray process end together.
steps=()
stop() {
    trap - EXIT TERM INT
    kill "${steps[@]}" 2>/dev/null || true
    wait || true
}
trap stop EXIT
trap 'exit 143' TERM INT

# --overlap lets further job steps share the resources of the first node.
srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
    "$bin/ray" start --head --node-ip-address="${address%:*}" --port="$port" --num-cpus="$cpus" \
    --include-dashboard=false --block &
steps+=($!)
for node in "${nodes[@]:1}"; do
    # A worker retries until the head is running.
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
