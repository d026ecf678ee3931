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
rm -rf "$runs"
python scripts/run_chain.py --config configs/demo.yaml "root=$runs" "seed=$seed" \
    "simulate.settings.out=$data" "simulate.settings.seed=$seed"
