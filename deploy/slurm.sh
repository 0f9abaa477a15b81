#!/bin/bash
# Pilot workers for Slurm: each array task is a worker that asks the coordinator for runs until its time is up.
#
#   sbatch --export=ALL,ISOLOSS_SERVER=http://head:8470,ISOLOSS_TOKEN_FILE=$HOME/isoloss.token --array=0-15 deploy/slurm.sh
#
# With --gres=gpu:1 (or more) a task offers its GPUs too, each for ISOLOSS_GPU_RUNS runs at a time. All tasks that share a
# folder can name it in ISOLOSS_ARTIFACTS: a run that was preempted then goes on from its checkpoint on any node.
#
# Slurm owns nodes, quotas and preemption; the coordinator owns runs. More workers: submit again. Fewer: scancel.
#SBATCH --job-name=isoloss
#SBATCH --cpus-per-task=4
#SBATCH --mem-per-cpu=2G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=isoloss-%A_%a.log
# Two minutes to write checkpoints before the end.
#SBATCH --signal=B:TERM@120
set -euo pipefail

: "${ISOLOSS_SERVER:?set it to the coordinator, for example http://head:8470}"
: "${ISOLOSS_TOKEN_FILE:?set it to a file of mode 0600 with a token from: isoloss token create --role worker}"

# A requeued task may start while its first attempt still runs on a node that lost the network. Each attempt is a worker
# of its own, in a folder of its own; the coordinator's fencing tokens refuse the older one's results.
name="slurm-${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}-${SLURM_ARRAY_TASK_ID:-0}-${SLURM_RESTART_COUNT:-0}"
scratch="${ISOLOSS_SCRATCH:-${SLURM_TMPDIR:-${TMPDIR:-/tmp}}}/isoloss-$name"
mkdir -p "$scratch"

more=()
# Slurm shows a task its own GPUs only.
if [ -n "${SLURM_GPUS_ON_NODE:-}" ]; then more+=(--gpu auto --gpu-runs "${ISOLOSS_GPU_RUNS:-4}"); fi
if [ -n "${ISOLOSS_ARTIFACTS:-}" ]; then more+=(--artifacts "$ISOLOSS_ARTIFACTS"); fi

# exec: the worker itself gets Slurm's TERM, stops its children and hands their slots back.
exec "${ISOLOSS_BIN:-isoloss}" worker \
    --name "$name" \
    --data-dir "$scratch" \
    --cores "${SLURM_CPUS_PER_TASK:-1}" \
    --threads "${ISOLOSS_THREADS:-1}" \
    "${more[@]}"
