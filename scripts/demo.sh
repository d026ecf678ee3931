#!/usr/bin/env bash
# The whole chain on a simulated experiment, on the CPU: minutes, no data, no network besides pip.
#   scripts/demo.sh [seed]
# Works in .venv, made here unless a virtual environment is active; data and runs go to data/ and runs/ of this folder.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
seed="${1:-2022}"
if [[ ! "$seed" =~ ^[0-9]+$ ]]; then
    echo "usage: scripts/demo.sh [seed]   (a number; default 2022)" >&2
    exit 2
fi
data="data/simulated-$seed"
runs="runs/demo-$seed"

stage() {
    local script="$1" config="$2"
    shift 2
    echo "== $script $*"
    python "scripts/$script.py" --config "configs/$config.yaml" "$@"
}

install_mindvis
export WANDB_MODE="${WANDB_MODE:-offline}" WANDB_SILENT=true HF_HUB_OFFLINE=1 MPLBACKEND=Agg
god="data.root=$data/Kamitani/npz"
rm -rf "$runs"
stage simulate simulate_demo "out=$data" "seed=$seed"
stage pretrain_mbm pretrain_demo "run_dir=$runs/pretrain_mbm" "data.root=$data/HCP/npz" "extra_$god" "seed=$seed"
stage finetune_mbm finetune_mbm_demo "run_dir=$runs/finetune_mbm" "pretrained=$runs/pretrain_mbm" "$god" "seed=$seed"
stage finetune_ldm finetune_ldm_demo "run_dir=$runs/finetune_ldm" "encoder=$runs/finetune_mbm" "$god" "seed=$seed"
for control in none shuffled; do
    stage generate generate_demo "run=$runs/finetune_ldm" "seed=$seed" "control=$control"
done
stage evaluate evaluate_demo "decoded=$runs/finetune_ldm/decoded" "seed=$seed"
stage demo_summary evaluate_demo "decoded=$runs/finetune_ldm/decoded"
