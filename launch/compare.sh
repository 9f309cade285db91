#!/usr/bin/env bash
# Trains and scores several methods on the same data and writes one report of all of them.
#   bash launch/compare.sh DIR METHOD... [-- FLAG...]
# DIR/METHOD are the workdirs (configs/METHOD.py), DIR/report is the report; flags go to every run.
# The same command goes on where it stopped.
source "$(dirname "$0")/common.sh"
[ $# -ge 2 ] || { echo "usage: bash launch/compare.sh DIR METHOD... [-- FLAG...]" >&2; exit 2; }
out="$1"
shift
methods=()
while [ $# -gt 0 ] && [ "$1" != "--" ]; do
  [ -e "configs/$1.py" ] || { echo "error: no configs/$1.py" >&2; exit 2; }
  methods+=("$1")
  shift
done
[ $# -eq 0 ] || shift
setup_venv ""
for method in "${methods[@]}"; do
  .venv/bin/python -m mmer_jax.main --config="configs/$method.py" --workdir="$out/$method" "$@"
done
exec .venv/bin/python -m mmer_jax.report "${methods[@]/#/$out/}" --out="$out/report"
