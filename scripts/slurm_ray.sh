#!/usr/bin/env bash
# A Ray cluster for as long as a SLURM job runs, and one command on it:
#
#   sbatch --nodes=4 --cpus-per-task=16 --time=08:00:00 scripts/slurm_ray.sh sepbench run --suite ... --backend ray --out /shared/...
#
# One task per node starts Ray there, the first node's as the head; the command runs on the first node and finds the cluster by RAY_ADDRESS.
# The job ends with the command, and with its exit code. After the job's time is up the same line goes on where the run was.
# Options of sbatch say what the nodes have: --cpus-per-task (cores for workers on each), --gpus-per-node or --gres, --partition, --account.
# sepbench[ray] must be on PATH on every node, and --out and SEPBENCH_DATA in folders that all nodes see.
#SBATCH --job-name=sepbench
#SBATCH --ntasks-per-node=1
set -euo pipefail

if [ $# -eq 0 ]; then
    echo "usage: sbatch --nodes=N --cpus-per-task=C $0 sepbench run ... --backend ray --out /shared/..." >&2
    exit 2
fi

mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
export SEPBENCH_HEAD=${hosts[0]} SEPBENCH_PORT SEPBENCH_CPUS
SEPBENCH_PORT=$((20000 + SLURM_JOB_ID % 20000)) # two jobs that share a node do not meet, here and below
SEPBENCH_CPUS=${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}
export RAY_TMPDIR=/tmp/ray-$SLURM_JOB_ID # short, for Ray makes sockets there
export RAY_USAGE_STATS_ENABLED=0
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # cores are for workers, each with so many threads
# Others who reach the nodes over the network cannot give this cluster work (Ray >= 2.52).
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')

# Ray gives up, or tries for minutes, where nobody listens yet.
export WAIT_FOR_HEAD='for _ in $(seq 300); do (exec 3<>"/dev/tcp/$SEPBENCH_HEAD/$SEPBENCH_PORT") 2>/dev/null && break; sleep 1; done'
# On every node.
node='
trap "rm -rf $RAY_TMPDIR" EXIT
if [ "$SLURM_NODEID" -eq 0 ]; then
    ray start --head --port="$SEPBENCH_PORT" --num-cpus="$SEPBENCH_CPUS" --include-dashboard=false --block
else
    eval "$WAIT_FOR_HEAD"
    ray start --address="$SEPBENCH_HEAD:$SEPBENCH_PORT" --num-cpus="$SEPBENCH_CPUS" --block
fi'
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --cpus-per-task="$SEPBENCH_CPUS" --overlap bash -c "$node" &
cluster=$!
trap 'kill "$cluster" 2>/dev/null; wait "$cluster" || true' EXIT

# The command begins when every node has come, or after five minutes with those that have. Not "auto": that may find another job's Ray on this node.
export RAY_ADDRESS=$SEPBENCH_HEAD:$SEPBENCH_PORT
eval "$WAIT_FOR_HEAD"
python - "$SLURM_JOB_NUM_NODES" <<'PY'
import sys
import time

import ray

wanted, deadline = int(sys.argv[1]), time.monotonic() + 300
while not ray.is_initialized():
    try:
        ray.init(logging_level="ERROR", log_to_driver=False)
    except Exception as error:
        if time.monotonic() > deadline:
            raise SystemExit(f"the head has not started within five minutes: {error}")
        time.sleep(1)
while True:
    alive = sum(node["Alive"] for node in ray.nodes())
    if alive >= wanted or time.monotonic() > deadline:
        break
    time.sleep(0.5)
print(f"Ray: {alive} of {wanted} nodes, {int(ray.cluster_resources().get('CPU', 0))} CPUs, {int(ray.cluster_resources().get('GPU', 0))} GPUs", flush=True)
PY

"$@"
