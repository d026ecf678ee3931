#!/usr/bin/env bash
# Install what the tests need and run them (minutes on two cores). Arguments go to pytest:  scripts/test.sh -m slow
# Inside a virtual environment it installs there; otherwise it makes .venv in the project folder.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
install_mindvis test
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! command -v chromium >/dev/null; then
    # The HTML report is opened in a real browser; without one that test is skipped with a reason.
    (apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium) >/dev/null 2>&1 || true
fi
export HF_HUB_OFFLINE=1 WANDB_MODE=disabled MPLBACKEND=Agg
workers=(-n auto --maxprocesses 4 --dist loadfile)
case " $* " in *" -m "*) workers=() ;; esac # the slow ones measure memory and processes, and want the machine to themselves
exec python -m pytest "${workers[@]}" "$@"
