#!/usr/bin/env bash
# Makes .venv, installs the package and runs the main job; without flags the demo.
#   bash launch/local.sh [--config=configs/ifmmin.py --workdir=DIR --config.data.root=DIR ...]
source "$(dirname "$0")/common.sh"
setup_venv ""
flags=("$@")
[[ " $* " == *" --config="* ]] || flags=(--config=configs/demo.py "${flags[@]}")
[[ " $* " == *" --workdir="* ]] || flags=(--workdir="workdirs/demo-$(date +%Y%m%d-%H%M%S)" "${flags[@]}")
exec .venv/bin/python -m mmer_jax.main "${flags[@]}"
