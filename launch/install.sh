#!/usr/bin/env bash
# Makes .venv and installs the package with the given extras (gpu, tpu, ...); runs nothing.
#   bash launch/install.sh [EXTRAS]
source "$(dirname "$0")/common.sh"
setup_venv "${1:-}"
