#!/usr/bin/env bash
# The whole chain on a simulated experiment, on the CPU: minutes, no data, no network besides pip.
#   scripts/demo.sh [seed] [unseen classes]
# With unseen classes, such as 4, so many of the 24 are tested but left out of the training; the last line is theirs.
# Works in .venv, made here unless a virtual environment is active; data and runs go to data/ and runs/ of this folder.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
seed="${1:-2022}"
unseen="${2:-0}"
if [[ ! "$seed" =~ ^[0-9]+$ || ! "$unseen" =~ ^[0-9]+$ ]]; then
    echo "usage: scripts/demo.sh [seed] [unseen classes]   (numbers; default 2022 0)" >&2
    exit 2
fi
data="data/simulated-$seed"
runs="runs/demo-$seed"
settings=()
if [[ "$unseen" != 0 ]]; then
    data+="-unseen-$unseen"
    runs+="-unseen-$unseen"
    settings+=("simulate.settings.unseen_classes=$unseen")
fi

install_mindvis
export WANDB_MODE="${WANDB_MODE:-offline}" WANDB_SILENT=true HF_HUB_OFFLINE=1 MPLBACKEND=Agg
rm -rf "$runs"
python scripts/run_chain.py --config configs/demo.yaml "root=$runs" "seed=$seed" \
    "simulate.settings.out=$data" "simulate.settings.seed=$seed" ${settings[@]+"${settings[@]}"}
