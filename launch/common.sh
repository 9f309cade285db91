# shellcheck shell=bash
# Sourced by the other scripts: a virtual environment in .venv with this package in it.
# setup_venv EXTRAS installs the package with the given extras ("" for none) unless that is done.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

setup_venv() {
  local extras="$1" stamp
  stamp=".venv/.installed${extras:+-$extras}"
  if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
    [ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
    echo "installing into .venv (a few minutes the first time) ..." >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
      -e ".${extras:+[$extras]}" >&2
    touch "$stamp"
  fi
}

# For scripts that start many processes, where one installing beside the others would do harm.
require_venv() {
  [ -x .venv/bin/python ] && return
  echo "error: $PWD/.venv/bin/python does not exist; run bash launch/install.sh [gpu] there" >&2
  exit 2
}
