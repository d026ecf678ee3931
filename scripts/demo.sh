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

install_mindvis
export WANDB_MODE="${WANDB_MODE:-offline}" WANDB_SILENT=true HF_HUB_OFFLINE=1 MPLBACKEND=Agg
god="data.root=$data/Kamitani/npz"
rm -rf "$runs"
python scripts/run_stages.py \
    simulate --config configs/simulate_demo.yaml "out=$data" "seed=$seed" \
    then pretrain_mbm --config configs/pretrain_demo.yaml "run_dir=$runs/pretrain_mbm" "data.root=$data/HCP/npz" \
    "extra_$god" "seed=$seed" \
    then finetune_mbm --config configs/finetune_mbm_demo.yaml "run_dir=$runs/finetune_mbm" \
    "pretrained=$runs/pretrain_mbm" "$god" "seed=$seed" \
    then finetune_ldm --config configs/finetune_ldm_demo.yaml "run_dir=$runs/finetune_ldm" \
    "encoder=$runs/finetune_mbm" "$god" "seed=$seed" \
    then generate --config configs/generate_demo.yaml "run=$runs/finetune_ldm" "seed=$seed" control=none \
    then generate --config configs/generate_demo.yaml "run=$runs/finetune_ldm" "seed=$seed" control=shuffled \
    then evaluate --config configs/evaluate_demo.yaml "decoded=$runs/finetune_ldm/decoded" "seed=$seed" \
    then demo_summary --config configs/evaluate_demo.yaml "decoded=$runs/finetune_ldm/decoded"
